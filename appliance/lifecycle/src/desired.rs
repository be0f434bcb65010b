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
/// Intervals beyond the missed ones until the kernel calls a leg dead: half an interval of grace, rounded up with the phase
/// of the check, which runs once an interval (drivers/net/bonding/bond_main.c, `bond_time_in_interval` and `bond_ab_arp_inspect`).
const ARP_LAG_INTERVALS: u64 = 2;
/// LACP's Fast_Periodic_Time (IEEE 802.1AX-2020 section 6.4.4): netconf sets `lacp_rate fast` on each 802.3ad bond.
const LACP_FAST_MS: u64 = 1000;
/// Periods of LACP's Short_Timeout_Time (IEEE 802.1AX-2020 section 6.4.4).
const LACP_TIMEOUT_PERIODS: u64 = 3;
/// Periods until the partner has heard it, and stops using the leg too.
const LACP_AGREE_PERIODS: u64 = 1;
/// Granted beyond the timers, until traffic flows over the other leg: the tables of the switches, a late tick.
const SETTLE_MS: u64 = 1000;
/// Asked: a gap after a lost carrier of at most 1 s (the project's bounds of a proof).
pub const CARRIER_MOST_MS: u64 = 1000;
/// Asked: a gap after a switch died of at most 5 s (the project's bounds of a proof).
pub const DEAD_SWITCH_MOST_MS: u64 = 5000;
/// Asked: a storage stall of at most the timers' sum + 1 s (the project's bounds of a proof) …
const STALL_GRANTED_MS: u64 = 1000;
/// … and that of at most 10 s.
pub const STALL_MOST_MS: u64 = 10_000;
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

/// A bound from the time that the configuration needs to see the break, and what is granted beyond it, never more than asked.
fn bound(seen_ms: u64, seen_is: String, granted_ms: u64, asked_ms: u64) -> Bound {
    let sum = seen_ms.saturating_add(granted_ms);
    let mut is = format!("{seen_is} + {granted_ms} ms = {sum} ms");
    if sum > asked_ms {
        is = format!("{is}, asked: at most {asked_ms} ms");
    }
    Bound { limit: Millis(sum.min(asked_ms)), is }
}

/// Bound of a broken bond leg. The modes see a break each by its own timer: carrier polling, LACP's short timeout, or ARP
/// probes, which see a lost carrier no sooner than a dead switch.
pub fn leg_bound(monitor: &BondMonitor, how: Break) -> Bound {
    let asked = match how {
        Break::Cable => CARRIER_MOST_MS,
        Break::DeadSwitch => DEAD_SWITCH_MOST_MS,
    };
    let (seen, is) = match (monitor, how) {
        (BondMonitor::Mii { interval_ms }, Break::Cable) => {
            (u64::from(*interval_ms), format!("carrier polled every {interval_ms} ms (miimon)"))
        }
        (BondMonitor::Mii { .. }, Break::DeadSwitch) => {
            let periods = LACP_TIMEOUT_PERIODS + LACP_AGREE_PERIODS;
            let is = format!(
                "LACP short timeout {LACP_TIMEOUT_PERIODS} x {LACP_FAST_MS} ms + {LACP_AGREE_PERIODS} x {LACP_FAST_MS} ms until the partner agrees"
            );
            (periods * LACP_FAST_MS, is)
        }
        (BondMonitor::Arp { interval_ms, missed_max, .. }, _) => {
            let (interval, missed) = (u64::from(*interval_ms), u64::from(*missed_max));
            let is = format!("ARP interval {interval} ms x ({missed} missed + {ARP_LAG_INTERVALS})");
            (interval * (missed + ARP_LAG_INTERVALS), is)
        }
    };
    bound(seen, is, SETTLE_MS, asked)
}

/// Bound of a storage stall: the sum of the timers that must run out before the other path is taken.
pub fn stall_bound(timers: &MultipathTimers) -> Bound {
    let is = format!(
        "noop interval {} s + noop timeout {} s + fast_io_fail {} s",
        timers.noop_interval_s, timers.noop_timeout_s, timers.fast_io_fail_s
    );
    bound(u64::from(timers.stall_bound_s()) * 1000, is, STALL_GRANTED_MS, STALL_MOST_MS)
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
                        (Probe::Ping, Break::Cable) => CARRIER_MOST_MS,
                        (Probe::Ping, Break::DeadSwitch) => DEAD_SWITCH_MOST_MS,
                        (Probe::Writer, _) => STALL_MOST_MS,
                    };
                    assert!(bound.limit.0 <= most, "{} {how:?}: {bound:?}", path.role);
                }
            }
        }
    }

    #[test]
    fn a_bound_follows_its_timers_and_never_passes_what_is_asked() {
        let mii = |interval_ms| BondMonitor::Mii { interval_ms };
        let arp = |interval_ms, missed_max| BondMonitor::Arp {
            interval_ms,
            missed_max,
            target: Ipv4Addr::new(10, 77, 0, 1),
        };
        let (cable, dead) = (Break::Cable, Break::DeadSwitch);
        for (monitor, how, limit, is) in [
            (
                mii(100),
                cable,
                1000,
                "carrier polled every 100 ms (miimon) + 1000 ms = 1100 ms, asked: at most 1000 ms",
            ),
            (
                mii(100),
                dead,
                5000,
                "LACP short timeout 3 x 1000 ms + 1 x 1000 ms until the partner agrees + 1000 ms = 5000 ms",
            ),
            (
                arp(200, 2),
                cable,
                1000,
                "ARP interval 200 ms x (2 missed + 2) + 1000 ms = 1800 ms, asked: at most 1000 ms",
            ),
            (arp(200, 2), dead, 1800, "ARP interval 200 ms x (2 missed + 2) + 1000 ms = 1800 ms"),
            (arp(300, 4), dead, 2800, "ARP interval 300 ms x (4 missed + 2) + 1000 ms = 2800 ms"),
            // Timers that are too slow move no bound: the proof fails.
            (
                arp(2000, 3),
                cable,
                1000,
                "ARP interval 2000 ms x (3 missed + 2) + 1000 ms = 11000 ms, asked: at most 1000 ms",
            ),
            (
                arp(2000, 3),
                dead,
                5000,
                "ARP interval 2000 ms x (3 missed + 2) + 1000 ms = 11000 ms, asked: at most 5000 ms",
            ),
        ] {
            assert_eq!(leg_bound(&monitor, how), Bound { limit: Millis(limit), is: is.to_owned() });
        }
        let mut timers = MultipathTimers::default();
        let is = "noop interval 1 s + noop timeout 2 s + fast_io_fail 3 s + 1000 ms = 7000 ms";
        assert_eq!(stall_bound(&timers), Bound { limit: Millis(7000), is: is.to_owned() });
        timers.fast_io_fail_s = 30;
        let slow = stall_bound(&timers);
        assert_eq!(slow.limit, Millis(10_000));
        assert!(slow.is.ends_with("= 34000 ms, asked: at most 10000 ms"), "{}", slow.is);
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
