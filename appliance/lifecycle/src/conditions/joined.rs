//! Joined: the host is in its cluster with measured capacity, and it is there.

use super::agent_or_wait;
use crate::action::Action;
use crate::cause::cause;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::site::Hypervisor;

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let (host, cluster) = (&s.placed.host.name, &s.placed.cluster.name);
    if let Some(at) = s.facts.lost {
        return Outcome::Failed(cause(
            "host-lost",
            "the host went away: its power is off",
            "a running host",
            format!("its BMC says power off, its agent is gone since {at}"),
            format!("find out why; after power on it joins again by itself (or `dayzero host retry {host}`)"),
        ));
    }
    let Some(capacity) = &s.facts.capacity else {
        return match agent_or_wait(s, true) {
            Some(wait) => wait,
            None => Outcome::work(Action::Measure, "capacity to be measured"),
        };
    };
    if s.placed.cluster.hypervisor == Hypervisor::Kvm && !capacity.kvm {
        return Outcome::Failed(cause(
            "no-virtualisation",
            "the host cannot run KVM guests",
            "/dev/kvm answers and libvirt offers domain type kvm",
            "it does not",
            format!("switch virtualisation on in the firmware's setup, then `dayzero host retry {host}`"),
        ));
    }
    let evidence = format!(
        "in cluster {cluster} with {} thread(s), {}, {} for VMs, hardware virtualisation {}",
        capacity.threads,
        capacity.cpu,
        capacity.memory,
        if capacity.kvm { "on" } else { "off" }
    );
    Outcome::met(evidence, &(cluster, capacity))
}
