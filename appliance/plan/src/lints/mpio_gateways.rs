//! `DZ041`: each subnet of a multipath storage has its own gateway (the document's rule for iSCSI).

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use std::collections::BTreeSet;

pub(super) const LINT: Lint = Lint {
    code: "DZ041",
    name: "mpio-gateways",
    about: "each subnet of a multipath storage has its own gateway",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for (storage, path) in plan.storages().filter(|(storage, _)| storage.multipath) {
        for (i, portal) in storage.portals.iter().enumerate() {
            let Some((network, at)) = plan.networks().find(|(one, _)| one.name == portal.network) else {
                continue;
            };
            if network.gateway.is_none() && told.insert(&network.name) {
                out.push(
                    Finding::error(LINT.code, format!("storage network {} carries a path of {} and has no gateway", network.name, storage.name))
                        .help(format!("add `gateway:` with the router on {}: each path has its own routing table, and needs its own gateway", network.cidr))
                        .at(&at.key("name"), "no gateway")
                        .at(&path.key("portals").at(i).key("network"), "a path of it"),
                );
            }
        }
    }
}
