//! Network boot: what a client asked, and what is to be answered.

use crate::ids::{BootId, HostName};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Client system architecture (RFC 4578 section 2.1, IANA's registry), as far as an iPXE binary is built for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// 0: x86 BIOS.
    Bios,
    /// 7 or 9: x86-64 UEFI.
    UefiX64,
    /// 6: x86 UEFI of 32 bits.
    UefiX86,
    /// 11: arm64 UEFI.
    UefiArm64,
    /// 15: x86 UEFI of 32 bits, by HTTP.
    UefiX86Http,
    /// 16 or 17: x86-64 UEFI, by HTTP.
    UefiX64Http,
    /// 19: arm64 UEFI, by HTTP.
    UefiArm64Http,
    /// Any other code.
    Other(u16),
}

/// Who a client is, by the plan. Answered by control, asked by DHCP for each client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A planned BMC: its reservation, always.
    Bmc {
        /// Host it manages.
        host: HostName,
        /// Its address.
        address: Ipv4Addr,
    },
    /// A NIC of a planned host.
    Host {
        /// The host.
        host: HostName,
        /// Its management address.
        address: Ipv4Addr,
        /// An open boot window.
        window: Option<BootWindow>,
        /// Its planned SMBIOS UUID, which its firmware tells by option 97.
        uuid: Option<String>,
    },
    /// Another machine of the plan that has an address reserved: a switch, a power strip.
    Fixed {
        /// Its name.
        name: HostName,
        /// Its address.
        address: Ipv4Addr,
    },
    /// A VM of ours on a guest network; address reserved, or from the pool.
    Vm {
        /// Its name.
        name: crate::ids::Name,
        /// Reserved address.
        address: Option<Ipv4Addr>,
    },
    /// Nobody in the plan.
    Unknown,
}

/// An open boot window: this host may boot the discovery image now. It closes when the agent has enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootWindow {
    /// This boot.
    pub boot: BootId,
    /// MAC that may boot: any pod NIC of the host.
    pub host: HostName,
}

/// What iPXE is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootAction {
    /// Load kernel and initramfs.
    Discovery {
        /// This boot.
        boot: BootId,
        /// Kernel command line; every token is checked by the script builder.
        cmdline: Vec<String>,
    },
    /// Leave the firmware to its next boot device, at once.
    LocalDisk,
    /// Nothing for this client.
    Refuse,
}
