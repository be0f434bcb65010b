//! A cluster as the scheduler sees it: hosts ordered by free memory, what they use, its storage.
//!
//! Invariants: the index always agrees with the hosts; the cluster's sums are kept, not recounted. A lost host and one
//! in maintenance stay members (they count as N, and what they hold stays theirs), but take no VM.

use crate::place::Request;
use crate::policy::Policy;
use dayzero_model::units::Mhz;
use dayzero_model::{Bytes, HostName, MebiBytes, Name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What VMs hold of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU, cores x MHz.
    pub cpu: Mhz,
    /// Memory.
    pub memory: MebiBytes,
    /// VMs.
    pub vms: u32,
}

/// One member host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Measured CPU, cores x MHz, before overcommitment.
    pub cpu: Mhz,
    /// Measured memory that VMs may have: the host's own share is taken off already.
    pub memory: MebiBytes,
    /// What its VMs hold.
    pub used: Usage,
    /// Why it takes no VM now, such as `in maintenance` or `lost since …`; `None` = it does.
    pub closed: Option<String>,
}

/// One primary storage of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageView {
    /// Its name.
    pub name: Name,
    /// Its size.
    pub size: Bytes,
    /// What volumes hold of it, whole (thick).
    pub used: Bytes,
}

/// A host or storage that the cluster does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the cluster has no {kind} named {name}")]
pub struct Unknown {
    /// `host` or `primary storage`.
    pub kind: &'static str,
    /// Its name.
    pub name: Name,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Its name.
    name: Name,
    policy: Policy,
    hosts: BTreeMap<HostName, HostView>,
    /// Hosts that take VMs, by free memory, then name: the best fit is the first that is large enough.
    by_free_memory: BTreeMap<MebiBytes, BTreeSet<HostName>>,
    storage: Vec<StorageView>,
    /// VMs of all members.
    vms: u64,
    /// CPU and memory held, and there before overcommitment, on hosts that take VMs.
    held: (Mhz, MebiBytes),
    there: (Mhz, MebiBytes),
}

impl HostView {
    /// Memory that no VM holds.
    pub fn free_memory(&self) -> MebiBytes {
        MebiBytes(self.memory.0.saturating_sub(self.used.memory.0))
    }

    /// CPU with overcommitment.
    pub fn cpu_capacity(&self, policy: &Policy) -> Mhz {
        overcommitted(self.cpu, policy)
    }
}

fn overcommitted(cpu: Mhz, policy: &Policy) -> Mhz {
    Mhz(u64::try_from(u128::from(cpu.0) * u128::from(policy.cpu_overcommit_percent) / 100)
        .unwrap_or(u64::MAX))
}

impl ClusterView {
    /// A cluster with its hosts and storage; of hosts of one name the last counts.
    pub fn new(
        name: Name,
        policy: Policy,
        hosts: impl IntoIterator<Item = HostView>,
        storage: Vec<StorageView>,
    ) -> Self {
        let mut cluster = Self {
            name,
            policy,
            hosts: BTreeMap::new(),
            by_free_memory: BTreeMap::new(),
            storage,
            vms: 0,
            held: (Mhz(0), MebiBytes(0)),
            there: (Mhz(0), MebiBytes(0)),
        };
        for host in hosts {
            cluster.set_host(host);
        }
        cluster
    }

    /// The cluster's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its rules.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// One host.
    pub fn host(&self, name: &HostName) -> Option<&HostView> {
        self.hosts.get(name)
    }

