//! Finding and running the labs: one process each, timed, and judged by what it leaves behind too.

use crate::demo::leftovers::Snapshot;
use crate::workspace::{BUILT_VARIABLE, TestProgram};
use crate::{paths, shell};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A lab that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// What a lab made may need a moment to vanish after its process.
const SETTLE: Duration = Duration::from_secs(5);

/// One ignored test of one test binary.
pub struct Lab {
    /// `package binary: path::of::the_test`.
    pub name: String,
    test: String,
    binary: PathBuf,
    package: PathBuf,
}

/// The ignored tests of these programs.
pub fn find(programs: &[TestProgram]) -> Result<Vec<Lab>> {
    let mut labs = Vec::new();
    for program in programs {
        let room =
            program.package.strip_prefix(paths::root()).unwrap_or(&program.package).display().to_string();
        let mut list = Command::new(&program.path);
        let listed = shell::read(list.args(["--list", "--ignored", "--format", "terse"]))?;
        for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
            labs.push(Lab {
                name: format!("{room} {}: {test}", program.name),
                test: test.to_owned(),
                binary: program.path.clone(),
                package: program.package.clone(),
            });
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

impl Lab {
    /// Runs it in a process group of its own and prints one line. True if it passed and left nothing.
    pub fn hold(&self, environment: &[(&'static str, OsString)]) -> Result<bool> {
        let before = Snapshot::take()?;
        let log = self.log()?;
        let out = File::create(&log)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["--ignored", "--exact", &self.test, "--nocapture", "--test-threads=1"])
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package)
            .env(BUILT_VARIABLE, "")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting {}", self.binary.display()))?;
        let ended = wait(&mut child)?;
        let seconds = began.elapsed().as_secs_f64();
        let left = left_since(&before)?;
        let fault = match ended {
            None => Some(format!("did not end within {} s", PATIENCE.as_secs())),
            Some(status) if !status.success() => Some(status.to_string()),
            Some(_) if !left.is_empty() => Some(format!("left behind: {}", left.join("; "))),
            Some(_) => None,
        };
        match &fault {
            None => println!("held     {seconds:>6.1} s  {}", self.name),
            Some(fault) => {
                println!("NOT HELD {seconds:>6.1} s  {}: {fault}; the end of {}:", self.name, log.display());
                println!("{}", tail(&log));
            }
        }
        Ok(fault.is_none())
    }

    fn log(&self) -> Result<PathBuf> {
        let dir = paths::cache().join("labs/logs");
        fs::create_dir_all(&dir)?;
        let name: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
        Ok(dir.join(format!("{name}.log")))
    }
}

/// Waits for the end; after the patience the whole process group is killed. None = that.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > until {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
            nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn left_since(before: &Snapshot) -> Result<Vec<String>> {
    let until = Instant::now() + SETTLE;
    loop {
        let left = Snapshot::take()?.added_since(before);
        if left.is_empty() || Instant::now() > until {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
