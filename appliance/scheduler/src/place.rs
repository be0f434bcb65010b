//! One VM, one host: best fit by memory, ties by name; or a refusal that names each inequality.

use crate::cluster::{ClusterView, HostView, StorageView};
use dayzero_model::units::Mhz;
use dayzero_model::{Bytes, HostName, MebiBytes, Name};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a VM asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Virtual CPUs.
    pub cpus: u32,
    /// MHz that count for each.
    pub mhz: Mhz,
    /// Memory.
    pub memory: MebiBytes,
    /// Root volume.
    pub disk: Bytes,
    /// Only this primary storage; `None` = the fullest that has room. A cluster without storage needs none.
    #[serde(default)]
    pub storage: Option<Name>,
    /// Hosts that it must not go to.
    #[serde(default)]
    pub avoid: Vec<HostName>,
}

impl Request {
    /// The request of a VM of an offering.
    pub fn of(offering: &dayzero_model::site::Offering) -> Self {
        Self {
            cpus: offering.cpus,
            mhz: Mhz(offering.mhz),
            memory: offering.memory_mib,
            disk: offering.disk,
            storage: None,
            avoid: Vec::new(),
        }
    }

    /// CPU that it holds: CPUs x MHz.
    pub fn cpu(&self) -> Mhz {
        Mhz(u64::from(self.cpus).saturating_mul(self.mhz.0))
    }
}

/// Where a VM goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The host.
    pub host: HostName,
    /// The primary storage of its volume; `None` in a cluster without.
    pub storage: Option<Name>,
    /// Why there, with the numbers.
    pub why: String,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// A host's CPU with overcommitment, MHz.
    HostCpu,
    /// A host's memory, MiB.
    HostMemory,
    /// A host's number of VMs.
    HostVms,
    /// The cluster's number of VMs: (N-1) x the per-host limit, or the plan's cap.
    ClusterVms,
    /// The cluster's CPU up to its threshold, MHz.
    ClusterCpu,
    /// The cluster's memory up to its threshold, MiB.
    ClusterMemory,
    /// A primary storage up to its threshold, bytes.
    Storage,
}

/// `used + asked <= limit` that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inequality {
    /// What is limited, which also gives the unit.
    pub resource: Resource,
    /// Held already.
    pub used: u64,
    /// Asked for.
    pub asked: u64,
    /// Most that may be held.
    pub limit: u64,
}

impl Inequality {
    /// True if it is a real one: used + asked is above the limit.
    pub fn fails(&self) -> bool {
        u128::from(self.used) + u128::from(self.asked) > u128::from(self.limit)
    }

    fn check(resource: Resource, used: u64, asked: u64, limit: u64) -> Option<Self> {
        let inequality = Self { resource, used, asked, limit };
        inequality.fails().then_some(inequality)
    }
}

impl fmt::Display for Inequality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, asked, limit, .. } = self;
        let (what, unit) = match self.resource {
            Resource::HostCpu => ("CPU", " MHz (with overcommitment)"),
            Resource::HostMemory => ("memory", " MiB"),
            Resource::HostVms => ("VMs", " a host"),
            Resource::ClusterVms => ("VMs of the cluster", " (room for a failed host kept free)"),
            Resource::ClusterCpu => ("the cluster's CPU", " MHz (threshold)"),
            Resource::ClusterMemory => ("the cluster's memory", " MiB (threshold)"),
            Resource::Storage => {
                let (used, asked, limit) = (Bytes(*used), Bytes(*asked), Bytes(*limit));
                return write!(f, "storage: {used} used + {asked} asked > {limit} (threshold)");
            }
        };
        write!(f, "{what}: {used} used + {asked} asked > {limit}{unit}")
    }
}

/// Why one host does not take the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRefusal {
    /// The host.
    pub host: HostName,
    /// Why it takes no VM at all now, if so.
    pub closed: Option<String>,
    /// What does not fit.
    pub reasons: Vec<Inequality>,
}

/// Why no host takes the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The cluster.
    pub cluster: Name,
    /// What does not fit the cluster as a whole.
    pub reasons: Vec<Inequality>,
    /// What does not fit each storage that was asked; a name that the cluster does not have has no inequality.
    pub storage: Vec<(Name, Option<Inequality>)>,
    /// Why not each host, by name; empty if the hosts were not the reason.
    pub hosts: Vec<HostRefusal>,
}

impl std::error::Error for Refusal {}

/// Hosts that the text of a refusal shows; the value has all.
const SHOWN: usize = 16;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no room in cluster {}", self.cluster)?;
        for reason in &self.reasons {
            write!(f, "; {reason}")?;
        }
        for (name, reason) in &self.storage {
            match reason {
                Some(reason) => write!(f, "; {name}: {reason}")?,
                None => write!(f, "; it has no primary storage {name}")?,
            }
        }
        for refusal in self.hosts.iter().take(SHOWN) {
            let closed = refusal.closed.iter().cloned();
            let all: Vec<String> = closed.chain(refusal.reasons.iter().map(ToString::to_string)).collect();
            write!(f, "; {}: {}", refusal.host, all.join(", "))?;
        }
        if self.hosts.len() > SHOWN {
            write!(f, "; and {} more hosts", self.hosts.len() - SHOWN)?;
        }
        if self.reasons.is_empty() && self.storage.is_empty() && self.hosts.is_empty() {
            write!(f, "; it has no hosts")?;
        }
        Ok(())
    }
}

