//! Links that the plan does not know: named in the report, left alone, and a problem where they are in the way.

use crate::observed::{Link, LinkKind, Observed};
use crate::plan::{MAIN, default, vlan_name};
use dayzero_model::network::HostNetwork;
use ipnet::Ipv4Net;

/// Links that the plan makes or uses, and what hangs on its bridges (a VM's taps).
pub(crate) fn our_links<'a>(
    observed: &'a Observed,
    wanted: &'a HostNetwork,
) -> impl Iterator<Item = &'a Link> {
    observed.links.iter().filter(|link| is_ours(observed, wanted, link))
}

fn is_ours(observed: &Observed, wanted: &HostNetwork, link: &Link) -> bool {
    let mac = link.permanent.or(link.mac);
    let planned_nic = link.kind == LinkKind::Physical
        && mac.is_some_and(|mac| {
            wanted.bond.legs.contains(&mac) || wanted.storage.iter().any(|storage| storage.mac == mac)
        });
    let on_our_bridge = link
        .master
        .and_then(|master| observed.by_index(master))
        .is_some_and(|master| wanted.bridges.iter().any(|bridge| bridge.name == master.name));
    let by_name = link.name == wanted.bond.name
        || wanted
            .bridges
            .iter()
            .any(|bridge| link.name == bridge.name || link.name == vlan_name(&wanted.bond.name, bridge.vlan));
    planned_nic || by_name || (on_our_bridge && link.kind != LinkKind::Physical)
}

fn foreign<'a>(observed: &'a Observed, wanted: &'a HostNetwork) -> impl Iterator<Item = &'a Link> {
    observed.links.iter().filter(|link| link.kind != LinkKind::Loopback && !is_ours(observed, wanted, link))
}

/// One line a foreign link.
pub fn lines(observed: &Observed, wanted: &HostNetwork) -> Vec<String> {
    let line = |link: &Link| {
        let kind = match &link.kind {
            LinkKind::Physical => "NIC",
            LinkKind::Loopback => "loopback",
            LinkKind::Bond(_) => "bond",
            LinkKind::Vlan(_) => "VLAN",
            LinkKind::Bridge { .. } => "bridge",
            LinkKind::Tap => "tap",
            LinkKind::Other(kind) => kind.as_str(),
        };
        let mac = link.permanent.or(link.mac).map(|mac| format!(" {mac}")).unwrap_or_default();
        format!("{} ({kind}{mac}, {})", link.name, if link.up { "up" } else { "down" })
    };
    foreign(observed, wanted).map(line).collect()
}

/// Where foreign links are in the way of the plan.
pub fn problems(observed: &Observed, wanted: &HostNetwork) -> Vec<String> {
    let planned: Vec<Ipv4Net> =
        std::iter::once(wanted.management).chain(wanted.storage.iter().map(|link| link.address)).collect();
    let overlaps = |net: Ipv4Net| {
        planned.iter().map(Ipv4Net::trunc).find(|plan| plan.contains(&net.trunc()) || net.contains(plan))
    };
    let mut problems = Vec::new();
    for link in foreign(observed, wanted) {
        for address in observed.addresses.iter().filter(|address| address.link == link.index) {
            if let Some(plan) = overlaps(address.address) {
                problems.push(format!(
                    "{} is not in the plan and has the address {}, inside the planned prefix {plan}: remove it or plan it",
                    link.name, address.address
                ));
            }
        }
        for route in
            observed.routes.iter().filter(|route| route.link == Some(link.index) && route.table == MAIN)
        {
            if route.to == default() {
                if wanted.gateway.is_some() {
                    problems.push(format!(
                        "a default route leaves by {}, which is not in the plan: remove it",
                        link.name
                    ));
                }
            } else if let (Some(plan), false) = (overlaps(route.to), route.by_kernel) {
                problems.push(format!(
                    "the route {} by {}, which is not in the plan, overlaps the planned prefix {plan}: remove it",
                    route.to, link.name
                ));
            }
        }
    }
    problems
}
