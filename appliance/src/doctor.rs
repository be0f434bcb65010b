//! `dayzero doctor`: what would hinder network boot on this machine and its networks. Exit code 1 on a fault.
//!
//! Invariant: it says nothing where commands go to an appliance elsewhere: what it sees here would be taken for that one's.

use crate::client::Client;
use crate::config::{self, Files, ServeConfig};
use crate::failure::Failure;
use crate::output::Output;
use crate::remote::Server;
use crate::{plan, text};
use dayzero_api::Health;
use dayzero_control::{Listener, Ports, Standing, relayed, standings};
use dayzero_model::site::{Network, Site};
use dayzero_pxe::doctor::{Examination, Finding, Severity, examine};
use dayzero_pxe::{BootFiles, PxeConfig, ServedInterface, ServedNetwork};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A finding, for `-o json`.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// What was looked at.
    pub check: &'static str,
    /// `good`, `warning` or `fault`.
    pub severity: &'static str,
    /// Interface, where it is about one.
    pub interface: Option<String>,
    /// What was seen.
    pub found: String,
    /// What a person can do.
    pub action: String,
}

impl From<Finding> for Shown {
    fn from(finding: Finding) -> Self {
        let severity = match finding.severity {
            Severity::Good => "good",
            Severity::Warning => "warning",
            Severity::Fault => "fault",
        };
        let Finding { check, interface, found, action, .. } = finding;
        Self { check, severity, interface, found, action }
    }
}

/// What it goes by beside the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// Configuration of serve; none: serve's defaults.
    pub(crate) config: Option<&'a Path>,
    /// Seconds to listen; nothing is sent.
    pub(crate) listen_only: Option<u16>,
    /// Where `dayzero serve` of this machine has its socket.
    pub(crate) socket: &'a Path,
}

/// Looks, and says what it found.
pub(crate) async fn run(client: &Client, out: Output, file: &Path, how: How<'_>) -> Result<(), Failure> {
    if let Some(server) = client.elsewhere() {
        return Err(elsewhere(server, how.socket));
    }
    let site = plan::load(out, file)?;
    let config = how.config.map(config::load).transpose()?.unwrap_or_default();
    // Ports are ours while the appliance runs.
    let serves = client.get::<Health>("/v1/health").await.is_ok();
    let (interfaces, mut shown) = interfaces(&site);
    let examination = examination(&config, &site, serves, how.listen_only);
    out.note(&format!("listening for the switches, {} s at most", examination.lldp.as_secs()));
    let pxe = pxe(&site, interfaces, &config.files, config.control().ports);
    shown.extend(examine(&pxe, &examination).await.into_iter().map(Shown::from));
    shown.sort_by_key(|finding| {
        ["fault", "warning", "good"].iter().position(|word| *word == finding.severity)
    });
    let faults = shown.iter().any(|finding| finding.severity == "fault");
    out.show(&shown, |shown| text::doctor::findings(shown))?;
    if faults { Err(Failure::Quiet(1)) } else { Ok(()) }
}

/// It would look at another machine than the one that the other commands speak of.
fn elsewhere(server: &Server, socket: &Path) -> Failure {
    let socket = socket.display();
    Failure::user(format!(
        "doctor examines the machine that it runs on, and commands go to {server}: it cannot examine that one. What keeps \
         the services there from running, `dayzero status` says under 'What a person must do now'. To examine this machine: \
         `dayzero doctor --socket {socket} --plan FILE`"
    ))
}

/// What is looked at, and how.
fn examination(config: &ServeConfig, site: &Site, serves: bool, listen_only: Option<u16>) -> Examination {
    let listeners = listeners(config.operators.listen, config.control().ports, &standings(site).0);
    let mut how = Examination {
        ports: !serves,
        listeners,
        written: vec![config.data_dir.clone()],
        space: vec![(existing(&config.data_dir), SPACE)],
        ..Examination::default()
    };
    if let Some(seconds) = listen_only {
        how.listen = std::time::Duration::from_secs(seconds.into());
        how.ask = false;
        how.lldp = how.lldp.max(how.listen);
    }
    how
}

/// Bytes that must be free where the store and its log lie.
const SPACE: u64 = 2 << 30;

