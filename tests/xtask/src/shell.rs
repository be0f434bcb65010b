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

/// Cargo in the checkout, with the same variables however this program was started: `cargo run` tells it of its own package
/// in some that build scripts watch, and one such script (ring's) has nearly everything built anew when they come or go.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::paths::root()).args(args);
    for (name, _) in std::env::vars_os() {
        let of_package =
            name.to_str().is_some_and(|name| OF_PACKAGE.iter().any(|start| name.starts_with(start)));
        if of_package {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// What the names of variables about a package begin with.
const OF_PACKAGE: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

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

/// Runs to the end with this on standard input, and collects both outputs: what is secret stands in no argument list.
pub fn tell(command: &mut Command, input: &str) -> Result<Said> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without having read all of it, and says why then.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {shown}"))?;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// SHA-256 fingerprint of the certificate that a TLS server shows, as the appliance's screen has it.
pub fn fingerprint(address: &str) -> Result<String> {
    let said = ask(Command::new("openssl").args(["s_client", "-connect", address, "-showcerts"]))?;
    let begin = said.stdout.find("-----BEGIN CERTIFICATE-----").context("no certificate")?;
    let end = said.stdout[begin..].find("-----END CERTIFICATE-----").context("no certificate")? + begin + 25;
    let mut x509 = Command::new("openssl");
    let said = tell(x509.args(["x509", "-noout", "-fingerprint", "-sha256"]), &said.stdout[begin..end])?;
    Ok(said.stdout.rsplit('=').next().unwrap_or_default().trim().replace(':', "").to_ascii_lowercase())
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
