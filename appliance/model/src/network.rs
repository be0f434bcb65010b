//! The network of one host: what is wanted, and what was read back.

use crate::ids::{MacAddr, Name};
use crate::inventory::Neighbour;
use crate::site::BondMode;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Everything that the agent keeps configured, by netlink, at each boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostNetwork {
    /// The pod bond.
    pub bond: BondSpec,
    /// Management address, untagged on the bond.
    pub management: Ipv4Net,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Bridges for guests, each on a VLAN above the bond.
    pub bridges: Vec<BridgeSpec>,
    /// Storage NICs, unbonded, each with its own routing table.
    pub storage: Vec<StorageLink>,
}

/// A bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BondSpec {
    /// Interface name, such as `bond0`.
    pub name: String,
    /// Mode.
    pub mode: BondMode,
    /// Legs by MAC, primary first.
    pub legs: Vec<MacAddr>,
    /// Largest IP packet.
    pub mtu: u32,
    /// Link monitoring.
    pub monitor: BondMonitor,
}

/// How a bond sees that a leg is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum BondMonitor {
    /// Carrier, polled (802.3ad; a dead switch is seen by LACP, short timeout).
    Mii {
        /// Interval in ms.
        interval_ms: u32,
    },
    /// ARP probes of a target (active-backup).
    Arp {
        /// Interval in ms.
        interval_ms: u32,
        /// Probes that may be missed.
        missed_max: u8,
        /// Probed address.
        target: Ipv4Addr,
    },
}

/// A guest bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeSpec {
    /// Interface name, such as `br-guest` (at most 15 bytes).
    pub name: String,
    /// Guest network's name in the plan.
    pub network: Name,
    /// 802.1Q tag of the VLAN interface that is its port.
    pub vlan: u16,
    /// Largest IP packet.
    pub mtu: u32,
}

/// One storage NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageLink {
    /// NIC.
    pub mac: MacAddr,
    /// Storage network's name.
    pub network: Name,
    /// Address with prefix length.
    pub address: Ipv4Net,
    /// That subnet's own gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Largest IP packet.
    pub mtu: u32,
    /// Routing table of its own (100 and up); a source rule leads to it.
    pub table: u32,
}

/// What was read back after an apply, by netlink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// All is as wanted.
    pub converged: bool,
    /// What differs or failed, as sentences; empty if converged.
    pub problems: Vec<String>,
    /// What this pass changed, as sentences; empty on the second pass.
    pub changes: Vec<String>,
    /// The bond as the kernel shows it.
    pub bond: Option<BondState>,
    /// Addresses, `interface address/len`.
    pub addresses: Vec<String>,
    /// Rules and routes of the storage tables, as text.
    pub storage_routes: Vec<String>,
    /// Links that are not ours.
    pub foreign: Vec<String>,
    /// LLDP neighbours heard since the boot.
    pub neighbours: Vec<Neighbour>,
}

/// A bond as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondState {
    /// Interface name.
    pub name: String,
    /// Mode as the kernel names it.
    pub mode: String,
    /// Active leg (active-backup).
    pub active: Option<MacAddr>,
    /// Legs.
    pub legs: Vec<LegState>,
    /// LACP partner's system id (802.3ad).
    pub partner: Option<MacAddr>,
}

/// One leg of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegState {
    /// NIC.
    pub mac: MacAddr,
    /// Kernel name.
    pub kernel_name: String,
    /// The bond counts it as up.
    pub up: bool,
    /// Carries traffic: active (active-backup), or in the active aggregator, collecting and distributing (802.3ad);
    /// a backup leg that is ready counts too.
    pub usable: bool,
}