    /// All member hosts, by name.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = &HostView> {
        self.hosts.values()
    }

    /// Its storage, in the plan's order.
    pub fn storage(&self) -> &[StorageView] {
        &self.storage
    }

    /// VMs on all members, lost and closed ones included.
    pub fn vms(&self) -> u64 {
        self.vms
    }

    /// CPU and memory that VMs hold on the hosts that take VMs.
    pub fn held(&self) -> (Mhz, MebiBytes) {
        self.held
    }

    /// CPU (overcommitted) and memory of the hosts that take VMs.
    pub fn capacity(&self) -> (Mhz, MebiBytes) {
        (overcommitted(self.there.0, &self.policy), self.there.1)
    }

    /// Most VMs that it may hold.
    pub fn vm_cap(&self) -> u64 {
        self.policy.vm_cap(self.hosts.len())
    }

    /// Hosts that take VMs and have at least this much free memory, tightest first, ties by name.
    pub(crate) fn open_from(&self, memory: MebiBytes) -> impl Iterator<Item = &HostView> {
        let fitting = self.by_free_memory.range(memory..).flat_map(|(_, names)| names);
        fitting.filter_map(|name| self.hosts.get(name))
    }

    /// Adds a host, or replaces what is known of it.
    pub fn set_host(&mut self, host: HostView) {
        self.remove_host(&host.name);
        self.count(&host, true);
        self.hosts.insert(host.name.clone(), host);
    }

    /// Takes a host out.
    pub fn remove_host(&mut self, name: &HostName) -> Option<HostView> {
        let host = self.hosts.remove(name)?;
        self.count(&host, false);
        Some(host)
    }

    fn count(&mut self, host: &HostView, add: bool) {
        let turn =
            |sum: &mut u64, by: u64| *sum = if add { sum.saturating_add(by) } else { sum.saturating_sub(by) };
        turn(&mut self.vms, u64::from(host.used.vms));
        if host.closed.is_some() {
            return;
        }
        turn(&mut self.held.0.0, host.used.cpu.0);
        turn(&mut self.held.1.0, host.used.memory.0);
        turn(&mut self.there.0.0, host.cpu.0);
        turn(&mut self.there.1.0, host.memory.0);
        let free = host.free_memory();
        let names = self.by_free_memory.entry(free).or_default();
        if add {
            names.insert(host.name.clone());
        } else {
            names.remove(&host.name);
        }
        if names.is_empty() {
            self.by_free_memory.remove(&free);
        }
    }

    /// Takes what was placed: the host's share and the volume's.
    ///
    /// # Errors
    /// [`Unknown`] if the host or the storage is not there; then nothing is taken.
    pub fn reserve(
        &mut self,
        host: &HostName,
        storage: Option<&Name>,
        request: &Request,
    ) -> Result<(), Unknown> {
        self.adjust(host, storage, request, true)
    }

    /// Gives back what a VM held.
    ///
    /// # Errors
    /// As [`ClusterView::reserve`].
    pub fn release(
        &mut self,
        host: &HostName,
        storage: Option<&Name>,
        request: &Request,
    ) -> Result<(), Unknown> {
        self.adjust(host, storage, request, false)
    }

    fn adjust(
        &mut self,
        host: &HostName,
        storage: Option<&Name>,
        request: &Request,
        take: bool,
    ) -> Result<(), Unknown> {
        let missing = |kind, name: &Name| Unknown { kind, name: name.clone() };
        let volume = match storage {
            None => None,
            Some(name) => Some(
                self.storage
                    .iter()
                    .position(|one| one.name == *name)
                    .ok_or_else(|| missing("primary storage", name))?,
            ),
        };
        let mut view = self.remove_host(host).ok_or_else(|| missing("host", host))?;
        let turn =
            |value: u64, by: u64| if take { value.saturating_add(by) } else { value.saturating_sub(by) };
        view.used.cpu = Mhz(turn(view.used.cpu.0, request.cpu().0));
        view.used.memory = MebiBytes(turn(view.used.memory.0, request.memory.0));
        view.used.vms = if take { view.used.vms.saturating_add(1) } else { view.used.vms.saturating_sub(1) };
        self.set_host(view);
        if let Some(at) = volume {
            self.storage[at].used = Bytes(turn(self.storage[at].used.0, request.disk.0));
        }
        Ok(())
    }
}
