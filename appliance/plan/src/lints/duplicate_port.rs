//! `DZ014`: one cable a switch port.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint =
    Lint { code: "DZ014", name: "duplicate-port", about: "no two NICs are cabled to one switch port", check };

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut ports = Vec::new();
    for at in plan.hosts() {
        let host = at.host;
        for (list, nics) in [
            (
                at.path.key("bond").key("nics"),
                host.bond.nics.iter().map(|nic| (&nic.role, &nic.port)).collect::<Vec<_>>(),
            ),
            (
                at.path.key("storage_nics"),
                host.storage_nics.iter().map(|nic| (&nic.role, &nic.port)).collect(),
            ),
        ] {
            for (i, (role, port)) in nics.into_iter().enumerate() {
                ports.push((port, list.at(i).key("port"), format!("{role} of host {}", host.name)));
            }
        }
    }
    for (port, places) in shared(ports.into_iter()) {
        out.push(twice(
            LINT.code,
            &format!("switch port {port}"),
            &places,
            "a port takes one cable: write where each cable really goes",
        ));
    }
}
