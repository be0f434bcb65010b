//! `DZ042`: under multipath a storage NIC is not bonded: two paths on one bond are one path.

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use std::collections::BTreeSet;

pub(super) const LINT: Lint =
    Lint { code: "DZ042", name: "mpio-bonded", about: "storage NICs are not bonded under multipath", check };

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let multipath: BTreeSet<_> = plan.multipath_hosts().map(|(at, _)| &at.host.name).collect();
    for at in plan.hosts() {
        let host = at.host;
        for (i, nic) in host.storage_nics.iter().enumerate() {
            let path = at.path.key("storage_nics").at(i);
            if nic.bonded == Some(true) && multipath.contains(&host.name) {
                out.push(
                    Finding::error(
                        LINT.code,
                        format!(
                            "host {}: storage NIC {} is bonded, and its cluster's storage is multipath",
                            host.name, nic.role
                        ),
                    )
                    .help("remove `bonded`: multipath needs each NIC by itself, in its own subnet")
                    .at(&path.key("bonded"), "bonded"),
                );
            }
            let Some(leg) = host.bond.nics.iter().position(|leg| leg.mac == nic.mac) else { continue };
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "host {}: NIC {} is storage NIC {} and bond leg {} at once",
                        host.name, nic.mac, nic.role, host.bond.nics[leg].role
                    ),
                )
                .help("storage paths and the pod bond need NICs of their own: a host has four")
                .at(&path.key("mac"), "storage NIC")
                .at(&at.path.key("bond").key("nics").at(leg).key("mac"), "bond leg"),
            );
        }
    }
}
