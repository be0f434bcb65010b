//! What is served where. Checked once, at the start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dayzero_model::boot::{Arch, Chain};
use dayzero_model::site::{AddressRange, DhcpMode, Network, NetworkRole, Site};
use dayzero_model::{Name, Sha256};

use crate::late::LateFiles;

/// An IPv4 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Prefix {
    /// Any address of it.
    pub address: Ipv4Addr,
    /// Its length, 0 to 32.
    pub len: u8,
}

impl Ipv4Prefix {
    /// Its netmask.
    pub fn mask(&self) -> Ipv4Addr {
        let bits = u32::from(self.len.min(32));
        Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0))
    }

    /// Whether an address lies in it, whatever it is there.
    pub fn covers(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.mask());
        u32::from(self.address) & mask == u32::from(address) & mask
    }

    /// Whether an address lies in it and is one of a host.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.mask());
        let host = u32::from(address) & !mask;
        self.covers(address) && (self.len >= 31 || (host != 0 && host != !mask))
    }

    /// Its broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !u32::from(self.mask()))
    }
}

/// A network whose clients are served: what they are told.
#[derive(Clone, Debug)]
pub struct ServedNetwork {
    /// Its name in the plan.
    pub name: Name,
    /// What it carries: `Management` boots; `Bmc` and `Guest` get DHCP alone; `Storage` nothing.
    pub role: NetworkRole,
    /// Its prefix.
    pub prefix: Ipv4Prefix,
    /// Who gives addresses there.
    pub mode: DhcpMode,
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
    /// Relays that may bring its clients, as they stand in `giaddr`.
    pub relays: Vec<Ipv4Addr>,
    /// Addresses that these relays send from, beside those.
    pub relay_sources: Vec<IpAddr>,
    /// IPv6 prefix, at most 96 bits long; a machine's IPv6 address ends with its IPv4 address.
    pub prefix6: Option<Ipv6Prefix>,
}

/// An IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Prefix {
    /// Its first address.
    pub address: Ipv6Addr,
    /// Its length, 0 to 96.
    pub len: u8,
}

impl Ipv6Prefix {
    /// The IPv6 address of the machine that has this IPv4 address.
    pub fn of(&self, address: Ipv4Addr) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.address) | u128::from(u32::from(address)))
    }

    /// Whether an address lies in it.
    pub fn covers(&self, address: Ipv6Addr) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.len.min(128))).unwrap_or(0);
        u128::from(self.address) & mask == u128::from(address) & mask
    }
}

/// The names that DNS answers to.
#[derive(Clone, Debug, Default)]
pub struct NameZone {
    /// The site's domain.
    pub domain: String,
    /// Names in it, with their addresses.
    pub names: Vec<(Name, Vec<IpAddr>)>,
    /// Prefixes whose addresses have names.
    pub prefixes: Vec<Ipv4Prefix>,
    /// The same of IPv6.
    pub prefixes6: Vec<Ipv6Prefix>,
}

impl NameZone {
    /// Of a plan: hosts, their BMCs as `<host>-bmc`, and reservations of management and BMC networks.
    pub fn planned(site: &Site) -> Self {
        let named = |network: &&Network| matches!(network.role, NetworkRole::Management | NetworkRole::Bmc);
        let both = |network: Option<&Network>, address: Ipv4Addr| {
            let v6 = network.and_then(|network| network.address6(address));
            std::iter::once(IpAddr::V4(address)).chain(v6.map(IpAddr::V6)).collect::<Vec<_>>()
        };
        let mut names = Vec::new();
        for placed in site.hosts() {
            let host = placed.host;
            names.push((host.name.clone(), both(site.network(&placed.pod.network), host.address)));
            // A host's name of 60 characters leaves no room for its BMC's.
            if let Ok(bmc) = format!("{}-bmc", host.name).parse() {
                names.push((bmc, both(site.network(&placed.pod.bmc_network), host.bmc.address)));
            }
        }
        let mut zone = Self { domain: site.domain.clone(), names, ..Self::default() };
        for network in site.networks.iter().filter(named) {
            let fixed = network.reservations.iter();
            zone.names.extend(fixed.map(|one| (one.name.clone(), both(Some(network), one.address))));
            let ServedNetwork { prefix, prefix6, .. } = ServedNetwork::planned(network, &site.domain);
            zone.prefixes.push(prefix);
            zone.prefixes6.extend(prefix6);
        }
        zone
    }
}

