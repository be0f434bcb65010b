//! The rules of a cluster that are not capacity: overcommitment, thresholds, what is kept free for a failed host.

use dayzero_model::site::{Cluster, Failover};
use serde::{Deserialize, Serialize};

/// Shares of capacity, in percent, above which a cluster takes no new VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Of the cluster's CPU, overcommitted.
    pub cpu_percent: u32,
    /// Of the cluster's memory.
    pub memory_percent: u32,
    /// Of a primary storage's size.
    pub storage_percent: u32,
}

impl Default for Thresholds {
    /// The anchor's defaults (`cluster.*.allocated.capacity.disablethreshold`, `pool.storage.allocated.capacity…`): 85 %.
    fn default() -> Self {
        Self { cpu_percent: 85, memory_percent: 85, storage_percent: 85 }
    }
}

/// A cluster's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// CPU overcommitment in percent: 100 = none.
    pub cpu_overcommit_percent: u32,
    /// Thresholds.
    pub thresholds: Thresholds,
    /// Most VMs on one host.
    pub vms_per_host: u32,
    /// What is kept free.
    pub failover: Failover,
    /// Most VMs in the cluster, if the plan says less than (N-1) x `vms_per_host`.
    pub vm_cap: Option<u32>,
}

impl Policy {
    /// The rules that the plan gives a cluster; CPU is overcommitted four times, the rest is the anchor's default.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            cpu_overcommit_percent: 400,
            thresholds: Thresholds::default(),
            vms_per_host: cluster.vms_per_host,
            failover: cluster.failover,
            vm_cap: cluster.vm_cap,
        }
    }

    /// Most VMs that a cluster of `hosts` member hosts may hold: (N-1) x the per-host limit, or the plan's lower cap.
    pub fn vm_cap(&self, hosts: usize) -> u64 {
        let counted = match self.failover {
            Failover::NMinusOne => hosts.saturating_sub(1),
            Failover::None => hosts,
        };
        let most = counted as u64 * u64::from(self.vms_per_host);
        self.vm_cap.map_or(most, |cap| most.min(u64::from(cap)))
    }
}
