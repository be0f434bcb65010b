//! `cargo xtask fuzz`: coverage-guided fuzzing of what reads the boot network's datagrams and frames, for a bounded time.
//!
//! It is the real cargo-fuzz with libFuzzer and the address sanitizer, installed into the cache, a fixed version. The targets
//! of `pxe/fuzz` are built by the stable toolchain: `RUSTC_BOOTSTRAP=1`, for that build alone, lets it take the sanitizer's
//! flags. Seeds and corpus of the tree are only read; what is found new stays in the cache, until `--keep` brings the
//! smallest inputs that reach all that is reached into the tree. An input fails that panics, that takes [`LONGEST`] or
//! [`MEMORY_MIB`], or whose answer its target does not allow.

use crate::{paths, shell};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

const VERSION: &str = "0.13.2";
/// Each with its longest input.
const TARGETS: [(&str, u32); 6] =
    [("dhcp4", 4096), ("dhcp6", 4096), ("dns", 1024), ("frames", 1600), ("http", 2048), ("tftp", 1024)];
/// Seconds that one input may take.
const LONGEST: u32 = 5;
/// Memory of one target.
const MEMORY_MIB: u32 = 1024;
/// One allocation.
const AT_ONCE_MIB: u32 = 64;
/// What `--keep` leaves of one target in the tree, at most.
const KEPT_BYTES: u64 = 48 << 10;
/// And in so many files, of all sizes.
const KEPT_FILES: usize = 96;

#[derive(Args, Clone, Debug)]
pub struct FuzzArgs {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// Afterwards, the smallest inputs that reach all that was reached become the corpus in the tree
    #[arg(long)]
    keep: bool,
}

