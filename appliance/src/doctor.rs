//! `dayzero doctor`: what would hinder network boot on the appliance and its networks. Exit code 1 on a fault.
//!
//! Where an appliance answers, it examines itself: only it knows which ports are its own. Else this machine is looked at, as
//! the one on which `dayzero serve` is to be started.

use crate::client::Client;
use crate::config;
use crate::failure::Failure;
use crate::output::Output;
use crate::{plan, text};
use dayzero_api::Health;
use dayzero_control::DoctorRequest;
use dayzero_control::doctor::{Patient, patience};
use dayzero_control::view::{DoctorFinding, Severity};
use std::path::Path;

/// What it goes by beside the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// Configuration of a serve that does not run yet; none: serve's defaults.
    pub(crate) config: Option<&'a Path>,
    /// Seconds to listen; nothing is sent.
    pub(crate) listen_only: Option<u16>,
}

/// Looks, and says what it found.
pub(crate) async fn run(client: &Client, out: Output, file: &Path, how: How<'_>) -> Result<(), Failure> {
    let site = plan::load(out, file)?;
    let config = how.config.map(config::load).transpose()?;
    let answers = client.get::<Health>("/v1/health").await;
    if config.is_some() && answers.is_ok() {
        out.note(
            "the appliance runs, and examines itself by its own configuration: --config is not looked at",
        );
    }
    let waits = || {
        out.note(&format!("listening for the switches, {} s at most", patience(how.listen_only).as_secs()))
    };
    let findings: Vec<DoctorFinding> = match (answers, client.elsewhere()) {
        (Ok(_), _) => {
            waits();
            client.post("/v1/doctor", &DoctorRequest { site, listen_only: how.listen_only }).await?
        }
        (Err(unreachable), Some(_)) => return Err(unreachable),
        (Err(_), None) => {
            waits();
            let config = config.unwrap_or_default();
            let (control, operators) = (config.control(), config.operators.listen);
            Patient::asleep(&control, operators, &site).examine(&site, how.listen_only).await
        }
    };
    out.show(&findings, |findings| text::doctor::findings(findings))?;
    let faults = findings.iter().any(|finding| finding.severity == Severity::Fault);
    if faults { Err(Failure::Quiet(1)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeConfig;
    use crate::output::Format;

    /// README's command has no `--config`, and nothing runs yet: serve's defaults are looked at, and its listeners tried.
    #[test]
    fn a_machine_without_an_appliance_is_looked_at_as_serve_would_be_without_a_configuration() {
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples/lab.yaml");
        let mut site = dayzero_plan::load(&plan).expect("the lab's plan").0;
        for network in &mut site.networks {
            network.appliance = network.appliance.map(|_| std::net::Ipv4Addr::LOCALHOST);
        }
        let config = ServeConfig::default();
        let control = config.control();
        assert_eq!(control.data, Path::new("/var/lib/dayzero"), "what serve writes to");
        let patient = Patient::asleep(&control, config.operators.listen, &site);
        let tried: Vec<String> = patient.listeners.iter().map(|(name, at)| format!("{name} {at}")).collect();
        assert_eq!(
            tried,
            [
                "API and console 127.0.0.1:8443",
                "agents' listener 127.0.0.1:7443",
                "enrolment listener 127.0.0.1:8444",
                "virtual media listener 127.0.0.1:8082",
            ]
        );
        assert!(patient.boot_ports);
    }

    /// Whoever is logged in elsewhere must not take this machine's findings for that one's.
    #[tokio::test]
    async fn an_appliance_elsewhere_that_does_not_answer_is_not_mixed_up_with_this_machine() {
        let server = "https://127.0.0.1:1".parse().expect("an address");
        let client = Client::at(server, dayzero_model::ids::Sha256([1; 32]), None);
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples/lab.yaml");
        let out = Output { format: Format::Text };
        let failed =
            run(&client, out, &plan, How { config: None, listen_only: None }).await.expect_err("failed");
        assert_eq!(failed.code(), 1);
        let said = failed.message().unwrap_or_default();
        assert!(said.contains("no appliance answers at") && said.contains("127.0.0.1:1"), "{said}");
    }
}
