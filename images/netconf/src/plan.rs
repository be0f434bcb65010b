//! From what is observed and what is wanted to the changes, in an order that the kernel accepts. Pure.
//!
//! Invariants: a network as wanted gives no operations; masters come before their ports; a leg is down before it is
//! enslaved; what cannot be changed in place is deleted and made anew; links that are not ours are never touched.

use crate::foreign;
use crate::observed::{Bond, BondSettings, Link, LinkKind, Observed, Route};
use crate::op::{Op, RouteSpec, RuleSpec};
use crate::sysctl;
use dayzero_model::network::{BondMonitor, BondSpec, BridgeSpec, HostNetwork, StorageLink};
use dayzero_model::site::BondMode;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The main routing table.
pub const MAIN: u32 = 254;
/// Rules with a priority from here, 10,000 of them, are ours: this plus the table's number.
pub const RULES_FROM: u32 = 10_000;
/// The speed that a NIC gets which reports none, Mbit/s.
const SPEED: u16 = 1000;
/// Longest interface name (IFNAMSIZ without the final zero).
const NAME_MAX: usize = 15;

/// What is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes in order.
    pub ops: Vec<Op>,
    /// What keeps the network from being as wanted and no change can cure, as sentences.
    pub problems: Vec<String>,
}

impl Plan {
    /// The changes that make `observed` into `wanted`.
    pub fn new(observed: &Observed, wanted: &HostNetwork) -> Self {
        let mut planner = Planner { observed, wanted, plan: Self::default(), new_bond: false };
        for (path, value) in sysctl::EVERYWHERE {
            planner.sysctl((path.to_owned(), value.to_owned()), true);
        }
        if planner.bond() {
            for bridge in &wanted.bridges {
                planner.bridge(bridge);
            }
        }
        for link in &wanted.storage {
            planner.storage(link);
        }
        planner.stale_rules();
        planner.plan.problems.extend(foreign::problems(observed, wanted));
        planner.plan
    }
}

/// The bond's settings as the kernel is to hold them.
///
/// # Errors
/// A sentence, where mode and monitoring do not go together.
pub fn bond_settings(spec: &BondSpec) -> Result<BondSettings, String> {
    let mut set = BondSettings { min_links: 1, ..BondSettings::default() };
    match (spec.mode, &spec.monitor) {
        (BondMode::Lacp, BondMonitor::Mii { interval_ms }) => {
            set.mode = "802.3ad".to_owned();
            set.miimon = *interval_ms;
            set.lacp_fast = true;
            set.hash_layer34 = true;
        }
        (BondMode::Lacp, BondMonitor::Arp { .. }) => {
            return Err(format!(
                "bond {}: mode 802.3ad cannot use ARP monitoring (the kernel refuses it); use carrier monitoring, \
                 LACP sees a dead switch",
                spec.name
            ));
        }
        (BondMode::ActiveBackup, monitor) => {
            set.mode = "active-backup".to_owned();
            set.reselect_on_failure = true;
            match monitor {
                BondMonitor::Mii { interval_ms } => set.miimon = *interval_ms,
                BondMonitor::Arp { interval_ms, missed_max, target } => {
                    set.arp_interval = *interval_ms;
                    set.missed_max = *missed_max;
                    set.arp_targets = vec![*target];
                    set.arp_validate_all = true;
                }
            }
        }
    }
    Ok(set)
}

/// `bond0.100`.
pub fn vlan_name(bond: &str, id: u16) -> String {
    format!("{bond}.{id}")
}

struct Planner<'a> {
    observed: &'a Observed,
    wanted: &'a HostNetwork,
    plan: Plan,
    /// The bond is made (anew) in this plan, so that nothing lies above it any more.
    new_bond: bool,
}

impl<'a> Planner<'a> {
    fn push(&mut self, op: Op) {
        self.plan.ops.push(op);
    }

    fn problem(&mut self, text: String) {
        self.plan.problems.push(text);
    }

    /// Writes a setting that differs. One of a link that exists, but not the file, is of a kernel without it.
    fn sysctl(&mut self, (path, value): (String, String), link_exists: bool) {
        let wanted = match self.observed.sysctls.get(&path) {
            Some(observed) => *observed != value,
            None => !link_exists,
        };
        if wanted {
            self.push(Op::Sysctl { path, value });
        }
    }