impl ServedNetwork {
    /// A network of which clients are told nothing but their address.
    pub fn new(name: Name, role: NetworkRole, prefix: Ipv4Prefix) -> Self {
        Self {
            name,
            role,
            prefix,
            mode: DhcpMode::Serve,
            gateway: None,
            dns: Vec::new(),
            domain: None,
            mtu: None,
            pool: None,
            relays: Vec::new(),
            relay_sources: Vec::new(),
            prefix6: None,
        }
    }

    /// As the plan has it; `domain` is the site's.
    pub fn planned(network: &Network, domain: &str) -> Self {
        let prefix = Ipv4Prefix { address: network.cidr.network(), len: network.cidr.prefix_len() };
        Self {
            mode: network.dhcp,
            gateway: network.gateway,
            dns: network.dns.clone(),
            domain: Some(domain.to_owned()),
            mtu: u16::try_from(network.mtu).ok().filter(|mtu| *mtu != 1500),
            pool: network.pool.map(|range| LeasePool { range, open: network.open_pool }),
            relays: network.relays.clone(),
            relay_sources: network.relay_sources.clone(),
            prefix6: network.cidr6.map(|net| Ipv6Prefix { address: net.network(), len: net.prefix_len() }),
            ..Self::new(network.name.clone(), network.role, prefix)
        }
    }

    /// Whether loaders and scripts are served here.
    pub fn boots(&self) -> bool {
        self.role == NetworkRole::Management
    }
}

/// An interface and the network on it.
#[derive(Clone, Debug)]
pub struct ServedInterface {
    /// Device name, such as `mgmt0`.
    pub device: String,
    /// Our address there: the server identifier, and what TFTP, HTTP and DNS listen on. Where the network has an IPv6
    /// prefix, they listen on [`ServedInterface::address6`] too.
    pub address: Ipv4Addr,
    /// Its network.
    pub network: ServedNetwork,
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
    /// Our IPv6 address there, which follows from the plan as each machine's does; none: the network has no prefix.
    pub fn address6(&self) -> Option<Ipv6Addr> {
        self.network.prefix6.map(|prefix| prefix.of(self.address))
    }

    /// Whether loaders and scripts are served here.
    pub fn boots(&self) -> bool {
        self.network.boots()
    }

    /// Whether names are served here: the plan tells this network's clients to ask us.
    pub fn names(&self) -> bool {
        let role = matches!(self.network.role, NetworkRole::Management | NetworkRole::Bmc);
        role && self.network.dns.contains(&self.address)
    }

    /// Whether anything but DHCP listens here by IPv6, if we have an address.
    pub(crate) fn listens6(&self) -> bool {
        self.boots() || self.names()
    }
}

/// What firmware loads by architecture: names in `PxeConfig::tftp`; under Secure Boot: in `PxeConfig::late`.
#[derive(Clone, Debug)]
pub struct Loaders {
    /// x86 BIOS.
    pub bios: Option<String>,
    /// x86 UEFI of 32 bits.
    pub uefi_x86: Option<String>,
    /// x86-64 UEFI.
    pub uefi_x64: Option<String>,
    /// arm64 UEFI.
    pub uefi_arm64: Option<String>,
    /// x86-64 UEFI that enforces Secure Boot.
    pub secure: SecureLoaders,
}

/// What firmware that enforces Secure Boot loads; each of the last two asks for `grubx64.efi` beside itself.
#[derive(Clone, Debug, Default)]
pub struct SecureLoaders {
    /// The signed discovery image.
    pub uki: Option<String>,
    /// shim before the signed discovery image.
    pub mok: Option<String>,
    /// shim before GRUB.
    pub shim: Option<String>,
}

/// What a newer iPXE asks for beside itself, before its DHCP. We have none, and that is no failure.
pub(crate) const AUTOEXEC: &str = "autoexec.ipxe";

impl Default for Loaders {
    fn default() -> Self {
        Self {
            bios: Some("undionly.kpxe".into()),
            uefi_x86: None,
            uefi_x64: Some("snponly.efi".into()),
            uefi_arm64: None,
            secure: SecureLoaders::default(),
        }
    }
}

impl Loaders {
    /// Our iPXE for arm64 UEFI, where there is one: the file that Debian 13's package has. Not every directory of loaders
    /// has it, so it is not among the defaults.
    pub const ARM64: &str = "ipxe-arm64.efi";

