//! What would hinder network boot where this machine stands on a plan's networks: `dayzero_pxe::doctor`, told what the plan
//! has the appliance do here.
//!
//! Invariants: it changes nothing and keeps nothing; only ports that are not our own are tried.

use crate::boot::{INITRD, KERNEL};
use crate::config::{ControlConfig, Ports};
use crate::control::Control;
use crate::serve::{NETWORK_BOOT, listener_at};
use crate::service::{DoctorRequest, ServiceError};
use crate::standing::{Standing, relayed, standings};
use crate::view::DoctorFinding;
use dayzero_model::site::{Network, Site};
use dayzero_pxe::doctor::{Examination, Finding, Severity, examine};
use dayzero_pxe::{BootFiles, PxeConfig, ServedInterface, ServedNetwork};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes that must be free where the store and its log lie.
const SPACE: u64 = 2 << 30;
/// Longest time to listen, seconds.
const LONGEST: u16 = 3600;

/// What is examined beside the plan's networks.
pub struct Patient<'a> {
    /// What the control plane goes by here.
    pub config: &'a ControlConfig,
    /// Whether network boot's ports are tried: not while they are our own.
    pub boot_ports: bool,
    /// TCP listeners to try, with what each is.
    pub listeners: Vec<(String, SocketAddr)>,
}

impl<'a> Patient<'a> {
    /// A machine on which the control plane does not run yet, with the operators' listener that it would have.
    pub fn asleep(config: &'a ControlConfig, operators: SocketAddr, site: &Site) -> Self {
        let mut all = vec![("API and console".to_owned(), operators)];
        all.extend(listeners(config.ports, &standings(site).0));
        Self { config, boot_ports: true, listeners: all }
    }

    /// Examines; the worst comes first. `listen_only`: nothing is sent, and so many seconds are listened.
    pub async fn examine(self, site: &Site, listen_only: Option<u16>) -> Vec<DoctorFinding> {
        let (interfaces, mut findings) = interfaces(site);
        let pxe = pxe(site, interfaces, self.config);
        findings
            .extend(examine(&pxe, &self.examination(listen_only)).await.into_iter().map(DoctorFinding::from));
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    fn examination(self, listen_only: Option<u16>) -> Examination {
        let data = &self.config.data;
        let mut how = Examination {
            ports: self.boot_ports,
            listeners: self.listeners,
            written: vec![data.clone()],
            space: vec![(existing(data), SPACE)],
            ..Examination::default()
        };
        if let Some(seconds) = listen_only {
            how.listen = Duration::from_secs(seconds.into());
            how.ask = false;
        }
        how.lldp = patience(listen_only);
        how
    }
}

/// How long an examination lasts at most, but for moments.
pub fn patience(listen_only: Option<u16>) -> Duration {
    Examination::default().lldp.max(Duration::from_secs(listen_only.unwrap_or(0).into()))
}

impl Control {
    /// Examines the machine that this process runs on; one examination at a time.
    pub(crate) async fn examined(&self, request: DoctorRequest) -> Result<Vec<DoctorFinding>, ServiceError> {
        let refused = |sentence: String, next_action: &str| ServiceError::Refused {
            sentence,
            next_action: next_action.to_owned(),
        };
        let DoctorRequest { site, listen_only } = request;
        if let Some(seconds) = listen_only.filter(|seconds| !(1..=LONGEST).contains(seconds)) {
            return Err(refused(format!("listen_only is {seconds}"), "say 1 to 3600 seconds"));
        }
        self.lint(&site)?;
        let Ok(_alone) = self.doctor.try_lock() else {
            let sentence = "the doctor is at work for somebody else".to_owned();
            return Err(refused(
                sentence,
                "ask again in a minute; one that only listens takes as long as it was told",
            ));
        };
        tokio::select! {
            found = self.patient(&site).examine(&site, listen_only) => Ok(found),
            () = self.cancel.cancelled() => Err(ServiceError::System("the appliance is ending".to_owned())),
        }
    }

    /// This machine, by what serves on it: the port of a listener that cannot run is not ours.
    pub(crate) fn patient(&self, site: &Site) -> Patient<'_> {
        let plan = self.plan();
        let now = plan.as_ref().map(|plan| standings(&plan.site).0).unwrap_or_default();
        let mirror = self.mirror();
        let ours: Vec<SocketAddr> = listeners(self.config.ports, &now)
            .into_iter()
            .filter(|(name, at)| !mirror.ails.contains_key(&listener_at(name, *at)))
            .map(|(_, at)| at)
            .collect();
        let mut listeners = listeners(self.config.ports, &standings(site).0);
        listeners.retain(|(_, at)| !ours.contains(at));
        let boot_ports = plan.is_none() || mirror.ails.contains_key(NETWORK_BOOT);
        Patient { config: &self.config, boot_ports, listeners }
    }
}

/// The directory itself, or the nearest one above that is there: it is made at the first start.
fn existing(data: &Path) -> PathBuf {
    let there = data.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// What the control plane listens on at our address on each network, beside network boot.
fn listeners(ports: Ports, standings: &[Standing]) -> Vec<(String, SocketAddr)> {
    let at_each = |Standing { network, address, .. }: &Standing| {
        let at = IpAddr::V4(*address);
        let all = ports.listeners(network.role).into_iter();
        all.map(move |(listener, port)| (listener.name().to_owned(), SocketAddr::new(at, port)))
    };
    standings.iter().flat_map(at_each).collect()
}

fn pxe(site: &Site, interfaces: Vec<ServedInterface>, config: &ControlConfig) -> PxeConfig {
    let relayed = relayed(site).map(|network| ServedNetwork::planned(network, &site.domain)).collect();
    let mut pxe = PxeConfig { interfaces, relayed, ..PxeConfig::default() };
    (pxe.ports.http, pxe.ports.https) = (config.ports.http, config.ports.https);
    let images = &config.images;
    let boot = [(KERNEL, &images.kernel), (INITRD, &images.initrd)];
    pxe.boot = BootFiles {
        files: boot.map(|(name, path)| (name.to_owned(), path.clone())).into(),
        kernel: KERNEL.to_owned(),
        initrd: INITRD.to_owned(),
        images: Some(images.host.clone()),
    };
    for name in pxe.loaders.ipxe() {
        if let Ok(bytes) = std::fs::read(images.ipxe.join(name)) {
            pxe.tftp.insert(name.to_owned(), bytes.into());
        }
    }
    pxe
}

/// The plan's networks on this machine's interfaces, by the appliance's address; and those that are nowhere.
fn interfaces(site: &Site) -> (Vec<ServedInterface>, Vec<DoctorFinding>) {
    let (found, missing) = standings(site);
    let served = |Standing { network, device, address }| ServedInterface {
        device,
        address,
        network: ServedNetwork::planned(&network, &site.domain),
    };
    let nowhere = |network: &Network| {
        let address = network.appliance?;
        Some(DoctorFinding {
            check: "address".to_owned(),
            severity: Severity::Fault,
            interface: None,
            found: format!("no interface has {address}, the appliance's address on network {}", network.name),
            action: format!("set {address}/{} on the interface that is on it", network.cidr.prefix_len()),
        })
    };
    (found.into_iter().map(served).collect(), missing.into_iter().filter_map(nowhere).collect())
}

impl From<Finding> for DoctorFinding {
    fn from(finding: Finding) -> Self {
        let Finding { check, interface, severity, found, action } = finding;
        Self { check: check.to_owned(), severity, interface, found, action }
    }
}
