//! Virtual machines: what is asked for, where it was placed and why, how it fares.

use crate::ids::{HostName, MacAddr, Name, Sha256};
use crate::storage::VolumeSpec;
use crate::units::{MebiBytes, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A VM as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Its name.
    pub name: Name,
    /// Offering's name.
    pub offering: Name,
    /// Template's name.
    pub template: Name,
    /// Cluster.
    pub cluster: Name,
    /// Host that it was placed on.
    pub host: Option<HostName>,
    /// Why there: the scheduler's sentence with its numbers.
    pub why: String,
    /// Its NIC.
    pub mac: MacAddr,
    /// Address from our DHCP.
    pub address: Option<Ipv4Addr>,
    /// Its volume.
    pub volume: Option<VolumeSpec>,
    /// State.
    pub state: VmState,
    /// What it waits for, or what went wrong.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
    /// Last lines of its serial console.
    pub console: Vec<String>,
}

/// State of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Accepted, not placed yet.
    Requested,
    /// Volume is being made.
    Preparing,
    /// Being started.
    Starting,
    /// Runs, seen by the agent.
    Running,
    /// Stopped on purpose.
    Stopped,
    /// Its host went away: not known to run.
    Lost,
    /// Could not be made or started.
    Failed,
}

/// All that an agent needs to make and start a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Its name; also its SMBIOS serial number.
    pub name: Name,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory: MebiBytes,
    /// NIC.
    pub mac: MacAddr,
    /// Bridge on the host.
    pub bridge: String,
    /// Root volume.
    pub volume: VolumeSpec,
}

/// Where a volume's first content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSource {
    /// URL in secondary storage (management network).
    pub url: String,
    /// SHA-256 of the raw image.
    pub sha256: Sha256,
}

/// A VM as its host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmReport {
    /// Its name.
    pub name: Name,
    /// libvirt's state word, such as `running` or `shut off`.
    pub state: String,
    /// Last lines of its serial console, at most 50 of at most 300 characters.
    pub console: Vec<String>,
}
