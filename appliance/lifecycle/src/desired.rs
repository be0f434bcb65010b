//! What a host should be, computed from the plan alone: its network, its LUNs, and the bounds of its proof, each with
//! its arithmetic as text.

use crate::action::{ProofOrder, ProofPath};
use crate::cause::cause;
use crate::snapshot::basis;
use dayzero_model::condition::Cause;
use dayzero_model::ids::Name;
use dayzero_model::network::{BondMonitor, BondSpec, BridgeSpec, HostNetwork, StorageLink};
use dayzero_model::proof::{Break, Probe};
use dayzero_model::site::{BondMode, Network, Placed, Site, StorageKind};
use dayzero_model::storage::{LunSpec, MultipathTimers, PathSpec};
use dayzero_model::units::Millis;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Name of the pod bond.
pub const BOND: &str = "bond0";
/// Carrier polling of an LACP bond, ms.
pub const MII_MS: u32 = 100;
/// ARP probes of an active-backup bond, ms.
pub const ARP_MS: u32 = 200;
/// Probes that may be missed.
pub const ARP_MISSED_MAX: u8 = 2;
/// First routing table of a storage NIC.
pub const FIRST_TABLE: u32 = 101;

fn plan_gap(what: String) -> Cause {
    cause(
        "plan-gap",
        what,
        "a plan that passes `dayzero plan check`",
        "it does not hold here",
        "correct the plan and apply it",
    )
}

fn network_of<'a>(site: &'a Site, name: &Name) -> Result<&'a Network, Cause> {
    site.network(name).ok_or_else(|| plan_gap(format!("network {name} is not in the plan")))
}

fn with_prefix(address: Ipv4Addr, network: &Network) -> Result<Ipv4Net, Cause> {
    Ipv4Net::new(address, network.cidr.prefix_len())
        .map_err(|e| plan_gap(format!("{address} in {}: {e}", network.cidr)))
}

/// The management network of a host's pod.
///
/// # Errors
/// The plan names no such network.
pub fn management<'a>(site: &'a Site, placed: &Placed<'_>) -> Result<&'a Network, Cause> {
    network_of(site, &placed.pod.network)
}

/// The host's network.
///
/// # Errors
/// A reference of the plan does not resolve (cause `plan-gap`).
pub fn network(site: &Site, placed: &Placed<'_>) -> Result<HostNetwork, Cause> {
    let management = management(site, placed)?;
    let host = placed.host;
    let monitor = match host.bond.mode {
        BondMode::Lacp => BondMonitor::Mii { interval_ms: MII_MS },
        BondMode::ActiveBackup => {
            let target = management.gateway.or(management.appliance).ok_or_else(|| {
                plan_gap(format!("network {} has no gateway for ARP monitoring", management.name))
            })?;
            BondMonitor::Arp { interval_ms: ARP_MS, missed_max: ARP_MISSED_MAX, target }
        }
    };
    let legs = host.bond.nics.iter().map(|nic| nic.mac).collect();
    let bond = BondSpec { name: BOND.to_owned(), mode: host.bond.mode, legs, mtu: management.mtu, monitor };
    let mut bridges = Vec::new();
    if let Some(name) = &placed.cluster.guest_network {
        let guest = network_of(site, name)?;
        let vlan = guest.vlan.ok_or_else(|| plan_gap(format!("guest network {name} has no VLAN")))?;
        bridges.push(BridgeSpec { name: bridge_name(name), network: name.clone(), vlan, mtu: guest.mtu });
    }
    let mut storage = Vec::new();
    for (table, nic) in (FIRST_TABLE..).zip(&host.storage_nics) {
        let network = network_of(site, &nic.network)?;
        storage.push(StorageLink {
            mac: nic.mac,
            network: network.name.clone(),
            address: with_prefix(nic.address, network)?,
            gateway: network.gateway,
            mtu: network.mtu,
            table,
        });
    }
    let gateway = management.gateway;
    Ok(HostNetwork { bond, management: with_prefix(host.address, management)?, gateway, bridges, storage })
}

/// Name of a guest network's bridge: `br-` and the network's name, cut to the kernel's 15 bytes.
pub fn bridge_name(network: &Name) -> String {
    format!("br-{network}").chars().take(15).collect()
}

/// The LUNs that a host connects to: those of its cluster's iSCSI primary storage.
///
/// # Errors
/// The plan lacks target, WWN or a portal (cause `plan-gap`).
pub fn luns(site: &Site, placed: &Placed<'_>) -> Result<Vec<LunSpec>, Cause> {
    let mut luns = Vec::new();
    for name in &placed.cluster.primary_storage {
        let storage = site
            .storage(name)
            .ok_or_else(|| plan_gap(format!("primary storage {name} is not in the plan")))?;
        if storage.kind != StorageKind::Iscsi {
            continue;
        }
        let target = storage
            .target
            .clone()
            .ok_or_else(|| plan_gap(format!("primary storage {name} has no target")))?;
        let wwn =
            storage.wwn.clone().ok_or_else(|| plan_gap(format!("primary storage {name} has no WWN")))?;
        let path = |portal: &dayzero_model::site::Portal| {
            let nic = placed.host.storage_nics.iter().find(|nic| nic.network == portal.network)?;
            Some(PathSpec { nic: nic.mac, portal: portal.address, port: portal.port })
        };
        let paths: Vec<_> = storage.portals.iter().filter_map(path).collect();
        if paths.is_empty() {
            return Err(plan_gap(format!(
                "no storage NIC of {} reaches a portal of {name}",
                placed.host.name
            )));
        }
        luns.push(LunSpec { storage: name.clone(), target, wwn, paths, timers: MultipathTimers::default() });
    }
    Ok(luns)
}

