//! `DZ013`: an address is one interface's own.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;
use std::net::Ipv4Addr;

pub(super) const LINT: Lint = Lint {
    code: "DZ013",
    name: "duplicate-address",
    about: "no two hosts, BMCs, gateways, portals or appliances share an address, and none lies in a DHCP pool",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut used: Vec<(Ipv4Addr, _, String)> = Vec::new();
    for (network, path) in plan.networks() {
        if let Some(address) = network.gateway {
            used.push((address, path.key("gateway"), format!("gateway of {}", network.name)));
        }
        if let Some(address) = network.appliance {
            used.push((address, path.key("appliance"), format!("the appliance on {}", network.name)));
        }
        for (i, one) in network.reservations.iter().enumerate() {
            let path = path.key("reservations").at(i).key("address");
            used.push((one.address, path, format!("the reservation of {}", one.name)));
        }
    }
    for (storage, path) in plan.storages() {
        for (i, portal) in storage.portals.iter().enumerate() {
            let first_of_it = storage
                .portals
                .iter()
                .take(i)
                .all(|one| one.address != portal.address || one.port == portal.port);
            let shared_server = plan
                .storages()
                .take_while(|(other, _)| other.name != storage.name)
                .any(|(other, _)| other.portals.iter().any(|one| one.address == portal.address));
            if first_of_it && !shared_server {
                used.push((
                    portal.address,
                    path.key("portals").at(i).key("address"),
                    format!("portal of {}", storage.name),
                ));
            }
        }
    }
    for at in plan.hosts() {
        let host = at.host;
        used.push((host.address, at.path.key("address"), format!("host {}", host.name)));
        used.push((
            host.bmc.address,
            at.path.key("bmc").key("address"),
            format!("the BMC of host {}", host.name),
        ));
        for (i, nic) in host.storage_nics.iter().enumerate() {
            let path = at.path.key("storage_nics").at(i).key("address");
            used.push((nic.address, path, format!("{} of host {}", nic.role, host.name)));
        }
    }
    pools(plan, &used, out);
    for (address, places) in shared(used.into_iter()) {
        out.push(twice(
            LINT.code,
            &format!("address {address}"),
            &places,
            "give each interface an address of its own",
        ));
    }
}

fn pools(plan: &Plan<'_>, used: &[(Ipv4Addr, crate::source::Path, String)], out: &mut Vec<Finding>) {
    for (network, path) in plan.networks() {
        let Some(pool) = network.pool else { continue };
        for (address, place, who) in
            used.iter().filter(|(address, ..)| (pool.first..=pool.last).contains(address))
        {
            let message = format!(
                "{address} ({who}) lies in the DHCP pool {} to {} of {}",
                pool.first, pool.last, network.name
            );
            out.push(
                Finding::error(LINT.code, message)
                    .help("move the pool or the address: DHCP would give it to a client as well")
                    .at(place, who.clone())
                    .at(&path.key("pool"), "this pool"),
            );
        }
    }
}
