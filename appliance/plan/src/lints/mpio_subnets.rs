//! `DZ040`: multipath has two disjoint subnets, at the storage and at each host (the document: two CIDRs).

use super::{Lint, Plan, count};
use crate::diagnostic::Finding;
use dayzero_model::Name;
use std::collections::BTreeSet;

pub(super) const LINT: Lint = Lint {
    code: "DZ040",
    name: "mpio-subnets",
    about: "multipath storage answers on, and each host is wired to, at least two disjoint subnets",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (storage, path) in plan.storages().filter(|(storage, _)| storage.multipath) {
        let networks: BTreeSet<&Name> = storage.portals.iter().map(|portal| &portal.network).collect();
        if needs_portals(storage.kind) && networks.len() < 2 {
            let names = networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "primary storage {} is multipath with {} ({names}); it needs 2",
                        storage.name,
                        count(networks.len(), "subnet")
                    ),
                )
                .help("give it a portal on each of two storage networks, whose prefixes share no address")
                .at(&path.key("portals"), "one subnet is one path")
                .at(&path.key("multipath"), "asks for several"),
            );
        }
    }
    for (at, storage) in plan.multipath_hosts().filter(|(_, storage)| needs_portals(storage.kind)) {
        let portals: BTreeSet<&Name> = storage.portals.iter().map(|portal| &portal.network).collect();
        let wired: BTreeSet<&Name> = at
            .host
            .storage_nics
            .iter()
            .map(|nic| &nic.network)
            .filter(|name| portals.contains(name))
            .collect();
        if portals.len() >= 2 && wired.len() < 2 {
            let portals = portals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "host {} has storage NICs on {} of {}'s subnets ({portals}); multipath needs 2",
                        at.host.name,
                        wired.len(),
                        storage.name
                    ),
                )
                .help("add a storage NIC on each of them, each on its own switch")
                .at(&at.path.key("storage_nics"), format!("{} of 2 paths", wired.len())),
            );
        }
        same_switch(&at, out);
    }
}

fn needs_portals(kind: dayzero_model::site::StorageKind) -> bool {
    kind == dayzero_model::site::StorageKind::Iscsi
}

fn same_switch(at: &super::HostAt<'_>, out: &mut Vec<Finding>) {
    let switches: BTreeSet<&Name> = at.host.storage_nics.iter().map(|nic| &nic.port.switch).collect();
    if let (1, 2.., Some(switch)) = (switches.len(), at.host.storage_nics.len(), switches.first()) {
        out.push(
            Finding::warning(
                LINT.code,
                format!("host {}: all storage paths go through switch {switch}", at.host.name),
            )
            .help("cable the second storage NIC to another switch: this one's failure takes all paths")
            .at(&at.path.key("storage_nics").at(0).key("port"), "here")
            .at(&at.path.key("storage_nics").at(1).key("port"), "and here"),
        );
    }
}
