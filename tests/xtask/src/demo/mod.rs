//! `cargo xtask demo`: day zero, end to end, on a virtual rack.
//!
//! It raises the rack and the control plane as processes of their own, drives them through `dayzero` as a person
//! would, watches, does what an attacker or an accident would do, and judges what it saw. Everything that it starts is
//! written down first, so that the next run can clear what a killed one left.

pub mod appliance;
mod bmc;
mod browser;
mod checks;
pub(crate) mod client;
pub(crate) mod interrupt;
pub(crate) mod leftovers;
mod observed;
pub(crate) mod progress;
pub(crate) mod rack;
mod report;
mod scenario;
mod shown;

use crate::secrets::{self, Hunt};
use crate::{build, paths, preflight};
use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Exit code while some steps are not real yet.
const NOT_ALL_REAL: u8 = 3;
/// A rack is down within this time, and secrets were looked for.
const STOP: Duration = Duration::from_secs(300);

#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// Tear the rack down at the end and exit 0 only if every check held
    #[arg(long)]
    pub once: bool,
    /// The control plane is the appliance's image in a machine of its own
    #[arg(long, conflicts_with = "stop")]
    pub appliance: bool,
    /// Stop a rack that an earlier demo left running
    #[arg(long)]
    pub stop: bool,
    /// Write the whole run as JSON, after the tear-down
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Write the outputs, the tables and the picture that the README shows anew from this run
    #[arg(long, requires = "once")]
    pub readme: bool,
    /// A README that shows what this run did not give is a failure
    #[arg(skip)]
    pub compare: bool,
}

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    if args.stop {
        return stop(args);
    }
    let interrupts = interrupt::Interrupts::watch()?;
    preflight::run()?;
    let cleared = leftovers::clear()?;
    if !cleared.is_empty() {
        println!("cleared what an earlier run left: {}", cleared.join(", "));
    }
    leftovers::claim()?;
    let before = leftovers::Snapshot::take()?;
    if let Some(file) = &args.report {
        forget_report(file)?;
    }
    let began = Instant::now();
    let mut build_s = 0.0;
    let raised = raise(args, &mut build_s);
    let Raised { images, appliance, mut hunt, mut rack } = match raised {
        Ok(raised) => raised,
        Err(error) => {
            let cleared = leftovers::clear();
            let seconds = began.elapsed().as_secs_f64() - build_s;
            let code = not_raised(&error, (build_s, seconds), &before, args.report.as_deref())?;
            return cleared.map(|_| code);
        }
    };
    let mut run = scenario::play(&mut rack, &images, args.once);
    run.build_s = build_s;
    if let Some(broken) = run.broken.clone() {
        eprintln!("xtask: {broken}");
        let rss = rack.tear_down()?;
        run.finish(rss, &before)?;
        return judge(&mut run, args.report.as_deref(), None);
    }
    if !args.once {
        run.rss_mib = rack.note_rss();
        run.save(&before, args.report.as_deref())?;
        report::print(&run);
        rack.things_to_try();
        interrupts.wait()?;
        println!("taking the rack down");
    }
    let stopped = !args.once && report::is_stopping();
    let mut known = std::mem::take(&mut run.observed.secrets);
    let mut kinds = [secrets::ALWAYS, secrets::CONSOLE].concat();
    if !args.once && args.appliance {
        // It was printed, for a person to log in.
        known.retain(|secret| secret.kind != secrets::Kind::ConsolePassword);
        kinds.retain(|kind| *kind != secrets::Kind::ConsolePassword);
    }
    hunt.before_tear_down(&mut rack, &images, appliance.as_ref(), known, &kinds);
    let rss = rack.tear_down()?;
    run.finish(rss, &before)?;
    let code = judge(&mut run, args.report.as_deref(), Some(hunt))?;
    if stopped {
        run.hand_on(&paths::demo())?;
    }
    Ok(if !args.once || readme(&run, args)? { code } else { ExitCode::FAILURE })
}

/// A demo whose rack stands.
struct Raised {
    images: build::Images,
    appliance: Option<dayzero_images::Appliance>,
    hunt: Hunt,
    rack: rack::Rack,
}

