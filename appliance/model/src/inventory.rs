//! What a host says of its own hardware, as the agent read it. Tolerant: what could not be read is absent, and why
//! stands in `partial_errors`.

use crate::ids::{MacAddr, Wwn};
use crate::units::{Bytes, MebiBytes, Mhz};
use serde::{Deserialize, Serialize};

/// By which firmware interface the running kernel was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootMode {
    /// Legacy BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// One host's hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// SMBIOS identity.
    pub system: SystemIdentity,
    /// BIOS or UEFI.
    pub boot_mode: BootMode,
    /// Firmware vendor, version, date (SMBIOS type 0).
    pub firmware: Firmware,
    /// Processors.
    pub cpu: Cpu,
    /// Memory that the kernel sees.
    pub memory: MebiBytes,
    /// Memory modules (SMBIOS type 17), populated ones.
    pub dimms: Vec<Dimm>,
    /// Whole disks.
    pub disks: Vec<Disk>,
    /// Physical NICs.
    pub nics: Vec<Nic>,
    /// LLDP neighbours, one a NIC that heard one.
    pub neighbours: Vec<Neighbour>,
    /// Kernel release that observed this.
    pub kernel: String,
    /// Sections that could not be read, and why.
    #[serde(default)]
    pub partial_errors: Vec<String>,
}

/// SMBIOS types 1 and 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemIdentity {
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// System serial.
    pub serial: Option<String>,
    /// UUID as `/sys/class/dmi/id/product_uuid` shows it, lower case.
    pub uuid: Option<String>,
    /// Base board serial.
    pub board_serial: Option<String>,
}

/// SMBIOS type 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Vendor.
    pub vendor: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Release date as the firmware spells it.
    pub date: Option<String>,
}

/// Processors of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Model name.
    pub model: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores over all sockets.
    pub cores: u32,
    /// Hardware threads over all sockets.
    pub threads: u32,
    /// Clock of one core.
    pub speed: Mhz,
    /// `svm`, `vmx` or absent.
    pub virtualization: Option<String>,
}

/// One memory module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimm {
    /// Slot name.
    pub locator: String,
    /// Size.
    pub size: MebiBytes,
    /// Serial number.
    pub serial: Option<String>,
    /// Part number.
    pub part: Option<String>,
}

/// One whole disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Kernel name of this boot, such as `sda`; not an identity.
    pub kernel_name: String,
    /// Serial number.
    pub serial: Option<String>,
    /// World Wide Name.
    pub wwn: Option<Wwn>,
    /// Size.
    pub size: Bytes,
    /// Logical block size, bytes.
    pub logical_block: u32,
    /// Spinning.
    pub rotational: bool,
    /// Bus: `scsi`, `ata`, `nvme`, `virtio`.
    pub bus: String,
    /// Model text.
    pub model: Option<String>,
    /// What the disk holds: signatures found (partition table, filesystem, LVM, …); empty = no signature.
    pub signatures: Vec<String>,
}

/// One physical NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Kernel name of this boot; not an identity.
    pub kernel_name: String,
    /// Permanent MAC.
    pub mac: MacAddr,
    /// PCI address, such as `0000:00:10.0`.
    pub slot: Option<String>,
    /// Driver.
    pub driver: Option<String>,
    /// Mbit/s when the link is up and the driver tells.
    pub speed_mbit: Option<u32>,
    /// Carrier.
    pub link: bool,
}

/// One LLDP neighbour (IEEE 802.1AB).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Our NIC.
    pub nic_mac: MacAddr,
    /// Neighbour's system name.
    pub system_name: String,
    /// Neighbour's port id.
    pub port_id: String,
    /// Neighbour's port description.
    pub port_description: Option<String>,
}
