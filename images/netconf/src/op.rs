//! One change of the network, as data: what the plan asks for and what a report shows.

use crate::observed::BondSettings;
use dayzero_model::ids::MacAddr;
use ipnet::Ipv4Net;
use std::fmt;
use std::net::Ipv4Addr;

/// One change. Links are named; their indexes are looked up when it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a value below `/proc/sys`.
    Sysctl {
        /// Path relative to `/proc/sys`.
        path: String,
        /// Value.
        value: String,
    },
    /// Give a NIC that reports no speed one, full duplex.
    SetSpeed {
        /// Link.
        link: String,
        /// Mbit/s.
        mbit: u16,
    },
    /// Delete a link, with what lies above it.
    DeleteLink {
        /// Link.
        link: String,
        /// What could not be changed in place.
        why: String,
    },
    /// Make a bond, down and without legs.
    CreateBond {
        /// Its name.
        link: String,
        /// Its MAC.
        mac: MacAddr,
        /// Its settings.
        settings: BondSettings,
    },
    /// Change a bond's settings in place.
    SetBond {
        /// Bond.
        link: String,
        /// All its settings.
        settings: BondSettings,
    },
    /// Make a VLAN interface, down.
    CreateVlan {
        /// Its name.
        link: String,
        /// Link below.
        parent: String,
        /// 802.1Q tag.
        id: u16,
    },
    /// Make a bridge without spanning tree and forward delay, down.
    CreateBridge {
        /// Its name.
        link: String,
    },
    /// Take spanning tree and forward delay from a bridge.
    SetBridge {
        /// Bridge.
        link: String,
    },
    /// Give a link a MAC.
    SetMac {
        /// Link.
        link: String,
        /// MAC.
        mac: MacAddr,
    },
    /// Set the largest packet.
    SetMtu {
        /// Link.
        link: String,
        /// Bytes.
        mtu: u32,
    },
    /// Take a link down.
    Down {
        /// Link.
        link: String,
    },
    /// Bring a link up.
    Up {
        /// Link.
        link: String,
    },
    /// Make a link a port of a bond or bridge.
    Enslave {
        /// Link.
        link: String,
        /// Bond or bridge.
        master: String,
    },
    /// Take a link out of its bond or bridge.
    Release {
        /// Link.
        link: String,
    },
    /// Name a bond's primary leg.
    SetPrimary {
        /// Bond.
        link: String,
        /// Leg.
        leg: String,
    },
    /// Remove an address.
    DelAddress {
        /// Link.
        link: String,
        /// Address.
        address: Ipv4Net,
    },
    /// Add an address.
    AddAddress {
        /// Link.
        link: String,
        /// Address.
        address: Ipv4Net,
    },
    /// Remove a route.
    DelRoute(RouteSpec),
    /// Add a route.
    AddRoute(RouteSpec),
    /// Remove a rule.
    DelRule(RuleSpec),
    /// Add a rule.
    AddRule(RuleSpec),
}

/// A route with its link by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Table; 254 = main.
    pub table: u32,
    /// Destination.
    pub to: Ipv4Net,
    /// Gateway; none = on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Link.
    pub link: String,
    /// Preferred source.
    pub source: Option<Ipv4Addr>,
    /// Metric.
    pub metric: u32,
}

/// A rule by source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Priority.
    pub priority: u32,
    /// Source; none = any.
    pub from: Option<Ipv4Net>,
    /// Table.
    pub table: u32,
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.link)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        write!(f, " table {}", self.table)
    }
}

impl fmt::Display for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(from) => write!(f, "{}: from {from} lookup {}", self.priority, self.table),
            None => write!(f, "{}: from all lookup {}", self.priority, self.table),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { path, value } => write!(f, "set {path} to {value}"),
            Self::SetSpeed { link, mbit } => write!(f, "set the speed of {link} to {mbit} Mbit/s"),
            Self::DeleteLink { link, why } => write!(f, "delete {link}: {why}"),
            Self::CreateBond { link, settings, .. } => write!(f, "make bond {link}, {}", settings.mode),
            Self::SetBond { link, .. } => write!(f, "change the settings of bond {link}"),
            Self::CreateVlan { link, parent, id } => write!(f, "make {link}: VLAN {id} on {parent}"),
            Self::CreateBridge { link } => write!(f, "make bridge {link}"),
            Self::SetBridge { link } => write!(f, "take spanning tree and forward delay from {link}"),
            Self::SetMac { link, mac } => write!(f, "give {link} the MAC {mac}"),
            Self::SetMtu { link, mtu } => write!(f, "set the MTU of {link} to {mtu}"),
            Self::Down { link } => write!(f, "take {link} down"),
            Self::Up { link } => write!(f, "bring {link} up"),
            Self::Enslave { link, master } => write!(f, "make {link} a port of {master}"),
            Self::Release { link } => write!(f, "take {link} out of its bond or bridge"),
            Self::SetPrimary { link, leg } => write!(f, "make {leg} the primary leg of {link}"),
            Self::DelAddress { link, address } => write!(f, "remove {address} from {link}"),
            Self::AddAddress { link, address } => write!(f, "add {address} to {link}"),
            Self::DelRoute(route) => write!(f, "remove route {route}"),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::DelRule(rule) => write!(f, "remove rule {rule}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
        }
    }
}
