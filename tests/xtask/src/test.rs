//! `cargo xtask test`: what must pass at each commit; with `--all` the long labs too.

use crate::demo::{self, DemoArgs};
use crate::{build, image, paths, preflight, shell};
use anyhow::Result;
use std::process::{Command, ExitCode};

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).args(args);
    command
}

/// Formatting, lints, unit and integration tests, a start of the appliance's image, then the demo once.
pub fn run(all: bool) -> Result<ExitCode> {
    preflight::run()?;
    shell::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    shell::run(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    build::binaries()?;
    shell::run(&mut cargo(&["test", "--workspace", "--quiet"]))?;
    if all {
        // The labs that need root, QEMU or foreign peers, one after the other.
        shell::run(&mut cargo(&["test", "--workspace", "--quiet", "--", "--ignored", "--test-threads=1"]))?;
    }
    image::start::check(&build::appliance()?)?;
    demo::run(&DemoArgs { once: true, compare: true, ..DemoArgs::default() })
}
