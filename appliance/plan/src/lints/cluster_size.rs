//! `DZ024`: clusters have hosts, and not more hosts or VMs than the hypervisor's own limits.

use super::{Lint, Plan, count};
use crate::diagnostic::Finding;
use dayzero_hypervisor::facts;

pub(super) const LINT: Lint = Lint {
    code: "DZ024",
    name: "cluster-size",
    about: "a cluster has hosts, and stays within the hypervisor's documented limits (a warning)",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.clusters() {
        let (facts, hosts) = (facts(at.cluster.hypervisor), at.cluster.hosts.len());
        if hosts == 0 {
            out.push(
                Finding::warning(LINT.code, format!("cluster {} has no hosts", at.cluster.name))
                    .help("add its hosts, or remove it")
                    .at(&at.path.key("name"), "empty"),
            );
        }
        if let Some(most) = facts.max_hosts_per_cluster.filter(|most| hosts > *most as usize) {
            out.push(
                Finding::warning(
                    LINT.code,
                    format!(
                        "cluster {} has {}; {} clusters are advised up to {most}",
                        at.cluster.name,
                        count(hosts, "host"),
                        facts.label
                    ),
                )
                .help("make several clusters of it")
                .at(&at.path.key("name"), "many hosts"),
            );
        }
        if let Some(most) = facts.max_vms_per_host.filter(|most| at.cluster.vms_per_host > *most) {
            out.push(
                Finding::warning(
                    LINT.code,
                    format!(
                        "cluster {}: {} VMs a host; CloudStack's table of limits for {} says {most}",
                        at.cluster.name, at.cluster.vms_per_host, facts.label
                    ),
                )
                .help(format!("write {most} or less, or be sure that your release carries more"))
                .at(&at.path.key("vms_per_host"), format!("above {most}")),
            );
        }
    }
}
