//! `DZ020`: all hosts of a cluster run one hypervisor (the document's rule).

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use dayzero_hypervisor::facts;

pub(super) const LINT: Lint = Lint {
    code: "DZ020",
    name: "mixed-hypervisors",
    about: "all hosts of a cluster run the cluster's hypervisor",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for cluster in plan.clusters() {
        let wanted = cluster.cluster.hypervisor;
        for (i, host) in cluster.cluster.hosts.iter().enumerate() {
            let Some(other) = host.hypervisor.filter(|other| *other != wanted) else { continue };
            let (wanted, other) = (facts(wanted).label, facts(other).label);
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "host {} runs {other}, but its cluster {} runs {wanted}",
                        host.name, cluster.cluster.name
                    ),
                )
                .help(format!(
                    "a cluster has one hypervisor: remove this line, or move the host to a cluster of {other}"
                ))
                .at(&cluster.path.key("hosts").at(i).key("hypervisor"), other)
                .at(&cluster.path.key("hypervisor"), format!("the cluster's: {wanted}")),
            );
        }
    }
}
