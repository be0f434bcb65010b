//! `cargo xtask test`: what must pass at each commit; with `--all` the long labs too.
//!
//! What runs when: fuzzing in each run, for each target of `pxe/fuzz` and from the kept corpus, [`FUZZ`] seconds, with `--all`
//! [`FUZZ_LONG`]. The labs, which are the ignored tests (real clients, firmware and peers in namespaces; half an hour or more),
//! and the faults in the virtual rack run with `--all` alone; one by one with `--lab TEXT`, and `cargo xtask faults`. A
//! change to what a lab is about is not done before that lab has run.

use crate::demo::{self, DemoArgs};
use crate::faults::{self, FaultsArgs};
use crate::fuzz;
use crate::phases::Phases;
use crate::workspace::{self, TestProgram};
use crate::{build, image, labs, packages, preflight, shell};
use anyhow::{Result, ensure};
use clap::Args;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct TestArgs {
    /// The long labs too: every ignored test, with all that it needs
    #[arg(long)]
    all: bool,
    /// Only the labs whose name contains this
    #[arg(long, value_name = "TEXT", conflicts_with = "all")]
    lab: Option<String>,
}

/// Seconds of fuzzing for each target, and in the long run.
const FUZZ: u32 = 20;
const FUZZ_LONG: u32 = 120;

/// Formatting, lints, unit and integration tests, a little fuzzing, the labs if asked for, a start of the appliance's
/// image, then the demo once. Prints where the time went.
pub fn run(args: &TestArgs) -> Result<ExitCode> {
    let mut phases = Phases::default();
    let done = match &args.lab {
        Some(filter) => {
            let built = phases.run("build tests and programs", workspace::build);
            built.and_then(|programs| run_labs(&mut phases, &programs, filter)).map(|()| ExitCode::SUCCESS)
        }
        None => everything(&mut phases, args.all),
    };
    println!("\n{}", phases.table());
    done
}

fn everything(phases: &mut Phases, all: bool) -> Result<ExitCode> {
    phases.run("packages", preflight::run)?;
    phases.run("format", || shell::run(&mut shell::cargo(&["fmt", "--all", "--check"])))?;
    let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    phases.run("lints", || shell::run(&mut shell::cargo(&lints)))?;
    let programs = phases.run("build tests and programs", workspace::build)?;
    phases.run("tests", || shell::run(&mut shell::cargo(&["test", "--workspace", "--quiet"])))?;
    phases.run("fuzzing", || fuzz::all(if all { FUZZ_LONG } else { FUZZ }))?;
    if all {
        run_labs(phases, &programs, "")?;
        let played = phases.run("faults", || faults::run(&FaultsArgs::default()))?;
        ensure!(played == ExitCode::SUCCESS, "a fault was not as it should be");
    }
    phases.run("images", build::images)?;
    let appliance = phases.run("appliance image", build::appliance)?;
    phases.run("appliance starts", || image::start::check(&appliance))?;
    phases.run("demo", || demo::run(&DemoArgs { once: true, compare: true, ..DemoArgs::default() }))
}

fn run_labs(phases: &mut Phases, programs: &[TestProgram], filter: &str) -> Result<()> {
    phases.run("packages of the labs", packages::ensure_for_labs)?;
    let images = phases.run("images for the labs", build::images_for_labs)?;
    phases.run("labs", || labs::run(&images, programs, filter))
}
