//! `DZ032`: hosts, BMCs, storage NICs, portals, the appliance and DHCP pools lie within their networks.

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use crate::source::Path;
use dayzero_model::site::Network;
use std::net::Ipv4Addr;

pub(super) const LINT: Lint = Lint {
    code: "DZ032",
    name: "address-outside",
    about: "addresses of hosts, BMCs, storage NICs, portals, the appliance and pools lie within their network",
    check,
};

/// What is wrong with an address on a network, after the name of what has it.
pub(super) fn problem(address: Ipv4Addr, network: &Network) -> Option<String> {
    let cidr = network.cidr;
    if !cidr.contains(&address) {
        return Some(format!("is {address}, outside {cidr} ({} to {})", cidr.network(), cidr.broadcast()));
    }
    let whole = cidr.prefix_len() >= 31;
    match address {
        _ if whole => None,
        one if one == cidr.network() => Some(format!("is {address}, the network address of {cidr}")),
        one if one == cidr.broadcast() => Some(format!("is {address}, the broadcast address of {cidr}")),
        _ => None,
    }
}

/// The first host address of a network.
pub(super) fn example(network: &Network) -> Ipv4Addr {
    network.cidr.hosts().next().unwrap_or(network.cidr.network())
}

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let site = plan.site;
    let mut place = |who: String, address: Ipv4Addr, network: &Network, path: Path| {
        if let Some(problem) = problem(address, network) {
            out.push(
                Finding::error(LINT.code, format!("the address of {who} {problem}"))
                    .help(format!("write an address of network {}, or correct its prefix", network.name))
                    .at(&path, format!("not on {}", network.name)),
            );
        }
    };
    for (network, path) in plan.networks() {
        if let Some(appliance) = network.appliance {
            place(format!("the appliance on {}", network.name), appliance, network, path.key("appliance"));
        }
        for (i, one) in network.reservations.iter().enumerate() {
            let path = path.key("reservations").at(i).key("address");
            place(format!("{} on {}", one.name, network.name), one.address, network, path);
        }
        if let Some(pool) = network.pool {
            let pool_path = path.key("pool");
            place(
                format!("the first client of {}'s pool", network.name),
                pool.first,
                network,
                pool_path.key("first"),
            );
            place(
                format!("the last client of {}'s pool", network.name),
                pool.last,
                network,
                pool_path.key("last"),
            );
        }
    }
    for (storage, path) in plan.storages() {
        for (i, portal) in storage.portals.iter().enumerate() {
            if let Some(network) = site.network(&portal.network) {
                let who = format!("portal {} of {}", i + 1, storage.name);
                place(who, portal.address, network, path.key("portals").at(i).key("address"));
            }
        }
    }
    for at in plan.hosts() {
        let host = at.host;
        if let Some(network) = site.network(&at.pod.network) {
            place(format!("host {}", host.name), host.address, network, at.path.key("address"));
        }
        if let Some(network) = site.network(&at.pod.bmc_network) {
            let path = at.path.key("bmc").key("address");
            place(format!("the BMC of host {}", host.name), host.bmc.address, network, path);
        }
        for (i, nic) in host.storage_nics.iter().enumerate() {
            if let Some(network) = site.network(&nic.network) {
                let path = at.path.key("storage_nics").at(i).key("address");
                place(format!("{} of host {}", nic.role, host.name), nic.address, network, path);
            }
        }
    }
    for (network, path) in plan.networks() {
        let Some(pool) = network.pool.filter(|pool| pool.first > pool.last) else { continue };
        out.push(
            Finding::error(
                LINT.code,
                format!(
                    "the pool of {} ends at {} before it begins at {}",
                    network.name, pool.last, pool.first
                ),
            )
            .help("exchange `first` and `last`")
            .at(&path.key("pool"), "empty"),
        );
    }
}