/// `build_s`: seconds of builds and images, also if what follows fails.
fn raise(args: &DemoArgs, build_s: &mut f64) -> Result<Raised> {
    let began = Instant::now();
    let images = build::images();
    let appliance = if args.appliance && images.is_ok() { Some(build::appliance()) } else { None };
    *build_s = began.elapsed().as_secs_f64();
    let (images, appliance) = (images?, appliance.transpose()?);
    let hunt = Hunt::begin()?;
    let rack = rack::Rack::raise_with(&images, appliance.as_ref())?;
    Ok(Raised { images, appliance, hunt, rack })
}

/// A run that did not get as far as a rack is a run too, with its report.
fn not_raised(
    error: &anyhow::Error,
    (build_s, seconds): (f64, f64),
    before: &leftovers::Snapshot,
    report: Option<&Path>,
) -> Result<ExitCode> {
    let reason = format!("{error:#}");
    eprintln!("xtask: the rack could not be raised: {reason}");
    let mut run = report::Run::not_raised(seconds, &reason);
    run.build_s = build_s;
    run.finish(0, before)?;
    judge(&mut run, report, None)
}

/// A report that is there is another run's.
fn forget_report(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
            .with_context(|| format!("--report {}: give a file that can be written", file.display())),
        _ => Ok(()),
    }
}

/// Prints the summary, then looks for secrets in it and in the report too. The names of the checks are fixed: a secret that
/// lies where it does not belong is none of them, has a line of its own, and makes the run not ok.
fn judge(run: &mut report::Run, file: Option<&Path>, hunt: Option<Hunt>) -> Result<ExitCode> {
    let real = report::print(run);
    match hunt {
        Some(mut hunt) => {
            hunt.after(&serde_json::to_vec_pretty(&run.json())?);
            run.leaks = !hunt.ok();
            println!("secrets: {}", hunt.summary());
        }
        None => println!("secrets: not looked for, since the run ended early or was stopped from elsewhere"),
    }
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_vec_pretty(&run.json())?)?;
    }
    Ok(match (run.ok(), real) {
        (true, _) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(NOT_ALL_REAL),
        (false, true) => ExitCode::FAILURE,
    })
}

/// Writes the README's blocks from a run that held, or compares them; false if they differ and must not.
fn readme(run: &report::Run, args: &DemoArgs) -> Result<bool> {
    let shown = &run.observed.shown;
    if args.readme && run.ok() {
        shown.write()?;
    }
    let unlike = if run.ok() { shown.differences()? } else { Vec::new() };
    for line in &unlike {
        println!("not in this run: {line}");
    }
    if !unlike.is_empty() {
        println!("`cargo xtask demo --once --readme` writes what the README shows anew");
    }
    Ok(unlike.is_empty() || !args.compare)
}

fn stop(args: &DemoArgs) -> Result<ExitCode> {
    let saved = report::Run::load()?;
    let owner = leftovers::other_owner()?;
    if let Some(owner) = owner {
        report::stopping()?;
        // It takes its own rack down, and writes its own report if it was asked for one.
        ensure!(
            owner.end(Signal::SIGTERM, STOP),
            "the demo ({owner}) does not end within {} s",
            STOP.as_secs()
        );
    }
    let judged = owner.as_ref().and_then(|_| report::judged(&paths::demo()));
    let cleared = leftovers::clear()?;
    match (&owner, cleared.is_empty()) {
        (None, true) => println!("nothing was running"),
        (Some(_), true) => println!("stopped"),
        (_, false) => println!("stopped: {}", cleared.join(", ")),
    }
    if let Some(judged) = judged {
        // What it says of secrets and of the peak of memory, it alone has seen.
        if let Some(file) = &args.report {
            std::fs::write(file, serde_json::to_vec_pretty(&judged)?)
                .with_context(|| format!("--report {}", file.display()))?;
        }
        return Ok(if judged["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let Some((mut run, before, report)) = saved else { return Ok(ExitCode::SUCCESS) };
    if let Some(owner) = owner {
        run.broken = Some(format!("the demo ({owner}) ended without handing on its report"));
    }
    run.finish(run.rss_mib, &before)?;
    judge(&mut run, args.report.as_deref().or(report.as_deref()), None)
}

#[cfg(test)]
#[path = "ends_tests.rs"]
mod ends_tests;
