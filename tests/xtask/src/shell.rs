//! Running programs: fixed arguments, no shell, failure with the program's own words.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// What a program said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Exit code; none = killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs to the end and collects both outputs.
pub fn ask(command: &mut Command) -> Result<Said> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {shown}"))?;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs to the end; output goes to the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs to the end and returns standard output; an exit code other than 0 is an error with standard error in it.
pub fn read(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let said = ask(command)?;
    if said.code != Some(0) {
        bail!("{shown}: exit code {:?}: {}", said.code, said.stderr.trim());
    }
    Ok(said.stdout)
}
