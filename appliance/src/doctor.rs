//! `dayzero doctor`: what would hinder network boot on this machine and its networks. Exit code 1 on a fault.

use crate::client::Client;
use crate::config::{self, Files};
use crate::failure::Failure;
use crate::output::Output;
use crate::{plan, text};
use dayzero_api::Health;
use dayzero_control::{Standing, standings};
use dayzero_model::site::{Network, Site};
use dayzero_pxe::doctor::{Examination, Finding, Severity, examine};
use dayzero_pxe::{BootFiles, PxeConfig, ServedInterface, ServedNetwork};
use serde::Serialize;
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

/// Looks, and says what it found.
pub(crate) async fn run(
    client: &Client,
    out: Output,
    file: &Path,
    config: Option<&Path>,
    listen_only: Option<u16>,
) -> Result<(), Failure> {
    let site = plan::load(out, file)?;
    let config = config.map(config::load).transpose()?;
    let data = config.as_ref().map(|config| (existing(&config.data_dir), SPACE));
    let files = config.map(|config| config.files).unwrap_or_default();
    // Ports are ours while the appliance runs.
    let serves = client.get::<Health>("/v1/health").await.is_ok();
    let (interfaces, mut shown) = interfaces(&site);
    let space = data.into_iter().collect();
    let mut how = Examination { ports: !serves, space, ..Examination::default() };
    if let Some(seconds) = listen_only {
        how.listen = std::time::Duration::from_secs(seconds.into());
        how.ask = false;
    }
    shown.extend(examine(&pxe(interfaces, &files), &how).await.into_iter().map(Shown::from));
    shown.sort_by_key(|finding| {
        ["fault", "warning", "good"].iter().position(|word| *word == finding.severity)
    });
    let faults = shown.iter().any(|finding| finding.severity == "fault");
    out.show(&shown, |shown| text::doctor::findings(shown))?;
    if faults { Err(Failure::Quiet(1)) } else { Ok(()) }
}

/// Bytes that must be free where the store and its log lie.
const SPACE: u64 = 2 << 30;

/// The directory itself, or the nearest one above that is there: it is made at the first start.
fn existing(data: &Path) -> PathBuf {
    let there = data.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

fn pxe(interfaces: Vec<ServedInterface>, files: &Files) -> PxeConfig {
    let mut config = PxeConfig { interfaces, ..PxeConfig::default() };
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