/// The directory itself, or the nearest one above that is there: it is made at the first start.
fn existing(data: &Path) -> PathBuf {
    let there = data.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// What the control plane listens on beside network boot: for operators, and at our address on each network.
fn listeners(operators: SocketAddr, ports: Ports, standings: &[Standing]) -> Vec<(String, SocketAddr)> {
    let mut all = vec![("API and console".to_owned(), operators)];
    for Standing { network, address, .. } in standings {
        let of = |(listener, port): (Listener, u16)| {
            (listener.name().to_owned(), SocketAddr::new(IpAddr::V4(*address), port))
        };
        all.extend(ports.listeners(network.role).into_iter().map(of));
    }
    all
}

fn pxe(site: &Site, interfaces: Vec<ServedInterface>, files: &Files, ports: Ports) -> PxeConfig {
    let relayed = relayed(site).map(|network| ServedNetwork::planned(network, &site.domain)).collect();
    let mut config = PxeConfig { interfaces, relayed, ..PxeConfig::default() };
    (config.ports.http, config.ports.https) = (ports.http, ports.https);
    let boot = [("vmlinuz", &files.kernel), ("initrd.img", &files.initrd)];
    config.boot = BootFiles {
        files: boot.map(|(name, path)| (name.to_owned(), path.clone())).into(),
        kernel: "vmlinuz".to_owned(),
        initrd: "initrd.img".to_owned(),
        images: Some(files.host_image.clone()),
    };
    for name in config.loaders.ipxe() {
        if let Ok(bytes) = std::fs::read(files.ipxe.join(name)) {
            config.tftp.insert(name.to_owned(), bytes.into());
        }
    }
    config
}

/// The plan's networks on this machine's interfaces, by the appliance's address; and those that are nowhere.
fn interfaces(site: &Site) -> (Vec<ServedInterface>, Vec<Shown>) {
    let (found, missing) = standings(site);
    let served = |Standing { network, device, address }| ServedInterface {
        device,
        address,
        network: ServedNetwork::planned(&network, &site.domain),
    };
    let nowhere = |network: &Network| {
        let address = network.appliance?;
        Some(Shown {
            check: "address",
            severity: "fault",
            interface: None,
            found: format!("no interface has {address}, the appliance's address on network {}", network.name),
            action: format!("set {address}/{} on the interface that is on it", network.cidr.prefix_len()),
        })
    };
    (found.into_iter().map(served).collect(), missing.into_iter().filter_map(nowhere).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Operators;

    fn lab() -> Site {
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples/lab.yaml");
        dayzero_plan::load(&plan).expect("the lab's plan").0
    }

    /// README's command has no `--config`, and promises both.
    #[tokio::test]
    async fn disk_and_clock_are_looked_at_without_a_configuration() {
        let examination = examination(&ServeConfig::default(), &lab(), true, Some(1));
        assert_eq!(examination.written, [Path::new("/var/lib/dayzero")], "what serve writes to");
        let [(dir, SPACE)] = examination.space.as_slice() else { panic!("{:?}", examination.space) };
        assert!(dir.is_dir() && Path::new("/var/lib/dayzero").starts_with(dir), "{dir:?}");
        assert!(!examination.ports && !examination.ask);
        let quiet =
            Examination { listen: std::time::Duration::ZERO, lldp: std::time::Duration::ZERO, ..examination };
        let findings = examine(&PxeConfig::default(), &quiet).await;
        for check in ["disk", "clock"] {
            assert!(findings.iter().any(|finding| finding.check == check), "no {check}: {findings:?}");
        }
    }

    /// Whoever is logged in elsewhere must not take this machine's findings for that one's.
    #[tokio::test]
    async fn an_appliance_elsewhere_is_not_mixed_up_with_this_machine() {
        let server: Server = "https://10.77.0.2".parse().expect("an address");
        let client = Client::at(server, dayzero_model::ids::Sha256([1; 32]), None);
        let how = How { config: None, listen_only: None, socket: Path::new(crate::cli::SOCKET) };
        let out = Output { format: crate::output::Format::Text };
        let refused = run(&client, out, Path::new("/nonexistent.yaml"), how).await.expect_err("refused");
        assert_eq!(refused.code(), 2);
        let said = refused.message().unwrap_or_default();
        for part in [
            "https://10.77.0.2:8443",
            "`dayzero status`",
            "--socket /var/lib/dayzero/dayzero.sock --plan FILE",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    /// The sockets of `tests/listeners.rs` that are not network boot's.
    #[test]
    fn each_listener_of_the_control_plane_is_tried() {
        let site = lab();
        let stands = |network: &Network| {
            let (device, address) = (network.name.to_string(), network.appliance?);
            Some(Standing { network: network.clone(), device, address })
        };
        let standings: Vec<Standing> = site.networks.iter().filter_map(stands).collect();
        let all = listeners(Operators::default().listen, Ports::default(), &standings);
        let all: Vec<(&str, String)> = all.iter().map(|(name, at)| (name.as_str(), at.to_string())).collect();
        let at = |name, address: &str| (name, address.to_owned());
        assert_eq!(
            all,
            [
                at("API and console", "127.0.0.1:8443"),
                at("agents' listener", "10.77.0.2:7443"),
                at("enrolment listener", "10.77.0.2:8444"),
                at("virtual media listener", "10.77.9.2:8082"),
            ]
        );
    }
}
