//! `DZ033`: a network is used for what its role says, and the appliance stands where it must.

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use crate::source::Path;
use dayzero_model::Name;
use dayzero_model::site::NetworkRole::{self, Bmc, Guest, Management, Storage};

pub(super) const LINT: Lint = Lint {
    code: "DZ033",
    name: "network-role",
    about: "a network is used for its role; the appliance has an address on management and BMC networks",
    check,
};

fn word(role: NetworkRole) -> &'static str {
    match role {
        Management => "management",
        Bmc => "bmc",
        Storage => "storage",
        Guest => "guest",
    }
}

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut need = |name: &Name, allowed: &[NetworkRole], user: String, path: Path| {
        let Some((network, at)) = plan.networks().find(|(one, _)| one.name == *name) else { return };
        if !allowed.contains(&network.role) {
            let (role, wanted) =
                (word(network.role), allowed.iter().map(|role| word(*role)).collect::<Vec<_>>().join(" or "));
            out.push(
                Finding::error(
                    LINT.code,
                    format!("network {name} is used for {user}, but its role is {role}, not {wanted}"),
                )
                .help(format!("name a network of role {wanted}"))
                .at(&path, format!("a {role} network"))
                .at(&at.key("role"), "its role"),
            );
        }
    };
    for at in plan.pods() {
        need(
            &at.pod.network,
            &[Management],
            format!("the hosts of pod {}", at.pod.name),
            at.path.key("network"),
        );
        need(
            &at.pod.bmc_network,
            &[Bmc],
            format!("the BMCs of pod {}", at.pod.name),
            at.path.key("bmc_network"),
        );
    }
    for at in plan.clusters() {
        if let Some(guest) = &at.cluster.guest_network {
            need(
                guest,
                &[Guest],
                format!("the VMs of cluster {}", at.cluster.name),
                at.path.key("guest_network"),
            );
        }
    }
    for (storage, path) in plan.storages() {
        for (i, portal) in storage.portals.iter().enumerate() {
            let allowed: &[NetworkRole] = if storage.multipath { &[Storage] } else { &[Storage, Management] };
            need(
                &portal.network,
                allowed,
                format!("storage {}", storage.name),
                path.key("portals").at(i).key("network"),
            );
        }
    }
    for at in plan.hosts() {
        for (i, nic) in at.host.storage_nics.iter().enumerate() {
            let path = at.path.key("storage_nics").at(i).key("network");
            need(&nic.network, &[Storage], format!("{} of host {}", nic.role, at.host.name), path);
        }
    }
    appliance(plan, out);
}

fn appliance(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (network, path) in plan.networks() {
        let used = match network.role {
            Management => {
                plan.site.zones.iter().flat_map(|zone| &zone.pods).any(|pod| pod.network == network.name)
            }
            Bmc => {
                plan.site.zones.iter().flat_map(|zone| &zone.pods).any(|pod| pod.bmc_network == network.name)
            }
            Guest => network.pool.is_some(),
            Storage => false,
        };
        if used && network.appliance.is_none() && network.relays.is_empty() {
            let why = match network.role {
                Bmc => "it gives the BMCs their addresses and speaks to them",
                Guest => "it gives VMs their addresses from the pool",
                _ => "hosts boot from it and their agents connect to it",
            };
            out.push(
                Finding::error(LINT.code, format!("network {} has no `appliance` address", network.name))
                    .help(format!(
                        "add `appliance:` with the appliance's own address on {}, or `relays:`: {why}",
                        network.cidr
                    ))
                    .at(&path.key("name"), "no appliance here"),
            );
        }
    }
}
