//! `DZ023`: a cluster of N hosts holds at most (N-1) × the per-host limit (the document's rule), and a cluster of one
//! host says that it keeps nothing free.

use super::{Lint, Plan, count};
use crate::diagnostic::Finding;
use dayzero_model::site::Failover;

pub(super) const LINT: Lint = Lint {
    code: "DZ023",
    name: "vm-cap",
    about: "the VM cap is at most (N-1) × the per-host limit; a cluster of one host says `failover: none`",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.clusters() {
        let (cluster, hosts) = (at.cluster, at.cluster.hosts.len());
        let limit = u64::from(cluster.vms_per_host);
        let kept = if cluster.failover == Failover::NMinusOne { 1 } else { 0 };
        if cluster.failover == Failover::NMinusOne && hosts == 1 {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("cluster {} has 1 host: (N-1) × {limit} = 0 VMs could run", cluster.name),
                )
                .help("write `failover: none` if nobody is to take over when this host fails, or add a host")
                .at(&at.path.key("failover"), "n-1 of one host is none"),
            );
            continue;
        }
        let most = (hosts as u64).saturating_sub(kept) * limit;
        if let Some(cap) = cluster.vm_cap.filter(|cap| u64::from(*cap) > most) {
            let n = if kept == 1 { format!("({hosts}-1)") } else { hosts.to_string() };
            let message = format!("cluster {}: vm_cap {cap} is above {n} × {limit} = {most}", cluster.name);
            let help = if kept == 1 {
                format!(
                    "with {} and one that may fail, at most {most} VMs find a place: lower vm_cap, or leave it out",
                    count(hosts, "host")
                )
            } else {
                format!("{} take at most {most} VMs: lower vm_cap, or leave it out", count(hosts, "host"))
            };
            out.push(
                Finding::error(LINT.code, message)
                    .help(help)
                    .at(&at.path.key("vm_cap"), format!("at most {most}"))
                    .at(&at.path.key("vms_per_host"), "per host"),
            );
        }
    }
}
