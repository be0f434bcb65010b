//! `DZ050`: the legs of an 802.3ad bond end on one LACP system: one switch, or members of one stack.

use super::{Lint, Plan};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint =
    Lint { code: "DZ050", name: "lacp-stack", about: "802.3ad legs end on switches of one stack", check };

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.hosts().filter(|at| at.host.bond.mode == dayzero_model::site::BondMode::Lacp) {
        let legs = at.path.key("bond").key("nics");
        let switch =
            |name: &dayzero_model::Name| plan.site.switches.iter().find(|switch| switch.name == *name);
        let Some(first) = at.host.bond.nics.first().and_then(|leg| switch(&leg.port.switch)) else {
            continue;
        };
        for (i, leg) in at.host.bond.nics.iter().enumerate().skip(1) {
            let Some(other) = switch(&leg.port.switch) else { continue };
            if other.name == first.name || (first.stack.is_some() && first.stack == other.stack) {
                continue;
            }
            let stack = |one: &dayzero_model::site::Switch| match &one.stack {
                Some(stack) => format!("stack {stack}"),
                None => "no stack".to_owned(),
            };
            out.push(
                Finding::error(LINT.code, format!("host {}: 802.3ad over {} ({}) and {} ({}), which are no stack", at.host.name, first.name, stack(first), other.name, stack(other)))
                    .help("LACP needs one system at the other end: name one `stack` on both switches if they are one, or use active-backup")
                    .at(&legs.at(i).key("port"), stack(other))
                    .at(&legs.at(0).key("port"), stack(first)),
            );
        }
    }
}
