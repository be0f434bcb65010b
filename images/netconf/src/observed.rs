//! What the kernel shows of its links, addresses, routes and rules, as plain data. IPv4 alone is ours to keep.

use dayzero_model::ids::MacAddr;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// One look at the whole network of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// All links.
    pub links: Vec<Link>,
    /// IPv4 addresses.
    pub addresses: Vec<Address>,
    /// IPv4 unicast routes of all tables but `local`.
    pub routes: Vec<Route>,
    /// IPv4 rules.
    pub rules: Vec<Rule>,
    /// Values below `/proc/sys`, by path relative to it; a path that is absent does not exist.
    pub sysctls: BTreeMap<String, String>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index of this moment.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// MAC in use.
    pub mac: Option<MacAddr>,
    /// MAC that the hardware came with.
    pub permanent: Option<MacAddr>,
    /// Administratively up.
    pub up: bool,
    /// Carrier.
    pub carrier: bool,
    /// Largest IP packet.
    pub mtu: u32,
    /// Index of the bond or bridge that it is a port of.
    pub master: Option<u32>,
    /// Index of the link below (VLAN).
    pub parent: Option<u32>,
    /// Mbit/s as the driver tells; none = unknown.
    pub speed: Option<u32>,
    /// What it is.
    pub kind: LinkKind,
    /// State as a bond's leg.
    pub leg: Option<Leg>,
}

/// Kind of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// An Ethernet NIC.
    Physical,
    /// `lo`.
    Loopback,
    /// A bond.
    Bond(Bond),
    /// A VLAN with this tag.
    Vlan(u16),
    /// A bridge.
    Bridge {
        /// Spanning tree runs.
        stp: bool,
        /// Forward delay, 1/100 s.
        forward_delay: u32,
    },
    /// A tap or tun device.
    Tap,
    /// Anything else, by the kernel's word.
    Other(String),
}

/// Settings and state of a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bond {
    /// Settings.
    pub settings: BondSettings,
    /// Index of the active leg.
    pub active: Option<u32>,
    /// Index of the primary leg.
    pub primary: Option<u32>,
    /// Id of the active aggregator (802.3ad).
    pub aggregator: Option<u16>,
    /// LACP partner's system id.
    pub partner: Option<MacAddr>,
}

/// What is set on a bond. Words are those of the kernel's bonding driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BondSettings {
    /// Mode, such as `802.3ad`.
    pub mode: String,
    /// Carrier polling, ms; 0 = off.
    pub miimon: u32,
    /// ARP probing, ms; 0 = off.
    pub arp_interval: u32,
    /// ARP targets.
    pub arp_targets: Vec<Ipv4Addr>,
    /// ARP answers are required on all legs.
    pub arp_validate_all: bool,
    /// Probes that may be missed.
    pub missed_max: u8,
    /// Short LACP timeout.
    pub lacp_fast: bool,
    /// Transmit hash over layers 3 and 4.
    pub hash_layer34: bool,
    /// Least number of legs with carrier.
    pub min_links: u32,
    /// The primary takes over again only when the active leg fails.
    pub reselect_on_failure: bool,
}

impl BondSettings {
    /// `observed` is as wanted in all that matters in this mode with this monitoring; the driver shows defaults for the rest.
    pub fn is_met_by(&self, observed: &Self) -> bool {
        let base = |set: &Self| (set.mode.clone(), set.miimon, set.arp_interval, set.min_links);
        let arp = |set: &Self| (set.arp_targets.clone(), set.arp_validate_all, set.missed_max);
        let lacp = |set: &Self| (set.lacp_fast, set.hash_layer34);
        base(self) == base(observed)
            && (self.arp_interval == 0 || arp(self) == arp(observed))
            && if self.is_lacp() {
                lacp(self) == lacp(observed)
            } else {
                self.reselect_on_failure == observed.reselect_on_failure
            }
    }

    /// Mode 802.3ad.
    pub fn is_lacp(&self) -> bool {
        self.mode == "802.3ad"
    }
}

/// A bond's leg as the driver shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// Monitoring says up.
    pub mii_up: bool,
    /// Its aggregator's id (802.3ad).
    pub aggregator: Option<u16>,
    /// Own LACP state bits (IEEE 802.1AX, 6.4.2.3).
    pub actor: u8,
    /// Partner's LACP state bits.
    pub partner: u8,
}

/// LACP state bits "collecting" and "distributing".
pub const LACP_FORWARDING: u8 = 0x30;
/// LACP state bit "defaulted": no partner was heard.
pub const LACP_DEFAULTED: u8 = 0x40;

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Link's index.
    pub link: u32,
    /// Address with prefix length.
    pub address: Ipv4Net,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Table.
    pub table: u32,
    /// Destination; `0.0.0.0/0` = default.
    pub to: Ipv4Net,
    /// Gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Outgoing link's index.
    pub link: Option<u32>,
    /// Preferred source.
    pub source: Option<Ipv4Addr>,
    /// Metric.
    pub metric: u32,
    /// The kernel made it with an address.
    pub by_kernel: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Priority.
    pub priority: u32,
    /// Source; none = any.
    pub from: Option<Ipv4Net>,
    /// Table that it leads to.
    pub table: u32,
}

impl Observed {
    /// The link of that name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link with that index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The NIC with that MAC: by its permanent one, since a bond's leg wears the bond's.
    pub fn nic(&self, mac: MacAddr) -> Option<&Link> {
        self.physical().find(|link| link.permanent.or(link.mac) == Some(mac))
    }

    /// All NICs.
    pub fn physical(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.kind == LinkKind::Physical)
    }

    /// The name of the link with that index, or its number.
    pub fn name_of(&self, index: u32) -> String {
        self.by_index(index).map_or_else(|| format!("link {index}"), |link| link.name.clone())
    }

    /// MACs of all NICs, as text for a message.
    pub fn macs(&self) -> String {
        let macs: Vec<String> = self
            .physical()
            .filter_map(|link| link.permanent.or(link.mac))
            .map(|mac| mac.to_string())
            .collect();
        if macs.is_empty() { "no NIC".to_owned() } else { macs.join(", ") }
    }
}
