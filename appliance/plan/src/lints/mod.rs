//! The lints: one file each, one row in [`ALL`]. A lint is a pure function over the plan that says what is wrong by
//! path; it never reads the text.

use crate::diagnostic::Finding;
use crate::source::Path;
use crate::{Known, Severity};
use dayzero_model::site::{Cluster, Host, Pod, Site};
use std::collections::BTreeMap;

mod address_outside;
mod bond_legs;
mod cidr_overlap;
mod cluster_size;
mod dangling;
mod dhcp;
mod dom0_memory;
mod duplicate_address;
mod duplicate_mac;
mod duplicate_name;
mod duplicate_port;
mod duplicate_serial;
mod gateway_outside;
mod guest_vlan;
mod identity;
mod lacp_stack;
mod lun_size;
mod mixed_hypervisors;
mod mpio_bonded;
mod mpio_gateways;
mod mpio_subnets;
mod network_role;
mod offering;
mod placeholder;
mod rack_units;
mod storage_fields;
mod storage_matrix;
mod storage_reach;
mod template;
mod vm_cap;

/// One lint.
pub(crate) struct Lint {
    /// Stable code.
    pub(crate) code: &'static str,
    /// Its name, which is its file's.
    pub(crate) name: &'static str,
    /// What it protects, in one sentence.
    pub(crate) about: &'static str,
    /// The check.
    pub(crate) check: fn(&Plan<'_>, &mut Vec<Finding>),
}

/// All lints, by code.
static ALL: [Lint; 30] = [
    duplicate_name::LINT,
    duplicate_serial::LINT,
    duplicate_mac::LINT,
    duplicate_address::LINT,
    duplicate_port::LINT,
    rack_units::LINT,
    identity::LINT,
    dangling::LINT,
    placeholder::LINT,
    mixed_hypervisors::LINT,
    storage_matrix::LINT,
    dom0_memory::LINT,
    vm_cap::LINT,
    cluster_size::LINT,
    cidr_overlap::LINT,
    gateway_outside::LINT,
    address_outside::LINT,
    network_role::LINT,
    guest_vlan::LINT,
    dhcp::LINT,
    mpio_subnets::LINT,
    mpio_gateways::LINT,
    mpio_bonded::LINT,
    lun_size::LINT,
    storage_fields::LINT,
    storage_reach::LINT,
    lacp_stack::LINT,
    bond_legs::LINT,
    offering::LINT,
    template::LINT,
];

/// A lint as tools list it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct LintInfo {
    /// Stable code.
    pub code: &'static str,
    /// Name.
    pub name: &'static str,
    /// What it protects.
    pub about: &'static str,
}

/// All lints over a plan that could be read (`DZ001` to `DZ005` are of the reading itself).
pub fn lints() -> impl Iterator<Item = LintInfo> {
    ALL.iter().map(|lint| LintInfo { code: lint.code, name: lint.name, about: lint.about })
}

/// Runs all lints.
pub(crate) fn run(site: &Site, known: &Known) -> Vec<Finding> {
    let plan = Plan { site, known };
    let mut findings = Vec::new();
    for lint in &ALL {
        (lint.check)(&plan, &mut findings);
    }
    findings.sort_by_key(|finding| (finding.severity == Severity::Warning, finding.code));
    findings
}

/// The plan as lints see it.
pub(crate) struct Plan<'a> {
    pub(crate) site: &'a Site,
    pub(crate) known: &'a Known,
}

/// A pod and its path.
#[derive(Clone)]
pub(crate) struct PodAt<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) path: Path,
}

/// A cluster, its pod, its path.
#[derive(Clone)]
pub(crate) struct ClusterAt<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) cluster: &'a Cluster,
    pub(crate) path: Path,
}

/// A host, where it stands, its path.
#[derive(Clone)]
pub(crate) struct HostAt<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) cluster: &'a Cluster,
    pub(crate) host: &'a Host,
    pub(crate) path: Path,
}

impl<'a> Plan<'a> {
    pub(crate) fn pods(&self) -> impl Iterator<Item = PodAt<'a>> + use<'a> {
        self.site.zones.iter().enumerate().flat_map(|(z, zone)| {
            let zone_path = Path::root().key("zones").at(z).key("pods");
            zone.pods.iter().enumerate().map(move |(p, pod)| PodAt { pod, path: zone_path.at(p) })
        })
    }

    pub(crate) fn clusters(&self) -> impl Iterator<Item = ClusterAt<'a>> + use<'a> {
        self.pods().flat_map(|PodAt { pod, path }| {
            let clusters = path.key("clusters");
            pod.clusters.iter().enumerate().map(move |(c, cluster)| ClusterAt {
                pod,
                cluster,
                path: clusters.at(c),
            })
        })
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = HostAt<'a>> + use<'a> {
        self.clusters().flat_map(|ClusterAt { pod, cluster, path }| {
            let hosts = path.key("hosts");
            cluster.hosts.iter().enumerate().map(move |(h, host)| HostAt {
                pod,
                cluster,
                host,
                path: hosts.at(h),
            })
        })
    }

    pub(crate) fn networks(
        &self,
    ) -> impl Iterator<Item = (&'a dayzero_model::site::Network, Path)> + use<'a> {
        listed(&self.site.networks, "networks")
    }

    pub(crate) fn storages(
        &self,
    ) -> impl Iterator<Item = (&'a dayzero_model::site::PrimaryStorage, Path)> + use<'a> {
        listed(&self.site.primary_storage, "primary_storage")
    }

    /// Each host with each multipath storage of its cluster.
    pub(crate) fn multipath_hosts(
        &self,
    ) -> impl Iterator<Item = (HostAt<'a>, &'a dayzero_model::site::PrimaryStorage)> {
        let site = self.site;
        self.hosts().flat_map(move |at| {
            let storages = at.cluster.primary_storage.iter().filter_map(|name| site.storage(name));
            storages
                .filter(|storage| storage.multipath)
                .map(move |storage| (at.clone(), storage))
                .collect::<Vec<_>>()
        })
    }
}

/// The items of a top-level list with their paths.
pub(crate) fn listed<'a, T>(
    items: &'a [T],
    key: &'static str,
) -> impl Iterator<Item = (&'a T, Path)> + use<'a, T> {
    let path = Path::root().key(key);
    items.iter().enumerate().map(move |(i, item)| (item, path.at(i)))
}

/// Things that share a key that should be one's own: the key, and each thing's path and description, in plan order.
pub(crate) fn shared<K: Ord>(
    items: impl Iterator<Item = (K, Path, String)>,
) -> Vec<(K, Vec<(Path, String)>)> {
    let mut by_key: BTreeMap<K, Vec<(Path, String)>> = BTreeMap::new();
    for (key, path, who) in items {
        by_key.entry(key).or_default().push((path, who));
    }
    by_key.into_iter().filter(|(_, places)| places.len() > 1).collect()
}

/// A finding for shared keys: the last place is to change, the others are shown with it.
pub(crate) fn twice(code: &'static str, what: &str, places: &[(Path, String)], help: &str) -> Finding {
    let count = match places.len() {
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    };
    let mut finding = Finding::error(code, format!("{what} stands {count} in the plan")).help(help);
    for (i, (path, who)) in places.iter().enumerate().rev().take(8) {
        finding = finding.at(path, if i == 0 { format!("first: {who}") } else { format!("again: {who}") });
    }
    finding
}

/// `1 host`, `2 hosts`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
