//! What is served where. Checked once, at the start.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bytes::Bytes;
use dayzero_model::Name;
use dayzero_model::boot::Arch;
use dayzero_model::site::{AddressRange, NetworkRole};

/// An interface and the network on it.
#[derive(Clone, Debug)]
pub struct ServedInterface {
    /// Device name, such as `mgmt0`.
    pub device: String,
    /// Our address there: the server identifier, and what TFTP and HTTP listen on.
    pub address: Ipv4Addr,
    /// Prefix length of the network.
    pub prefix: u8,
    /// The network's name in the plan.
    pub network: Name,
    /// What it carries: `Management` gets DHCP, RA, TFTP and HTTP boot; `Bmc` and `Guest` DHCP alone; `Storage` nothing.
    pub role: NetworkRole,
    /// Router told to clients.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers told to clients.
    pub dns: Vec<Ipv4Addr>,
    /// Domain told to clients.
    pub domain: Option<String>,
    /// MTU told to clients, where it is not 1500.
    pub mtu: Option<u16>,
    /// Addresses for clients without a reservation; none: no such client is answered.
    pub pool: Option<LeasePool>,
}

/// A dynamic pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasePool {
    /// First to last address.
    pub range: AddressRange,
    /// Clients that nobody planned get one too (else VMs of ours alone).
    pub open: bool,
}

impl ServedInterface {
    /// Netmask of `prefix`.
    pub fn mask(&self) -> Ipv4Addr {
        let bits = u32::from(self.prefix.min(32));
        Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0))
    }

    /// Whether an address lies on this network and is one of a host.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.mask());
        let (ours, theirs) = (u32::from(self.address), u32::from(address));
        let host = theirs & !mask;
        ours & mask == theirs & mask && (self.prefix >= 31 || (host != 0 && host != !mask))
    }

    /// The network's broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !u32::from(self.mask()))
    }

    /// Whether loaders and scripts are served here.
    pub fn boots(&self) -> bool {
        self.role == NetworkRole::Management
    }
}

/// Our iPXE by architecture: names in `PxeConfig::tftp`.
#[derive(Clone, Debug)]
pub struct Loaders {
    /// x86 BIOS.
    pub bios: Option<String>,
    /// x86-64 UEFI.
    pub uefi_x64: Option<String>,
    /// arm64 UEFI.
    pub uefi_arm64: Option<String>,
}

impl Default for Loaders {
    fn default() -> Self {
        Self { bios: Some("undionly.kpxe".into()), uefi_x64: Some("snponly.efi".into()), uefi_arm64: None }
    }
}

impl Loaders {
    /// The loader for an architecture. A PXE client that does not say is an old BIOS one.
    pub fn of(&self, arch: Option<Arch>) -> Option<&str> {
        match arch {
            None | Some(Arch::Bios) => self.bios.as_deref(),
            Some(Arch::UefiX64 | Arch::UefiX64Http) => self.uefi_x64.as_deref(),
            Some(Arch::UefiArm64) => self.uefi_arm64.as_deref(),
            Some(Arch::Other(_)) => None,
        }
    }

    /// Whether a TFTP name is one of our loaders.
    pub fn is_loader(&self, name: &str) -> bool {
        [&self.bios, &self.uefi_x64, &self.uefi_arm64].into_iter().any(|l| l.as_deref() == Some(name))
    }
}

/// Files of HTTP boot, on disk.
#[derive(Clone, Debug, Default)]
pub struct BootFiles {
    /// What `/boot/file/<name>` means. Names are of `A-Z a-z 0-9 . _ -` and do not begin with a dot.
    pub files: BTreeMap<String, PathBuf>,
    /// Name of the discovery kernel in `files`.
    pub kernel: String,
    /// Name of the discovery initramfs in `files`.
    pub initrd: String,
    /// Root of `/images/…`: manifests and chunks, nothing secret.
    pub images: Option<PathBuf>,
}

/// Times told to DHCP clients, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct DhcpTimes {
    /// Lease of a reservation.
    pub reserved: u32,
    /// Lease from a pool.
    pub pool: u32,
}

impl Default for DhcpTimes {
    fn default() -> Self {
        Self { reserved: 24 * 3600, pool: 3600 }
    }
}

/// Ports; others than the standard ones are for tests.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// DHCP server (67).
    pub dhcp: u16,
    /// TFTP (69).
    pub tftp: u16,
    /// HTTP boot (8080).
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { dhcp: 67, tftp: 69, http: 8080 }
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default)]
pub struct PxeConfig {
    /// Where to serve.
    pub interfaces: Vec<ServedInterface>,
    /// Loaders by architecture.
    pub loaders: Loaders,
    /// What TFTP serves, by name, from memory (UEFI HTTP boot gets the same).
    pub tftp: BTreeMap<String, Bytes>,
    /// What HTTP serves.
    pub boot: BootFiles,
    /// Lease times.
    pub times: DhcpTimes,
    /// Ports.
    pub ports: Ports,
}

