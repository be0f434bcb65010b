//! `DZ015`: hosts lie within their rack, and not in one another.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint = Lint {
    code: "DZ015",
    name: "rack-units",
    about: "no two hosts fill one rack unit, and none lies above its rack",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let units = plan
        .hosts()
        .map(|at| ((&at.host.rack, at.host.u), at.path.key("u"), format!("host {}", at.host.name)));
    for ((rack, u), places) in shared(units) {
        out.push(twice(
            LINT.code,
            &format!("rack {rack}, unit {u}"),
            &places,
            "write the unit that each host is screwed to, counted from the bottom",
        ));
    }
    for at in plan.hosts() {
        let Some(rack) = at.pod.racks.iter().find(|rack| rack.name == at.host.rack) else { continue };
        if at.host.u > rack.units {
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "host {} is at unit {} of rack {}, which has {} units",
                        at.host.name, at.host.u, rack.name, rack.units
                    ),
                )
                .help("correct the unit, or the rack's `units`")
                .at(&at.path.key("u"), "above the rack"),
            );
        }
    }
}
