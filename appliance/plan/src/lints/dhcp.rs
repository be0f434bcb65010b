//! `DZ035`: what a network says of DHCP goes together: pool and mode, relays, reservations that can be recognised.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;
use crate::source::Path;
use dayzero_model::site::{DhcpMode, Network, NetworkRole, Reservation};
use std::net::IpAddr;

pub(super) const LINT: Lint = Lint {
    code: "DZ035",
    name: "dhcp",
    about: "a network's pool, DHCP mode, relays and reservations go together",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let own = own(plan);
    for (network, path) in plan.networks() {
        mode(network, &path, out);
        relays(network, &path, out);
        sources(network, &path, &own, out);
        reservations(network, &path, out);
    }
    let prefixes = plan
        .networks()
        .filter_map(|(one, path)| Some((one.cidr6?, path.key("cidr6"), format!("network {}", one.name))));
    for (prefix, places) in shared(prefixes) {
        let what = format!("IPv6 prefix {prefix}");
        out.push(twice(LINT.code, &what, &places, "give each network an IPv6 prefix of its own"));
    }
}

fn mode(network: &Network, path: &Path, out: &mut Vec<Finding>) {
    let name = &network.name;
    if network.open_pool && network.pool.is_none() {
        out.push(
            Finding::error(LINT.code, format!("network {name} opens a pool that it does not have"))
                .help("add `pool:` with the addresses, or leave `open_pool` out")
                .at(&path.key("open_pool"), "there is no pool"),
        );
    }
    if network.dhcp != DhcpMode::Serve && network.pool.is_some() {
        out.push(
            Finding::error(LINT.code, format!("network {name} has a pool, but another server's DHCP"))
                .help("leave `pool` out, or write `dhcp: serve`")
                .at(&path.key("pool"), "nobody would get these addresses")
                .at(&path.key("dhcp"), "we give no addresses here"),
        );
    }
    if network.dhcp == DhcpMode::Proxy && network.role != NetworkRole::Management {
        out.push(
            Finding::error(LINT.code, format!("network {name} has proxyDHCP, but nothing boots from it"))
                .help("write `dhcp: off` if another server gives its addresses")
                .at(&path.key("dhcp"), "hosts boot from management networks alone")
                .at(&path.key("role"), "its role"),
        );
    }
}

fn relays(network: &Network, path: &Path, out: &mut Vec<Finding>) {
    for (i, relay) in network.relays.iter().enumerate() {
        let here = path.key("relays").at(i);
        if network.relays[..i].contains(relay) {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("relay {relay} is listed twice on network {}", network.name),
                )
                .help("leave one out")
                .at(&here, "again"),
            );
        }
        if network.appliance == Some(*relay) || relay.is_unspecified() {
            out.push(
                Finding::error(LINT.code, format!("relay {relay} of network {} is no relay", network.name))
                    .help("write the address that the relay has on its clients' side")
                    .at(&here, "not a relay's address"),
            );
        }
    }
}

fn sources(network: &Network, path: &Path, own: &[IpAddr], out: &mut Vec<Finding>) {
    let (name, list) = (&network.name, path.key("relay_sources"));
    if network.relays.is_empty() && !network.relay_sources.is_empty() {
        let text = format!("network {name} says what relays send from, but has no relay");
        out.push(
            Finding::error(LINT.code, text)
                .help("add the relay's address to `relays`, or leave `relay_sources` out")
                .at(&list, "of no relay"),
        );
        return;
    }
    for (i, source) in network.relay_sources.iter().enumerate() {
        let here = list.at(i);
        let relay = network.relays.iter().any(|relay| IpAddr::V4(*relay) == *source);
        if relay || network.relay_sources[..i].contains(source) {
            let text = format!("{source} is listed twice among the relays of network {name}");
            out.push(Finding::error(LINT.code, text).help("leave one out").at(&here, "again"));
        }
        if !speaks(*source) || own.contains(source) {
            let text = format!("no relay of network {name} sends from {source}");
            out.push(
                Finding::error(LINT.code, text)
                    .help("write the address that the relay has on our side")
                    .at(&here, "not a relay's address"),
            );
        }
    }
}

/// Whether a machine can send from this address over a router.
fn speaks(address: IpAddr) -> bool {
    let one_link = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(one_link || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The appliance's own addresses.
fn own(plan: &Plan<'_>) -> Vec<IpAddr> {
    let all = |(network, _): (&Network, Path)| {
        let v6 = network.appliance.and_then(|address| network.address6(address)).map(IpAddr::V6);
        network.appliance.map(IpAddr::V4).into_iter().chain(v6)
    };
    plan.networks().flat_map(all).collect()
}

/// What tells a machine, as text.
fn keys(one: &Reservation) -> Vec<(&'static str, String)> {
    let circuit = one.circuit.as_ref().map(|circuit| {
        let remote = circuit.remote.as_ref().map(|remote| format!(" of {remote}")).unwrap_or_default();
        format!("{}{remote}", circuit.id)
    });
    let all = [
        ("mac", one.mac.map(|mac| mac.to_string())),
        ("client_id", one.client_id.as_ref().map(ToString::to_string)),
        ("duid", one.duid.as_ref().map(ToString::to_string)),
        ("circuit", circuit),
    ];
    all.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
}

fn reservations(network: &Network, path: &Path, out: &mut Vec<Finding>) {
    let list = path.key("reservations");
    let mut told = Vec::new();
    for (i, one) in network.reservations.iter().enumerate() {
        let here = list.at(i);
        let keys = keys(one);
        if keys.is_empty() {
            out.push(
                Finding::error(LINT.code, format!("nothing says which machine {} is", one.name))
                    .help("add `mac`, `client_id`, `duid` or `circuit`")
                    .at(&here.key("name"), "not recognisable"),
            );
        }
        if one.circuit.is_some() && network.relays.is_empty() {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("{} is told by a relay's port, but there is no relay", one.name),
                )
                .help(format!("add the relay's address to `relays` of network {}", network.name))
                .at(&here.key("circuit"), "nobody would say this"),
            );
        }
        for key in keys {
            let place = here.key(key.0);
            told.push((key, place, one.name.to_string()));
        }
    }
    for ((key, value), places) in shared(told.into_iter()) {
        let what = format!("{key} {value} on network {}", network.name);
        out.push(twice(LINT.code, &what, &places, "give each reservation something of its own"));
    }
}