    /// Says whether there will be a bond.
    fn bond(&mut self) -> bool {
        let spec = &self.wanted.bond;
        let settings = match bond_settings(spec) {
            Ok(settings) => settings,
            Err(problem) => {
                self.problem(problem);
                return false;
            }
        };
        let Some(mac) = spec.legs.first().copied() else {
            self.problem(format!("bond {} has no legs", spec.name));
            return false;
        };
        let existing = match self.observed.by_name(&spec.name) {
            Some(link) if link.kind == LinkKind::Physical => {
                self.problem(format!("a NIC of this host is named {}, as the bond", spec.name));
                return false;
            }
            Some(link) => self.keep_bond(link, &settings),
            None => None,
        };
        self.new_bond = existing.is_none();
        let name = spec.name.clone();
        match existing {
            None => {
                self.push(Op::CreateBond { link: name.clone(), mac, settings });
                self.push(Op::SetMtu { link: name.clone(), mtu: spec.mtu });
            }
            Some((link, bond)) => {
                if !settings.is_met_by(&bond.settings) {
                    self.push(Op::SetBond { link: name.clone(), settings });
                }
                if link.mac != Some(mac) {
                    self.push(Op::SetMac { link: name.clone(), mac });
                }
                if link.mtu != spec.mtu {
                    self.push(Op::SetMtu { link: name.clone(), mtu: spec.mtu });
                }
            }
        }
        self.legs(existing.map(|(link, _)| link.index));
        if existing.is_none_or(|(link, _)| !link.up) {
            self.push(Op::Up { link: name.clone() });
        }
        let primary = self.observed.nic(mac);
        if let (BondMode::ActiveBackup, Some(primary)) = (spec.mode, primary)
            && existing.and_then(|(_, bond)| bond.primary) != Some(primary.index)
        {
            self.push(Op::SetPrimary { link: name.clone(), leg: primary.name.clone() });
        }
        let link = existing.map(|(link, _)| link);
        self.sysctl(sysctl::accept_ra(&name), link.is_some());
        self.addresses(&name, link, &[self.wanted.management]);
        self.default_route(&name, link);
        true
    }