pub fn run(args: &FuzzArgs) -> Result<ExitCode> {
    let wanted: Vec<(&str, u32)> = TARGETS
        .into_iter()
        .filter(|(name, _)| args.target.as_deref().is_none_or(|target| target == *name))
        .collect();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    ensure!(!wanted.is_empty(), "there is no such target: use one of {}", names.join(", "));
    let programs = build()?;
    fuzz(&programs, &wanted, args.seconds)?;
    if args.keep {
        wanted.iter().try_for_each(|(name, longest)| keep(&programs, name, *longest))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every target, for so many seconds each.
pub fn all(seconds: u32) -> Result<()> {
    fuzz(&build()?, &TARGETS, seconds)
}

/// Where things lie that this makes.
fn cache() -> PathBuf {
    paths::cache().join("fuzz")
}

fn tree() -> PathBuf {
    paths::root().join("pxe/fuzz")
}

/// cargo-fuzz of our version; the directory of its program.
fn install() -> Result<PathBuf> {
    let root = cache().join(format!("cargo-fuzz-{VERSION}"));
    let programs = root.join("bin");
    if programs.join("cargo-fuzz").exists() {
        return Ok(programs);
    }
    println!("installing cargo-fuzz {VERSION} into {}", root.display());
    fs::create_dir_all(&root)?;
    let built = cache().join("install");
    let mut cargo = shell::cargo(&["install", "--quiet", "--locked", "--no-track", "cargo-fuzz"]);
    // Beside the checkout, so that its configuration is not taken for this program's.
    cargo
        .args(["--version", VERSION, "--root"])
        .arg(&root)
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", &built);
    shell::run(&mut cargo)?;
    let _ = fs::remove_dir_all(&built);
    Ok(programs)
}

/// Builds the targets; the directory of their programs.
fn build() -> Result<PathBuf> {
    let mut path = install()?.into_os_string();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let target = cache().join("target");
    let mut cargo = shell::cargo(&["fuzz", "build", "--dev", "--target-dir"]);
    cargo.arg(&target).current_dir(paths::root().join("pxe"));
    cargo
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    let said = shell::ask(&mut cargo)?;
    ensure!(said.code == Some(0), "the fuzz targets cannot be built: {}", last_lines(&said.stderr, 30));
    let programs = target.join("x86_64-unknown-linux-gnu/debug");
    for (name, _) in TARGETS {
        ensure!(programs.join(name).exists(), "cargo-fuzz has not built {}", programs.join(name).display());
    }
    Ok(programs)
}

/// As many targets at once as there are processors; every one ends, and then the first failure is told.
fn fuzz(programs: &Path, wanted: &[(&str, u32)], seconds: u32) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (left, failed) = (Mutex::new(wanted.to_vec()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let next = left.lock().ok().and_then(|mut left| left.pop());
            let Some((name, longest)) = next else { return };
            match one(programs, name, longest, seconds) {
                Ok(line) => println!("{line}"),
                Err(error) => failed.lock().map(|mut failed| failed.push(error)).unwrap_or_default(),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    ensure!(
        failed.is_empty(),
        "{}",
        failed.iter().map(|e| format!("{e:#}")).collect::<Vec<_>>().join("\n\n")
    );
    Ok(())
}

/// Runs one target; a line about it.
fn one(programs: &Path, name: &str, longest: u32, seconds: u32) -> Result<String> {
    let (found, bad) = (cache().join("corpus").join(name), cache().join("failed").join(name));
    for dir in [&found, &bad] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let program = programs.join(name);
    let mut command = Command::new(&program);
    command.arg(&found).args(kept(name)).args(limits(longest)).current_dir(&bad);
    command.args([
        format!("-max_total_time={seconds}"),
        "-seed=1".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    command.arg(format!("-artifact_prefix={}/", bad.display()));
    let said = shell::ask(&mut command)?;
    if said.code == Some(0) {
        return Ok(summary(name, seconds, &said.stderr));
    }
    let input = said.stderr.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, p)| p);
    let Some(input) = input else {
        bail!("fuzz target {name} failed, and left no input:\n{}", last_lines(&said.stderr, 40));
    };
    bail!(
        "fuzz target {name} fails with {input}:\n{}\n  again: {} {input}\n  once it is mended: cp {input} {}",
        last_lines(&said.stderr, 40),
        program.display(),
        tree().join("seeds").join(name).join("WHAT-IT-WAS").display()
    );
}

/// The tree's inputs for a target.
fn kept(name: &str) -> Vec<PathBuf> {
    let dirs = ["seeds", "corpus"].map(|kind| tree().join(kind).join(name));
    dirs.into_iter().filter(|dir| dir.exists()).collect()
}

fn limits(longest: u32) -> [String; 4] {
    [
        format!("-max_len={longest}"),
        format!("-timeout={LONGEST}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-malloc_limit_mb={AT_ONCE_MIB}"),
    ]
}

/// Of libFuzzer's words: runs, and the coverage that it came to.
fn summary(name: &str, seconds: u32, said: &str) -> String {
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let done = said.lines().rev().find(|line| line.contains(" cov: ")).unwrap_or_default();
    let number = |key: &str| {
        let after = done.split_once(key).map_or("", |(_, rest)| rest).trim_start();
        after.split_ascii_whitespace().next().unwrap_or("?").to_owned()
    };
    let runs = runs.map_or("?", str::trim);
    format!(
        "fuzz {name}: {runs} inputs in {seconds} s, {} places reached, by {}",
        number("cov:"),
        number("corp:")
    )
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The fewest inputs that reach what tree and cache together do, without the seeds, become the tree's corpus.
fn keep(programs: &Path, name: &str, longest: u32) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut command = Command::new(programs.join(name));
    command.args(["-merge=1"]).arg(scratch.path()).args(kept(name)).arg(cache().join("corpus").join(name));
    let said = shell::ask(command.args(limits(longest)).current_dir(scratch.path()))?;
    ensure!(said.code == Some(0), "{name} cannot be minimised: {}", last_lines(&said.stderr, 20));
    let read = |dir: &Path| -> Result<BTreeSet<Vec<u8>>> {
        fs::read_dir(dir)?.map(|entry| Ok(fs::read(entry?.path())?)).collect()
    };
    let seeds = read(&tree().join("seeds").join(name))?;
    let mut fewest: Vec<Vec<u8>> = read(scratch.path())?.difference(&seeds).cloned().collect();
    fewest.sort_by_key(Vec::len);
    let corpus = tree().join("corpus").join(name);
    let _ = fs::remove_dir_all(&corpus);
    fs::create_dir_all(&corpus)?;
    let (mut bytes, mut count) = (0, 0);
    let every = fewest.len().div_ceil(KEPT_FILES).max(1);
    for input in fewest.into_iter().step_by(every) {
        bytes += input.len() as u64;
        if bytes > KEPT_BYTES {
            break;
        }
        let sum = dayzero_model::Sha256::of(&input).to_string();
        fs::write(corpus.join(&sum[..16]), input)?;
        count += 1;
    }
    println!("{name}: {count} inputs in {}", corpus.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_built_and_has_seeds() {
        let manifest = fs::read_to_string(tree().join("Cargo.toml")).unwrap();
        let built: BTreeSet<&str> =
            manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
        for (name, _) in TARGETS {
            assert!(built.contains(name), "{name} in {}", tree().join("Cargo.toml").display());
            assert!(fs::read_dir(tree().join("seeds").join(name)).unwrap().count() > 3, "{name}");
        }
        assert_eq!(built.len(), TARGETS.len() + 1, "all of {built:?} are run");
    }

    #[test]
    fn what_libfuzzer_says_becomes_a_line() {
        let said = "#2 INITED cov: 100 ft: 120 corp: 7/900b\n#9\tDONE   cov: 1834 ft: 9001 corp: 512/48Kb lim: 4096\n\
            stat::number_of_executed_units: 123456\nstat::peak_rss_mb: 77\n";
        assert_eq!(
            summary("dhcp4", 20, said),
            "fuzz dhcp4: 123456 inputs in 20 s, 1834 places reached, by 512/48Kb"
        );
        assert_eq!(summary("dns", 1, ""), "fuzz dns: ? inputs in 1 s, ? places reached, by ?");
    }
}