/// Chooses a host and a storage for a VM; changes nothing. Cost: the logarithm of the number of hosts, plus the hosts
/// that have the memory and not the CPU or the VM slot.
///
/// # Errors
/// [`Refusal`] with every inequality that fails; boxed, since it names each host.
pub fn place(cluster: &ClusterView, request: &Request) -> Result<Placement, Box<Refusal>> {
    let reasons = cluster_reasons(cluster, request);
    let storage = choose_storage(cluster, request);
    if reasons.is_empty()
        && let Ok(storage) = storage
    {
        let mut open = cluster.open_from(request.memory);
        if let Some(host) = open.find(|host| host_refusal(cluster, host, request).is_none()) {
            let why = why(cluster, host, storage, request);
            return Ok(Placement {
                host: host.name.clone(),
                storage: storage.map(|one| one.name.clone()),
                why,
            });
        }
        let hosts = cluster.hosts().filter_map(|host| host_refusal(cluster, host, request)).collect();
        return Err(Box::new(Refusal {
            cluster: cluster.name().clone(),
            reasons,
            storage: Vec::new(),
            hosts,
        }));
    }
    let storage = storage.err().unwrap_or_default();
    Err(Box::new(Refusal { cluster: cluster.name().clone(), reasons, storage, hosts: Vec::new() }))
}

fn cluster_reasons(cluster: &ClusterView, request: &Request) -> Vec<Inequality> {
    let (held, capacity) = (cluster.held(), cluster.capacity());
    let thresholds = cluster.policy().thresholds;
    [
        Inequality::check(Resource::ClusterVms, cluster.vms(), 1, cluster.vm_cap()),
        Inequality::check(
            Resource::ClusterCpu,
            held.0.0,
            request.cpu().0,
            percent(capacity.0.0, thresholds.cpu_percent),
        ),
        Inequality::check(
            Resource::ClusterMemory,
            held.1.0,
            request.memory.0,
            percent(capacity.1.0, thresholds.memory_percent),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn percent(whole: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

type StorageRefusals = Vec<(Name, Option<Inequality>)>;

/// The fullest storage that has room, ties by name.
fn choose_storage<'c>(
    cluster: &'c ClusterView,
    request: &Request,
) -> Result<Option<&'c StorageView>, StorageRefusals> {
    let asked = |one: &&StorageView| request.storage.as_ref().is_none_or(|name| *name == one.name);
    let refusal = |one: &StorageView| {
        let limit = percent(one.size.0, cluster.policy().thresholds.storage_percent);
        Inequality::check(Resource::Storage, one.used.0, request.disk.0, limit)
    };
    let candidates: Vec<&StorageView> = cluster.storage().iter().filter(asked).collect();
    match (&request.storage, candidates.is_empty()) {
        (Some(name), true) => return Err(vec![(name.clone(), None)]),
        (None, true) => return Ok(None),
        _ => {}
    }
    let fitting = candidates.iter().filter(|one| refusal(one).is_none());
    let best = fitting.min_by_key(|one| (one.size.0.saturating_sub(one.used.0), &one.name));
    match best {
        Some(one) => Ok(Some(one)),
        None => Err(candidates.iter().map(|one| (one.name.clone(), refusal(one))).collect()),
    }
}

fn host_refusal(cluster: &ClusterView, host: &HostView, request: &Request) -> Option<HostRefusal> {
    let policy = cluster.policy();
    let avoided = request.avoid.contains(&host.name).then(|| "the request avoids it".to_owned());
    let closed = host.closed.clone().or(avoided);
    let used = host.used;
    let reasons: Vec<Inequality> = [
        Inequality::check(Resource::HostMemory, used.memory.0, request.memory.0, host.memory.0),
        Inequality::check(Resource::HostCpu, used.cpu.0, request.cpu().0, host.cpu_capacity(policy).0),
        Inequality::check(Resource::HostVms, used.vms.into(), 1, policy.vms_per_host.into()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let fits = closed.is_none() && reasons.is_empty();
    (!fits).then(|| HostRefusal { host: host.name.clone(), closed, reasons })
}

fn why(cluster: &ClusterView, host: &HostView, storage: Option<&StorageView>, request: &Request) -> String {
    let policy = cluster.policy();
    let left = host.free_memory().0.saturating_sub(request.memory.0);
    let mut why = format!(
        "tightest fit by memory: {left} of {} stay free; CPU {} of {}, VM {} of {} on the host, {} of {} in the cluster",
        host.memory,
        host.used.cpu.0.saturating_add(request.cpu().0),
        host.cpu_capacity(policy),
        u64::from(host.used.vms) + 1,
        policy.vms_per_host,
        cluster.vms() + 1,
        cluster.vm_cap(),
    );
    if let Some(storage) = storage {
        let used = Bytes(storage.used.0.saturating_add(request.disk.0));
        why.push_str(&format!("; {}: {used} of {}", storage.name, storage.size));
    }
    why
}

#[cfg(test)]
mod tests;
