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

/// What leads from a host's firmware to the discovery agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// Our iPXE, which nobody signed: firmware that enforces Secure Boot refuses it.
    #[default]
    #[serde(rename = "off")]
    Ipxe,
    /// One signed file (kernel, initial RAM disk, command line), by the site's certificate in the firmware's own database.
    Uki,
    /// The same file behind Debian's shim, by the site's certificate as a machine owner's key (MOK).
    Mok,
    /// Debian's shim, GRUB and kernel, by Microsoft's and Debian's keys. Nothing checks the initial RAM disk, so nothing
    /// checks the agent.
    Shim,
}

impl Chain {
    /// The file that firmware loads, as our TFTP and HTTP name it; none for iPXE, which has a name by architecture.
    pub fn loader(self) -> Option<&'static str> {
        match self {
            Self::Ipxe => None,
            Self::Uki => Some("uki.efi"),
            Self::Mok => Some("mok/shimx64.efi"),
            Self::Shim => Some("shim/shimx64.efi"),
        }
    }

    /// The file that this loader loads, if it does.
    pub fn second(self) -> Option<&'static str> {
        match self {
            Self::Ipxe | Self::Uki => None,
            Self::Mok => Some("mok/grubx64.efi"),
            Self::Shim => Some("shim/grubx64.efi"),
        }
    }

    /// The chain that a file belongs to, if it is one for Secure Boot.
    pub fn of_file(name: &str) -> Option<Self> {
        let own = |chain: &Self| [chain.loader(), chain.second()].contains(&Some(name));
        [Self::Uki, Self::Mok, Self::Shim].into_iter().find(own)
    }
}

/// What checked the discovery agent before it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentCheck {
    /// The firmware or shim, by the site's signature over kernel, initial RAM disk and command line.
    Signature,
    /// Nothing: Secure Boot ended with the kernel, and the agent is in the initial RAM disk.
    KernelOnly,
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
        /// Its SMBIOS UUID, which its firmware tells by option 97: the plan's, or, where that has none, the one that its BMC
        /// told.
        uuid: Option<String>,
        /// By what it boots.
        chain: Chain,
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
