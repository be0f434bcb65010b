//! `dayzero-agent`: as PID 1 it is the discovery image, or the appliance's init; as `dayzero-agent service` it runs on an installed host.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // reqwest asks the process for one TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if std::process::id() == 1 {
        return dayzero_agent::init::run();
    }
    match std::env::args().nth(1).as_deref() {
        Some("service") => match dayzero_agent::service::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "dayzero-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
        Some("--version") => {
            let _ = writeln!(std::io::stdout(), "dayzero-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            let _ = writeln!(
                std::io::stderr(),
                "usage: dayzero-agent service | --version\n(as PID 1 of the discovery image or of the appliance it needs no argument)"
            );
            ExitCode::from(2)
        }
    }
}
