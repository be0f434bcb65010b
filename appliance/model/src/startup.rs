//! How a running, installed host was started, as it reads it of itself: by which firmware, from which disk, in which order.
//!
//! Text in here comes from firmware: it is shown, never believed beyond what it says of itself.

use crate::ids::Wwn;
use crate::inventory::BootMode;
use serde::{Deserialize, Serialize};

/// What a host's running system reads of its own start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartReport {
    /// Kernel's boot id of this start.
    pub kernel_boot: String,
    /// Firmware.
    pub mode: BootMode,
    /// The disk that holds the running root file system.
    pub root: RootDisk,
    /// UEFI's `BootCurrent`: the entry that started this system.
    #[serde(default)]
    pub current: Option<BootEntry>,
    /// UEFI's `BootOrder`, first one first; empty with BIOS, which tells nobody. At most 64.
    #[serde(default)]
    pub order: Vec<BootEntry>,
    /// What could not be read, as sentences.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// A disk that a running system lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDisk {
    /// Kernel name in this boot.
    pub kernel_name: String,
    /// Serial.
    pub serial: Option<String>,
    /// WWN.
    pub wwn: Option<Wwn>,
    /// GUID of its partition table, lower case; none = it has no table that holds.
    pub disk_guid: Option<String>,
    /// GUID of the root's partition.
    pub root_guid: Option<String>,
    /// GUIDs of all its partitions.
    pub partitions: Vec<String>,
}

/// One entry of UEFI's boot manager (UEFI 2.10 section 3.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootEntry {
    /// Number, as in `Boot0003`.
    pub number: u16,
    /// Its description.
    pub name: String,
    /// Where it leads.
    pub leads: BootDevice,
}

/// Where a boot entry leads, by its device path (UEFI 2.10 section 10.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum BootDevice {
    /// A partition, by its GUID, lower case.
    Partition(String),
    /// A whole drive: the firmware looks for the fallback loader on it.
    Drive,
    /// The network.
    Network,
    /// Something else: the setup, a shell.
    Other,
}

impl std::fmt::Display for BootEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Boot{:04X} {}", self.number, self.name)
    }
}

impl RootDisk {
    /// Whether an entry leads to a partition of this disk.
    pub fn holds(&self, entry: &BootEntry) -> bool {
        matches!(&entry.leads, BootDevice::Partition(guid) if self.partitions.contains(guid))
    }
}

impl StartReport {
    /// The order as one line of text.
    pub fn order_text(&self) -> String {
        match self.mode {
            BootMode::Bios => "BIOS tells none".to_owned(),
            BootMode::Uefi if self.order.is_empty() => "none readable".to_owned(),
            BootMode::Uefi => self.order.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}