    /// The loader for an architecture. A PXE client that does not say is an old BIOS one. Only x86-64 UEFI has others for
    /// Secure Boot; BIOS knows none. Debian's signed GRUB has no HTTP, so shim before it is for PXE alone.
    pub fn of(&self, arch: Option<Arch>, chain: Chain) -> Option<&str> {
        let secure = matches!(arch, Some(Arch::UefiX64 | Arch::UefiX64Http));
        match (chain, arch) {
            (Chain::Uki, _) if secure => return self.secure.uki.as_deref(),
            (Chain::Mok, _) if secure => return self.secure.mok.as_deref(),
            (Chain::Shim, Some(Arch::UefiX64)) => return self.secure.shim.as_deref(),
            (Chain::Shim, _) if secure => return None,
            _ => {}
        }
        match arch {
            None | Some(Arch::Bios) => self.bios.as_deref(),
            Some(Arch::UefiX86 | Arch::UefiX86Http) => self.uefi_x86.as_deref(),
            Some(Arch::UefiX64 | Arch::UefiX64Http) => self.uefi_x64.as_deref(),
            Some(Arch::UefiArm64 | Arch::UefiArm64Http) => self.uefi_arm64.as_deref(),
            Some(Arch::Other(_)) => None,
        }
    }

    /// Whether a TFTP name is one of our iPXE loaders.
    pub fn is_loader(&self, name: &str) -> bool {
        self.ipxe().any(|loader| loader == name)
    }

    /// Our iPXE, for each architecture.
    pub fn ipxe(&self) -> impl Iterator<Item = &str> {
        [&self.bios, &self.uefi_x86, &self.uefi_x64, &self.uefi_arm64]
            .into_iter()
            .filter_map(Option::as_deref)
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
    /// Boot server of proxyDHCP (4011).
    pub boot_server: u16,
    /// TFTP (69).
    pub tftp: u16,
    /// HTTP boot (8080).
    pub http: u16,
    /// DNS (53).
    pub dns: u16,
    /// HTTP boot over TLS (8445).
    pub https: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { dhcp: 67, boot_server: 4011, tftp: 69, http: 8080, https: 8445, dns: 53 }
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default)]
pub struct PxeConfig {
    /// Where to serve.
    pub interfaces: Vec<ServedInterface>,
    /// Networks that we have no interface on: their clients come by relays, to any interface.
    pub relayed: Vec<ServedNetwork>,
    /// Names that DNS answers to, on the interfaces whose networks are told so.
    pub names: NameZone,
    /// Loaders by architecture.
    pub loaders: Loaders,
    /// What TFTP serves, by name, from memory (UEFI HTTP boot gets the same).
    pub tftp: BTreeMap<String, Bytes>,
    /// The same for files that come later, those of `loaders.secure` among them.
    pub late: LateFiles,
    /// What HTTP serves.
    pub boot: BootFiles,
    /// Certificate and ciphers of HTTP boot over TLS; none: it is not served.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// SHA-256 of the certificate that ends the chain which `tls` shows to loaders; none: they are told HTTP alone.
    pub loader_trust: Option<Sha256>,
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
        "network {network}: the pool {first} to {last} must lie inside the network, first before last, at most 65536 addresses"
    )]
    Pool {
        /// Network.
        network: Name,
        /// First.
        first: Ipv4Addr,
        /// Last.
        last: Ipv4Addr,
    },
    /// The same device twice, or the same network.
    #[error("{0} is listed twice")]
    Twice(String),
    /// A network without an interface and without a relay.
    #[error("network {0} has no interface of ours and no relay: list its relays in the plan")]
    Unreachable(Name),
}

/// Whether a name can stand in a URL path and in a script as it is.
pub(crate) fn plain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a name is made of plain ones: loaders ask for what lies beside them.
pub(crate) fn plain_path(name: &str) -> bool {
    name.split('/').count() <= 4 && name.split('/').all(plain_name)
}

impl PxeConfig {
    /// What loaders must trust to fetch by HTTPS; none: nothing is served to them so.
    pub(crate) fn https(&self) -> Option<Sha256> {
        self.loader_trust.filter(|_| self.tls.is_some())
    }

    /// All networks, those that we have an interface on first.
    pub fn networks(&self) -> impl Iterator<Item = &ServedNetwork> {
        self.interfaces.iter().map(|interface| &interface.network).chain(&self.relayed)
    }

    /// The boot server's port, where it is served: beside another DHCP server, on an interface's own network or on one
    /// whose clients come to it by relays.
    pub(crate) fn boot_server(&self, interface: &ServedInterface) -> Option<u16> {
        let beside = |network: &ServedNetwork| network.mode == DhcpMode::Proxy && network.boots();
        let far = interface.boots() && self.relayed.iter().any(beside);
        (far || interface.network.mode == DhcpMode::Proxy).then_some(self.ports.boot_server)
    }

