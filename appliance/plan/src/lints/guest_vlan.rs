//! `DZ034`: guests are on a VLAN of their own, and firmware can boot from an untagged management network.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;
use dayzero_model::site::NetworkRole;

pub(super) const LINT: Lint = Lint {
    code: "DZ034",
    name: "guest-vlan",
    about: "guest networks have a VLAN tag of their own; management networks are untagged, so that firmware can PXE",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (network, path) in plan.networks() {
        match (network.role, network.vlan) {
            (NetworkRole::Guest, None) => out.push(
                Finding::error(LINT.code, format!("guest network {} has no `vlan`", network.name))
                    .help("add `vlan:` (1 to 4094): guests share the bond with the management network, and must not reach it")
                    .at(&path.key("name"), "untagged, on the management network's wire"),
            ),
            (NetworkRole::Management, Some(vlan)) => out.push(
                Finding::error(LINT.code, format!("management network {} is tagged with VLAN {vlan}", network.name))
                    .help("remove `vlan` and make it the native VLAN of the access ports: firmware boots untagged")
                    .at(&path.key("vlan"), "PXE cannot tag"),
            ),
            _ => {}
        }
    }
    let tags = plan
        .networks()
        .filter_map(|(network, path)| Some((network.vlan?, path.key("vlan"), network.name.to_string())));
    for (vlan, places) in shared(tags) {
        out.push(twice(LINT.code, &format!("VLAN {vlan}"), &places, "give each network a VLAN of its own"));
    }
}