    /// The bond that is there, if it can be kept; else its deletion is planned.
    fn keep_bond<'o>(&mut self, link: &'o Link, settings: &BondSettings) -> Option<(&'o Link, &'o Bond)> {
        let why = match &link.kind {
            LinkKind::Bond(bond) if bond.settings.mode != settings.mode => {
                format!("mode is {}, wanted {}", bond.settings.mode, settings.mode)
            }
            LinkKind::Bond(bond) if settings.is_lacp() && !bond.settings.lacp_fast => {
                "the LACP timeout cannot be changed while it is up".to_owned()
            }
            LinkKind::Bond(bond) => return Some((link, bond)),
            _ => "it is no bond".to_owned(),
        };
        self.push(Op::DeleteLink { link: link.name.clone(), why });
        None
    }

    fn legs(&mut self, bond: Option<u32>) {
        let spec = &self.wanted.bond;
        let mut legs = Vec::new();
        for mac in &spec.legs {
            match self.observed.nic(*mac) {
                Some(nic) => legs.push(nic),
                None => self.problem(format!(
                    "bond {}: its leg {mac} is no NIC of this host, which has {}",
                    spec.name,
                    self.observed.macs()
                )),
            }
        }
        let strangers = self
            .observed
            .links
            .iter()
            .filter(|link| bond.is_some() && link.master == bond)
            .filter(|link| !legs.iter().any(|leg| leg.index == link.index));
        let strangers: Vec<String> = strangers.map(|link| link.name.clone()).collect();
        for link in strangers {
            self.push(Op::Release { link });
        }
        let old_bond = self.observed.by_name(&spec.name).map(|link| link.index);
        for leg in legs {
            self.addresses(&leg.name, Some(leg), &[]);
            if bond.is_some() && leg.master == bond {
                if !leg.up {
                    self.push(Op::Up { link: leg.name.clone() });
                }
                continue;
            }
            // A deleted bond lets its legs go by itself.
            if leg.master.is_some() && leg.master != old_bond {
                self.push(Op::Release { link: leg.name.clone() });
            }
            if leg.speed.is_none() && spec.mode == BondMode::Lacp {
                self.push(Op::SetSpeed { link: leg.name.clone(), mbit: SPEED });
            }
            self.push(Op::Down { link: leg.name.clone() });
            self.push(Op::Enslave { link: leg.name.clone(), master: spec.name.clone() });
        }
    }

    /// Keeps exactly these IPv4 addresses on a link; `link` is none where it is yet to be made.
    fn addresses(&mut self, name: &str, link: Option<&Link>, wanted: &[Ipv4Net]) {
        let present: Vec<Ipv4Net> = self
            .observed
            .addresses
            .iter()
            .filter(|address| Some(address.link) == link.map(|link| link.index))
            .map(|address| address.address)
            .collect();
        for address in present.iter().filter(|address| !wanted.contains(address)) {
            self.push(Op::DelAddress { link: name.to_owned(), address: *address });
        }
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            self.push(Op::AddAddress { link: name.to_owned(), address: *address });
        }
    }

    fn spec_of(&self, route: &Route) -> RouteSpec {
        let link = route.link.map_or_else(|| "none".to_owned(), |index| self.observed.name_of(index));
        let Route { table, to, gateway, source, metric, .. } = *route;
        RouteSpec { table, to, gateway, link, source, metric }
    }

    /// The default route by the management gateway; other default routes of our own links go.
    fn default_route(&mut self, name: &str, bond: Option<&Link>) {
        let wanted = self.wanted.gateway.map(|gateway| RouteSpec {
            table: MAIN,
            to: default(),
            gateway: Some(gateway),
            link: name.to_owned(),
            source: None,
            metric: 0,
        });
        let ours: Vec<u32> = foreign::our_links(self.observed, self.wanted).map(|link| link.index).collect();
        let present: Vec<RouteSpec> = self
            .observed
            .routes
            .iter()
            .filter(|route| route.table == MAIN && route.to == default())
            .filter(|route| route.link.is_some_and(|index| ours.contains(&index)))
            .map(|route| self.spec_of(route))
            .collect();
        let keep = bond.is_some_and(|bond| bond.up);
        self.routes(present, wanted.into_iter().collect(), keep);
    }

    /// Removes what is present and not wanted, adds what is wanted and not present. With `keep` false the link is yet
    /// to be made or down, and has no routes.
    fn routes(&mut self, present: Vec<RouteSpec>, wanted: Vec<RouteSpec>, keep: bool) {
        for route in &present {
            if keep && !wanted.contains(route) {
                self.push(Op::DelRoute(route.clone()));
            }
        }
        for route in wanted {
            if !keep || !present.contains(&route) {
                self.push(Op::AddRoute(route));
            }
        }
    }

    fn bridge(&mut self, spec: &BridgeSpec) {
        let bond = &self.wanted.bond.name;
        let vlan = vlan_name(bond, spec.vlan);
        for name in [&vlan, &spec.name] {
            if name.len() > NAME_MAX {
                return self.problem(format!("the interface name '{name}' is longer than {NAME_MAX} bytes"));
            }
        }
        let bridge = self.bridge_itself(spec);
        let Some(port) = self.vlan(&vlan, bond, spec) else { return };
        let bridge_index = bridge.map(|link| link.index);
        if port.is_none_or(|link| link.mtu != spec.mtu) {
            self.push(Op::SetMtu { link: vlan.clone(), mtu: spec.mtu });
        }
        if port.is_none_or(|link| link.master.is_none() || link.master != bridge_index) {
            if port.is_some_and(|link| link.master.is_some()) {
                self.push(Op::Release { link: vlan.clone() });
            }
            self.push(Op::Enslave { link: vlan.clone(), master: spec.name.clone() });
        }
        if bridge.is_none_or(|link| link.mtu != spec.mtu) {
            self.push(Op::SetMtu { link: spec.name.clone(), mtu: spec.mtu });
        }
        for (name, link) in [(&vlan, port), (&spec.name, bridge)] {
            self.addresses(name, link, &[]);
            self.sysctl(sysctl::no_ipv6(name), link.is_some());
            if link.is_none_or(|link| !link.up) {
                self.push(Op::Up { link: name.clone() });
            }
        }
    }

    fn bridge_itself(&mut self, spec: &BridgeSpec) -> Option<&'a Link> {
        let observed = self.observed;
        let link = observed.by_name(&spec.name);
        match link.map(|link| &link.kind) {
            Some(LinkKind::Bridge { stp: false, forward_delay: 0 }) => return link,
            Some(LinkKind::Bridge { .. }) => {
                self.push(Op::SetBridge { link: spec.name.clone() });
                return link;
            }
            Some(_) => {
                self.push(Op::DeleteLink { link: spec.name.clone(), why: "it is no bridge".to_owned() });
            }
            None => {}
        }
        self.push(Op::CreateBridge { link: spec.name.clone() });
        None
    }

    /// The VLAN interface that is there (inner none: it is yet to be made); outer none = it cannot be had.
    fn vlan(&mut self, name: &str, bond: &str, spec: &BridgeSpec) -> Option<Option<&'a Link>> {
        let observed = self.observed;
        let below = observed.by_name(bond).map(|link| link.index);
        match observed.by_name(name) {
            Some(link) if link.kind == LinkKind::Physical => {
                self.problem(format!("a NIC of this host is named {name}, as the VLAN interface"));
                return None;
            }
            Some(link) => {
                let on_bond = link.parent.is_some() && link.parent == below;
                if link.kind == LinkKind::Vlan(spec.vlan) && on_bond && !self.new_bond {
                    return Some(Some(link));
                }
                // With the bond its VLANs go.
                if !(self.new_bond && on_bond) {
                    let why = format!("it is not VLAN {} on {bond}", spec.vlan);
                    self.push(Op::DeleteLink { link: name.to_owned(), why });
                }
            }
            None => {}
        }
        self.push(Op::CreateVlan { link: name.to_owned(), parent: bond.to_owned(), id: spec.vlan });
        Some(None)
    }

    fn storage(&mut self, spec: &StorageLink) {
        let Some(nic) = self.observed.nic(spec.mac) else {
            return self.problem(format!(
                "storage network {}: its NIC {} is no NIC of this host, which has {}",
                spec.network,
                spec.mac,
                self.observed.macs()
            ));
        };
        let name = nic.name.clone();
        if nic.master.is_some() {
            self.push(Op::Release { link: name.clone() });
        }
        self.sysctl(sysctl::rp_filter(&name), true);
        self.sysctl(sysctl::accept_ra(&name), true);
        if nic.mtu != spec.mtu {
            self.push(Op::SetMtu { link: name.clone(), mtu: spec.mtu });
        }
        if !nic.up {
            self.push(Op::Up { link: name.clone() });
        }
        self.addresses(&name, Some(nic), &[spec.address]);
        let route = |to: Ipv4Net, gateway: Option<Ipv4Addr>| RouteSpec {
            table: spec.table,
            to,
            gateway,
            link: name.clone(),
            source: Some(spec.address.addr()),
            metric: 0,
        };
        let mut wanted = vec![route(spec.address.trunc(), None)];
        wanted.extend(spec.gateway.map(|gateway| route(default(), Some(gateway))));
        let in_table = self.observed.routes.iter().filter(|route| route.table == spec.table);
        let present: Vec<RouteSpec> = in_table.map(|route| self.spec_of(route)).collect();
        self.routes(present, wanted, nic.up);
        let rule = rule_of(spec);
        if !self
            .observed
            .rules
            .iter()
            .any(|r| (r.priority, r.from, r.table) == (rule.priority, rule.from, rule.table))
        {
            self.push(Op::AddRule(rule));
        }
    }

    fn stale_rules(&mut self) {
        let wanted: Vec<RuleSpec> = self.wanted.storage.iter().map(rule_of).collect();
        for rule in &self.observed.rules {
            let rule = RuleSpec { priority: rule.priority, from: rule.from, table: rule.table };
            if (RULES_FROM..2 * RULES_FROM).contains(&rule.priority) && !wanted.contains(&rule) {
                self.push(Op::DelRule(rule));
            }
        }
    }
}

fn rule_of(spec: &StorageLink) -> RuleSpec {
    RuleSpec {
        priority: RULES_FROM + spec.table,
        from: Ipv4Net::new(spec.address.addr(), 32).ok(),
        table: spec.table,
    }
}

/// `0.0.0.0/0`.
pub(crate) fn default() -> Ipv4Net {
    Ipv4Net::default()
}

#[cfg(test)]
mod tests;
