//! `DZ021`: the cluster's hypervisor may use its primary storage, by the document's table or our own marked rows.

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use dayzero_hypervisor::{facts, matrix};

pub(super) const LINT: Lint = Lint {
    code: "DZ021",
    name: "storage-matrix",
    about: "hypervisor × primary storage is a pair that the document's table or Dayzero's own rows accept",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.clusters() {
        for (i, name) in at.cluster.primary_storage.iter().enumerate() {
            let Some((storage, path)) = plan.storages().find(|(one, _)| one.name == *name) else { continue };
            let hypervisor = at.cluster.hypervisor;
            let verdict = matrix::primary_storage(hypervisor, storage.kind, storage.layout);
            if verdict.accepted {
                continue;
            }
            let kinds: Vec<_> =
                matrix::usable_storage(hypervisor).into_iter().map(matrix::plan_word).collect();
            let label = facts(hypervisor).label;
            let help = match kinds.as_slice() {
                [] => format!("no primary storage is known to work with {label}"),
                kinds => format!("{label} takes: {}", kinds.join(", ")),
            };
            let place = if storage.layout.is_some() && verdict.answer.is_yes() { "layout" } else { "kind" };
            out.push(
                Finding::error(
                    LINT.code,
                    format!("cluster {} cannot use primary storage {name}: {}", at.cluster.name, verdict.why),
                )
                .help(help)
                .at(&at.path.key("primary_storage").at(i), format!("used by a {label} cluster"))
                .at(&path.key(place), "this storage"),
            );
        }
    }
}