/// A bound with its arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bound {
    /// The bound.
    pub limit: Millis,
    /// How it comes about.
    pub is: String,
}

/// Bound of a broken bond leg.
pub fn leg_bound(monitor: &BondMonitor, how: Break) -> Bound {
    match (monitor, how) {
        (BondMonitor::Mii { interval_ms }, Break::Cable) => Bound {
            limit: Millis(1000),
            is: format!("carrier polled every {interval_ms} ms (miimon), asked: at most 1000 ms"),
        },
        (BondMonitor::Mii { .. }, Break::DeadSwitch) => Bound {
            limit: Millis(5000),
            is: "LACP short timeout 3 x 1000 ms + 1000 ms until the partner agrees + 1000 ms margin"
                .to_owned(),
        },
        (BondMonitor::Arp { interval_ms, missed_max, .. }, how) => {
            let (interval, missed) = (u64::from(*interval_ms), u64::from(*missed_max));
            let seen = interval * (missed + 2);
            match how {
                Break::Cable => Bound {
                    limit: Millis(1000.max(seen)),
                    is: format!(
                        "ARP interval {interval} ms x ({missed} missed + 2) = {seen} ms, asked: at most 1000 ms"
                    ),
                },
                Break::DeadSwitch => Bound {
                    limit: Millis(seen + 1000),
                    is: format!("ARP interval {interval} ms x ({missed} missed + 2) + 1000 ms margin"),
                },
            }
        }
    }
}

/// Bound of a storage stall.
pub fn stall_bound(timers: &MultipathTimers) -> Bound {
    let sum = u64::from(timers.stall_bound_s());
    Bound {
        limit: Millis((sum + 1) * 1000),
        is: format!(
            "noop interval {} s + noop timeout {} s + fast_io_fail {} s + 1 s",
            timers.noop_interval_s, timers.noop_timeout_s, timers.fast_io_fail_s
        ),
    }
}

/// What a proof of this host does, and what it is about.
///
/// # Errors
/// As [`network`] and [`luns`].
pub fn proof(site: &Site, placed: &Placed<'_>) -> Result<ProofOrder, Cause> {
    let network = network(site, placed)?;
    let luns = luns(site, placed)?;
    let both = [Break::Cable, Break::DeadSwitch];
    let mut paths = Vec::new();
    for nic in &placed.host.bond.nics {
        let bounds = both.map(|how| (how, leg_bound(&network.bond.monitor, how))).to_vec();
        paths.push(ProofPath { role: nic.role.clone(), mac: nic.mac, probe: Probe::Ping, bounds });
    }
    if let Some(lun) = luns.first() {
        for nic in &placed.host.storage_nics {
            if lun.paths.iter().any(|path| path.nic == nic.mac) {
                let bounds = both.map(|how| (how, stall_bound(&lun.timers))).to_vec();
                paths.push(ProofPath { role: nic.role.clone(), mac: nic.mac, probe: Probe::Writer, bounds });
            }
        }
    }
    let ports: Vec<_> = placed.host.nics().collect();
    let basis = basis(&(&network, &luns, &ports));
    Ok(ProofOrder { paths, storage: luns.first().map(|lun| lun.storage.clone()), basis })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_lab_plans_networks_are_these() {
        let site = testing::site();
        let shown: Vec<_> = site.hosts().map(|placed| network(&site, &placed).unwrap()).collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap());
        let shown: Vec<_> = site.hosts().map(|placed| luns(&site, &placed).unwrap()).collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap());
    }

    #[test]
    fn bounds_hold_what_the_issue_asks() {
        let site = testing::site();
        for placed in site.hosts() {
            let order = proof(&site, &placed).unwrap();
            assert_eq!(order.paths.len(), 4);
            for path in &order.paths {
                for (how, bound) in &path.bounds {
                    let most = match (path.probe, how) {
                        (Probe::Ping, Break::Cable) => 1000,
                        (Probe::Ping, Break::DeadSwitch) => 5000,
                        (Probe::Writer, _) => 10_000,
                    };
                    assert!(bound.limit.0 <= most, "{} {how:?}: {bound:?}", path.role);
                }
            }
        }
    }

    #[test]
    fn a_plan_with_a_hole_is_named() {
        let mut site = testing::site();
        site.networks.retain(|network| network.name.as_str() != "storage-b");
        let placed = site.hosts().next().unwrap();
        let cause = network(&site, &placed).unwrap_err();
        assert_eq!(
            (cause.code.as_str(), cause.sentence.as_str()),
            ("plan-gap", "network storage-b is not in the plan")
        );
    }
}