/// A configuration that cannot work, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A loader is named but not among the TFTP files.
    #[error(
        "the loader '{0}' is not among the files that TFTP serves: add it, or leave its architecture out"
    )]
    LoaderMissing(String),
    /// The kernel or initramfis not among the files.
    #[error("'{0}' is to be booted but is not among the boot files: add it to them")]
    FileMissing(String),
    /// A name that cannot stand in a URL or script.
    #[error("boot file name '{0}': use A-Z, a-z, 0-9, '.', '_' and '-', and do not begin with '.'")]
    FileName(String),
    /// Our own address is not one of the network.
    #[error("{device}: {address}/{prefix} is no host address of its network")]
    Address {
        /// Device.
        device: String,
        /// Address.
        address: Ipv4Addr,
        /// Prefix.
        prefix: u8,
    },
    /// A pool outside the network, or the wrong way round, or too big.
    #[error(
        "{device}: the pool {first} to {last} must lie inside the network, first before last, at most 65536 addresses"
    )]
    Pool {
        /// Device.
        device: String,
        /// First.
        first: Ipv4Addr,
        /// Last.
        last: Ipv4Addr,
    },
    /// The same device twice.
    #[error("{0} is listed twice")]
    Twice(String),
}

/// Whether a name can stand in a URL path and in a script as it is.
pub(crate) fn plain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl PxeConfig {
    /// Checks what can be checked without the network.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut devices = std::collections::BTreeSet::new();
        for interface in &self.interfaces {
            check_interface(interface)?;
            if !devices.insert(&interface.device) {
                return Err(ConfigError::Twice(interface.device.clone()));
            }
        }
        if !self.interfaces.iter().any(ServedInterface::boots) {
            return Ok(());
        }
        let loaders = [&self.loaders.bios, &self.loaders.uefi_x64, &self.loaders.uefi_arm64];
        if let Some(name) = loaders.into_iter().flatten().find(|name| !self.tftp.contains_key(*name)) {
            return Err(ConfigError::LoaderMissing(name.clone()));
        }
        if let Some(name) = self.boot.files.keys().chain(self.tftp.keys()).find(|name| !plain_name(name)) {
            return Err(ConfigError::FileName(name.clone()));
        }
        let booted = [&self.boot.kernel, &self.boot.initrd];
        match booted.into_iter().find(|name| !self.boot.files.contains_key(*name)) {
            Some(name) => Err(ConfigError::FileMissing(name.clone())),
            None => Ok(()),
        }
    }
}

fn check_interface(interface: &ServedInterface) -> Result<(), ConfigError> {
    let device = interface.device.clone();
    if interface.prefix > 32 || !interface.holds(interface.address) {
        return Err(ConfigError::Address { device, address: interface.address, prefix: interface.prefix });
    }
    if let Some(LeasePool { range: AddressRange { first, last }, .. }) = interface.pool {
        let inside = interface.holds(first) && interface.holds(last) && first <= last;
        if !inside || u32::from(last) - u32::from(first) >= 65536 {
            return Err(ConfigError::Pool { device, first, last });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn interface(role: NetworkRole) -> ServedInterface {
        ServedInterface {
            device: "mgmt0".into(),
            address: Ipv4Addr::new(10, 77, 0, 2),
            prefix: 24,
            network: "mgmt".parse().unwrap(),
            role,
            gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
            dns: vec![],
            domain: Some("lab.example".into()),
            mtu: None,
            pool: None,
        }
    }

    pub(crate) fn config() -> PxeConfig {
        let loaders =
            [("undionly.kpxe", Bytes::from_static(b"bios")), ("snponly.efi", Bytes::from_static(b"efi"))];
        let files = [("vmlinuz", "/k"), ("initrd.img", "/i")];
        PxeConfig {
            interfaces: vec![interface(NetworkRole::Management)],
            tftp: loaders.map(|(n, b)| (n.to_owned(), b)).into(),
            boot: BootFiles {
                files: files.map(|(n, p)| (n.to_owned(), p.into())).into(),
                kernel: "vmlinuz".into(),
                initrd: "initrd.img".into(),
                images: None,
            },
            ..PxeConfig::default()
        }
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(config().check(), Ok(()));
        type Break = fn(&mut PxeConfig);
        let cases: Vec<(Break, &str)> = vec![
            (|c| drop(c.tftp.remove("snponly.efi")), "snponly.efi"),
            (|c| drop(c.boot.files.remove("vmlinuz")), "vmlinuz"),
            (|c| drop(c.boot.files.insert("a b".into(), "/x".into())), "'a b'"),
            (|c| drop(c.boot.files.insert("../b".into(), "/x".into())), "'../b'"),
            (|c| c.interfaces[0].address = Ipv4Addr::new(10, 77, 0, 255), "10.77.0.255/24"),
            (|c| c.interfaces.push(interface(NetworkRole::Guest)), "twice"),
            (
                |c| {
                    let range = AddressRange {
                        first: Ipv4Addr::new(10, 77, 0, 9),
                        last: Ipv4Addr::new(10, 77, 1, 9),
                    };
                    c.interfaces[0].pool = Some(LeasePool { range, open: false });
                },
                "pool",
            ),
        ];
        for (fault, text) in cases {
            let mut broken = config();
            fault(&mut broken);
            let said = broken.check().expect_err(text).to_string();
            assert!(said.contains(text), "{said}");
        }
    }

    #[test]
    fn a_network_holds_its_hosts_alone() {
        let interface = interface(NetworkRole::Management);
        for (address, want) in [
            ([10, 77, 0, 1], true),
            ([10, 77, 0, 0], false),
            ([10, 77, 0, 255], false),
            ([10, 77, 1, 1], false),
        ] {
            assert_eq!(interface.holds(Ipv4Addr::from(address)), want);
        }
        assert_eq!(interface.mask(), Ipv4Addr::new(255, 255, 255, 0));
    }
}