    /// Checks what can be checked without the network.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_networks()?;
        self.check_files()
    }

    /// What is of the plan.
    pub(crate) fn check_networks(&self) -> Result<(), ConfigError> {
        let mut devices = std::collections::BTreeSet::new();
        for interface in &self.interfaces {
            check_interface(interface)?;
            if !devices.insert(&interface.device) {
                return Err(ConfigError::Twice(interface.device.clone()));
            }
        }
        let mut names = std::collections::BTreeSet::new();
        for network in self.networks() {
            check_pool(network)?;
            if !names.insert(&network.name) {
                return Err(ConfigError::Twice(format!("network {}", network.name)));
            }
        }
        match self.relayed.iter().find(|network| network.relays.is_empty()) {
            Some(network) => Err(ConfigError::Unreachable(network.name.clone())),
            None => Ok(()),
        }
    }

    fn check_files(&self) -> Result<(), ConfigError> {
        if !self.interfaces.iter().any(ServedInterface::boots) {
            return Ok(());
        }
        if let Some(name) = self.loaders.ipxe().find(|name| !self.tftp.contains_key(*name)) {
            return Err(ConfigError::LoaderMissing(name.to_owned()));
        }
        let files = self.boot.files.keys().filter(|name| !plain_name(name));
        if let Some(name) = files.chain(self.tftp.keys().filter(|name| !plain_path(name))).next() {
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
    let Ipv4Prefix { len, .. } = interface.network.prefix;
    if len > 32 || !interface.network.prefix.holds(interface.address) {
        let device = interface.device.clone();
        return Err(ConfigError::Address { device, address: interface.address, prefix: len });
    }
    Ok(())
}

fn check_pool(network: &ServedNetwork) -> Result<(), ConfigError> {
    if let Some(LeasePool { range: AddressRange { first, last }, .. }) = network.pool {
        let inside = network.prefix.holds(first) && network.prefix.holds(last) && first <= last;
        if !inside || u32::from(last) - u32::from(first) >= 65536 {
            return Err(ConfigError::Pool { network: network.name.clone(), first, last });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn interface(role: NetworkRole) -> ServedInterface {
        let prefix = Ipv4Prefix { address: Ipv4Addr::new(10, 77, 0, 0), len: 24 };
        ServedInterface {
            device: "mgmt0".into(),
            address: Ipv4Addr::new(10, 77, 0, 2),
            network: ServedNetwork {
                gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
                domain: Some("lab.example".into()),
                ..ServedNetwork::new("mgmt".parse().unwrap(), role, prefix)
            },
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
            (|c| c.interfaces.push(interface(NetworkRole::Guest)), "mgmt0 is listed twice"),
            (|c| c.relayed.push(interface(NetworkRole::Guest).network), "network mgmt is listed twice"),
            (
                |c| {
                    let mut far = interface(NetworkRole::Guest).network;
                    far.name = "far".parse().unwrap();
                    c.relayed.push(far);
                },
                "network far has no interface",
            ),
            (
                |c| {
                    let range = AddressRange {
                        first: Ipv4Addr::new(10, 77, 0, 9),
                        last: Ipv4Addr::new(10, 77, 1, 9),
                    };
                    c.interfaces[0].network.pool = Some(LeasePool { range, open: false });
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
    fn the_boot_servers_port_is_open_where_clients_of_another_server_come() {
        let ours = |config: &PxeConfig| config.boot_server(&config.interfaces[0]);
        let mut config = config();
        assert_eq!(ours(&config), None);
        let mut far = interface(NetworkRole::Management).network;
        (far.name, far.relays) = ("far".parse().unwrap(), vec![Ipv4Addr::new(10, 88, 0, 1)]);
        config.relayed = vec![far];
        assert_eq!(ours(&config), None, "we give the addresses there");
        config.relayed[0].mode = DhcpMode::Proxy;
        assert_eq!(ours(&config), Some(4011), "its clients come to an interface whose own network we serve");
        config.interfaces[0].network.role = NetworkRole::Bmc;
        assert_eq!(ours(&config), None, "nothing boots here");
        config.interfaces = vec![interface(NetworkRole::Management)];
        config.relayed.clear();
        config.interfaces[0].network.mode = DhcpMode::Proxy;
        assert_eq!(ours(&config), Some(4011));
    }

    #[test]
    fn a_network_holds_its_hosts_alone() {
        let prefix = interface(NetworkRole::Management).network.prefix;
        for (address, want) in [
            ([10, 77, 0, 1], true),
            ([10, 77, 0, 0], false),
            ([10, 77, 0, 255], false),
            ([10, 77, 1, 1], false),
        ] {
            assert_eq!(prefix.holds(Ipv4Addr::from(address)), want);
        }
        assert!(prefix.covers(Ipv4Addr::new(10, 77, 0, 0)));
        assert_eq!(prefix.mask(), Ipv4Addr::new(255, 255, 255, 0));
    }
}
