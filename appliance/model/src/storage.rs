//! Shared storage as a host reaches it: iSCSI sessions, multipath devices, volumes.

use crate::ids::{Name, Sha256, Wwn};
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One LUN that a host connects to, with its paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LunSpec {
    /// Primary storage's name in the plan.
    pub storage: Name,
    /// iSCSI target name.
    pub target: String,
    /// The LUN's WWN: the device is found by it alone.
    pub wwn: Wwn,
    /// One path a portal.
    pub paths: Vec<PathSpec>,
    /// Timers that bound a stall.
    pub timers: MultipathTimers,
}

/// One path to a LUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSpec {
    /// The host's own storage NIC.
    pub nic: crate::ids::MacAddr,
    /// Portal address.
    pub portal: Ipv4Addr,
    /// Portal TCP port.
    pub port: u16,
}

/// Seconds after which a dead path is given up: the longest stall is their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultipathTimers {
    /// open-iscsi `noop_out_interval`, s.
    pub noop_interval_s: u32,
    /// open-iscsi `noop_out_timeout`, s.
    pub noop_timeout_s: u32,
    /// multipath `fast_io_fail_tmo`, s.
    pub fast_io_fail_s: u32,
    /// multipath `polling_interval`, s: how soon a path is taken back.
    pub polling_interval_s: u32,
}

impl MultipathTimers {
    /// The longest stall by the configuration's own arithmetic, s.
    pub fn stall_bound_s(&self) -> u32 {
        self.noop_interval_s + self.noop_timeout_s + self.fast_io_fail_s
    }
}

impl Default for MultipathTimers {
    fn default() -> Self {
        Self { noop_interval_s: 1, noop_timeout_s: 2, fast_io_fail_s: 3, polling_interval_s: 2 }
    }
}

/// A LUN as the host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LunReport {
    /// Primary storage's name.
    pub storage: Option<Name>,
    /// The multipath device, `/dev/mapper/…` by WWN.
    pub device: Option<String>,
    /// Size.
    pub size: Bytes,
    /// Paths.
    pub paths: Vec<PathState>,
    /// What is wrong, as sentences; empty = as wanted.
    pub problems: Vec<String>,
}

/// One path as multipathd sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathState {
    /// Portal it leads to.
    pub portal: Ipv4Addr,
    /// Kernel name of the SCSI disk.
    pub kernel_name: String,
    /// Path usable (`active ready running`).
    pub active: bool,
}

/// One volume of a VM on primary storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// LV name: `vol-<vm>`.
    pub name: Name,
    /// Primary storage.
    pub storage: Name,
    /// Size.
    pub size: Bytes,
}

/// What an order that overwrites a volume carries: it is carried out for this plan and on this LUN alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeWarrant {
    /// Hash of the plan that it follows from: the elected host marks the volume with it.
    pub plan_hash: Sha256,
    /// WWN of the multipath device that the volume lies on.
    pub wwn: Wwn,
}
