//! `DZ022`: XenServer's control domain gets at least 2940 MiB (the document's best practice, CTX126531).

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use dayzero_hypervisor::facts;

pub(super) const LINT: Lint = Lint {
    code: "DZ022",
    name: "dom0-memory",
    about: "XenServer's control domain has at least 2940 MiB",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.clusters() {
        let label = facts(at.cluster.hypervisor).label;
        match (facts(at.cluster.hypervisor).min_dom0_memory, at.cluster.dom0_memory_mib) {
            (Some(least), Some(given)) if given < least => out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "cluster {}: {given} for dom0 is {} below the least of {least}",
                        at.cluster.name,
                        dayzero_model::MebiBytes(least.0 - given.0)
                    ),
                )
                .help(format!("write {} or more: it decides how many VMs a host can carry", least.0))
                .at(&at.path.key("dom0_memory_mib"), "too little"),
            ),
            (Some(least), None) => out.push(
                Finding::error(
                    LINT.code,
                    format!("cluster {}: {label} needs dom0_memory_mib, at least {least}", at.cluster.name),
                )
                .help(format!("add `dom0_memory_mib: {}` to the cluster", least.0))
                .at(&at.path.key("hypervisor"), format!("{label}, and no dom0_memory_mib")),
            ),
            (None, Some(_)) => out.push(
                Finding::error(
                    LINT.code,
                    format!("cluster {}: {label} has no dom0_memory_mib", at.cluster.name),
                )
                .help("remove this line: it is for XenServer")
                .at(&at.path.key("dom0_memory_mib"), "nothing reads this"),
            ),
            _ => {}
        }
    }
}
