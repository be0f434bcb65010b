//! The site as planned: zones, pods, clusters, hosts, networks, switches and storage, as `site.yaml` says it.
//!
//! These types are both the plan file's shape and what the store keeps; unknown fields are refused. That names are
//! unique, references resolve and limits hold is checked by `dayzero-plan`'s lints, not here.

use crate::boot::Chain;
use crate::ids::{HostName, MacAddr, Name, OptionBytes, Wwn};
use crate::units::{Bytes, MebiBytes};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The whole plan of one site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The site's name.
    pub name: Name,
    /// DNS domain of the management network, such as `lab.example`.
    pub domain: String,
    /// File that holds the factory credentials of the BMCs, relative to the plan; read at apply, never stored in clear.
    pub secrets: String,
    /// All networks.
    pub networks: Vec<Network>,
    /// All switches that hosts are cabled to.
    pub switches: Vec<Switch>,
    /// Primary storage.
    #[serde(default)]
    pub primary_storage: Vec<PrimaryStorage>,
    /// Secondary storage: templates and ISOs.
    #[serde(default)]
    pub secondary_storage: Vec<SecondaryStorage>,
    /// Sizes of VM that may be asked for.
    #[serde(default)]
    pub offerings: Vec<Offering>,
    /// Templates that VMs start from.
    #[serde(default)]
    pub templates: Vec<Template>,
    /// Zones, each with its pods.
    pub zones: Vec<Zone>,
}

/// What a network carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkRole {
    /// Hosts, the appliance, PXE, secondary storage.
    Management,
    /// The BMCs.
    Bmc,
    /// Hosts to primary storage: one path of MPIO, or NFS over a bond.
    Storage,
    /// Virtual machines.
    Guest,
}

/// One layer-3 network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name.
    pub name: Name,
    /// What it carries.
    pub role: NetworkRole,
    /// Prefix, such as `10.77.0.0/24`.
    pub cidr: Ipv4Net,
    /// Router on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// 802.1Q tag; none = untagged on its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest IP packet, bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// The appliance's own address on it, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appliance: Option<Ipv4Addr>,
    /// Addresses that DHCP may give to clients without a reservation (guest networks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<AddressRange>,
    /// The pool is for clients that nobody planned, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_pool: bool,
    /// What our DHCP does on it.
    #[serde(default, skip_serializing_if = "DhcpMode::is_serve")]
    pub dhcp: DhcpMode,
    /// DHCP relays that may bring its clients: their addresses as they stand in `giaddr`. A network without the
    /// appliance is served through these alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<Ipv4Addr>,
    /// Addresses that these relays send from, where that is not the one in `giaddr`; and by IPv6. One that is an IPv4
    /// address on a network with a `cidr6` stands for its IPv6 address there too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay_sources: Vec<IpAddr>,
    /// IPv6 prefix, at most a /96. A machine's IPv6 address is this prefix with its IPv4 address as the last 32 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr6: Option<Ipv6Net>,
    /// Name servers told to its clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// Addresses of machines that are no planned hosts or BMCs: switches, power strips, controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Reservation>,
}

/// What our DHCP does on a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpMode {
    /// It is the network's DHCP server.
    #[default]
    Serve,
    /// The site's own server gives the addresses; ours says what to boot (proxyDHCP, PXE specification 2.1).
    Proxy,
    /// It answers nobody.
    Off,
}

impl DhcpMode {
    fn is_serve(&self) -> bool {
        *self == DhcpMode::Serve
    }
}

/// An address kept for one machine. Who it is for is said by at least one of `mac`, `client_id`, `duid` and `circuit`;
/// any one of them that fits is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Its name, which DNS answers to as well.
    pub name: HostName,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Its DHCP client identifier (option 61), with the type octet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<OptionBytes>,
    /// Its DHCP unique identifier (DHCPv6, and RFC 4361's client identifier).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duid: Option<OptionBytes>,
    /// The relay's port that it is cabled to: whatever stands there gets the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
}

/// A port of a DHCP relay, as its agent writes it into option 82 (RFC 3046).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circuit {
    /// Agent circuit id (sub-option 1).
    pub id: OptionBytes,
    /// Agent remote id (sub-option 2); none: whichever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<OptionBytes>,
}

fn default_mtu() -> u32 {
    1500
}

impl Network {
    /// The IPv6 address of what has `address` here, where the network has an IPv6 prefix.
    pub fn address6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let prefix = self.cidr6.filter(|prefix| prefix.prefix_len() <= 96)?;
        Some(Ipv6Addr::from(u128::from(prefix.network()) | u128::from(u32::from(address))))
    }
}

/// Addresses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address.
    pub last: Ipv4Addr,
}

/// A switch as LLDP names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// System name that it announces by LLDP.
    pub name: Name,
    /// Switches with the same stack name share one LACP system id (stack or MLAG); none = stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<Name>,
    /// What it is there for.
    pub role: SwitchRole,
}

/// What a switch connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchRole {
    /// The pod's access switch: management and guest networks.
    Access,
    /// A storage switch.
    Storage,
    /// The BMC network's switch.
    Bmc,
}

/// One zone: a site's room or building.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its name.
    pub name: Name,
    /// Its pods.
    pub pods: Vec<Pod>,
}

/// One pod: a rack row with one management subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// The management network.
    pub network: Name,
    /// The BMC network.
    pub bmc_network: Name,
    /// Racks in it.
    pub racks: Vec<Rack>,
    /// Its clusters.
    pub clusters: Vec<Cluster>,
}

/// One rack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rack {
    /// Its name.
    pub name: Name,
    /// Height in rack units.
    #[serde(default = "default_height")]
    pub units: u8,
}

fn default_height() -> u8 {
    42
}

/// The hypervisors of the deployment document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hypervisor {
    /// KVM through libvirt.
    Kvm,
    /// Xen through libvirt.
    Xen,
    /// XenServer / XCP-ng.
    #[serde(rename = "xenserver")]
    XenServer,
    /// VMware vSphere.
    #[serde(rename = "vsphere")]
    VSphere,
    /// Linux containers.
    Lxc,
    /// Microsoft Hyper-V.
    HyperV,
    /// Oracle VM.
    #[serde(rename = "oracle-vm")]
    OracleVm,
    /// No hypervisor.
    BareMetal,
}

/// What the cluster keeps free for the failure of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failover {
    /// VMs are capped at (N-1) x the per-host limit.
    #[serde(rename = "n-1")]
    NMinusOne,
    /// Nothing is kept free: a cluster of one host.
    #[serde(rename = "none")]
    None,
}

/// One cluster: hosts of one hypervisor that share primary storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: Name,
    /// Hypervisor of all its hosts.
    pub hypervisor: Hypervisor,
    /// What is kept free.
    #[serde(default = "default_failover")]
    pub failover: Failover,
    /// Most VMs on one host.
    pub vms_per_host: u32,
    /// Most VMs in the cluster; none = (N-1) x `vms_per_host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_cap: Option<u32>,
    /// Memory for XenServer's control domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dom0_memory_mib: Option<MebiBytes>,
    /// Primary storage, by name.
    #[serde(default)]
    pub primary_storage: Vec<Name>,
    /// Guest network, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_network: Option<Name>,
    /// Hardware profile that each host must match (a file of `hardware-profiles`, without `.toml`).
    pub profile: Name,
    /// Its hosts.
    pub hosts: Vec<Host>,
}

fn default_failover() -> Failover {
    Failover::NMinusOne
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Rack it is in.
    pub rack: Name,
    /// Lowest rack unit that it fills, from 1.
    pub u: u8,
    /// Hypervisor, where the plan says it again for one host; it must be the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<Hypervisor>,
    /// System serial number: the strong member of its identity.
    pub serial: String,
    /// SMBIOS UUID, in the order that `/sys/class/dmi/id/product_uuid` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its management controller.
    pub bmc: BmcPlan,
    /// Management address.
    pub address: Ipv4Addr,
    /// NICs of the pod networks: bonded.
    pub bond: BondPlan,
    /// NICs of the storage networks: never bonded under MPIO.
    #[serde(default)]
    pub storage_nics: Vec<StorageNic>,
    /// The disk that the operating system is written to.
    pub os_disk: DiskSelector,
    /// By what it boots discovery, where Secure Boot matters; none: as its BMC tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<Chain>,
    /// Its firmware is to trust the site's authority for HTTPS boot; none: as its BMC tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_boot: Option<bool>,
}

/// How a BMC is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BmcProtocol {
    /// Redfish (DSP0266) over HTTPS.
    Redfish,
    /// IPMI 2.0 over RMCP+.
    Ipmi,
    /// Redfish if it answers, else IPMI.
    Auto,
}

/// A host's management controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcPlan {
    /// Its MAC, as on the label.
    pub mac: MacAddr,
    /// The address it gets from us.
    pub address: Ipv4Addr,
    /// Protocol.
    #[serde(default = "default_protocol")]
    pub protocol: BmcProtocol,
    /// Name of the factory credential in the secret file.
    pub credential: Name,
}

fn default_protocol() -> BmcProtocol {
    BmcProtocol::Auto
}

/// Bonding mode (Linux bonding driver).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// LACP: needs a stack or MLAG.
    #[serde(rename = "802.3ad")]
    Lacp,
    /// One leg at a time.
    #[serde(rename = "active-backup")]
    ActiveBackup,
}

/// The host's pod bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BondPlan {
    /// Mode. 802.3ad: short LACP timeout, layer3+4 hash. active-backup: ARP monitoring of the gateway.
    pub mode: BondMode,
    /// Its NICs, PXE first.
    pub nics: Vec<NicPlan>,
}

/// One cabled NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicPlan {
    /// Role name in the hardware profile (which slot it is in), such as `pod-a`.
    pub role: Name,
    /// Its MAC.
    pub mac: MacAddr,
    /// Switch and port that its cable goes to.
    pub port: SwitchPort,
}

/// A storage NIC with its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageNic {
    /// Role name in the hardware profile, such as `storage-a`.
    pub role: Name,
    /// Its MAC.
    pub mac: MacAddr,
    /// Switch and port that its cable goes to.
    pub port: SwitchPort,
    /// Storage network, by name.
    pub network: Name,
    /// Address on it.
    pub address: Ipv4Addr,
    /// The plan may say so by mistake; a lint refuses it under MPIO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bonded: Option<bool>,
}

/// A port of a switch as LLDP names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPort {
    /// The switch.
    pub switch: Name,
    /// Its port id, such as `7` or `xe-0/0/7`.
    pub port: String,
}

impl std::fmt::Display for SwitchPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.switch, self.port)
    }
}

/// A disk named by what it says of itself, never by kernel name. At least one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSelector {
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World Wide Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<Wwn>,
}

/// How VMs' volumes lie on shared block storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeLayout {
    /// Dayzero's own matrix row: thick LVs (raw), metadata changed by one elected host alone.
    ThickLv,
    /// The anchor's row: OCFS2 shared mount point with qcow2.
    SharedMountPoint,
    /// CLVM (XenServer).
    Clvm,
    /// VMFS (vSphere).
    Vmfs,
}

/// Kind of primary storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageKind {
    /// iSCSI LUN.
    Iscsi,
    /// Fibre Channel LUN.
    FibreChannel,
    /// NFS export.
    Nfs,
    /// The hosts' own disks.
    Local,
    /// SMB share.
    Smb,
}

/// One primary storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimaryStorage {
    /// Its name.
    pub name: Name,
    /// Kind.
    pub kind: StorageKind,
    /// Size; the document's limit is 6 TB = 6 x 10^12 bytes a LUN.
    pub size: Bytes,
    /// Volume layout, for block storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<VolumeLayout>,
    /// Several paths: at least two disjoint subnets, each with its own gateway.
    #[serde(default)]
    pub multipath: bool,
    /// iSCSI target name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// LUN's WWN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<Wwn>,
    /// Portals (iSCSI) or servers (NFS), one a path.
    #[serde(default)]
    pub portals: Vec<Portal>,
    /// Export path (NFS, SMB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Where storage answers on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portal {
    /// Storage network, by name.
    pub network: Name,
    /// Address.
    pub address: Ipv4Addr,
    /// TCP port.
    #[serde(default = "default_iscsi_port")]
    pub port: u16,
}

fn default_iscsi_port() -> u16 {
    3260
}

/// Where templates and ISOs lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondaryStorage {
    /// Its name.
    pub name: Name,
    /// Base URL (http or https) on the management network.
    pub url: String,
}

/// A VM size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offering {
    /// Its name.
    pub name: Name,
    /// Virtual CPUs.
    pub cpus: u32,
    /// MHz a CPU that count against the host's capacity.
    pub mhz: u64,
    /// Memory.
    pub memory_mib: MebiBytes,
    /// Root volume.
    pub disk: Bytes,
}

/// A template in secondary storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its name.
    pub name: Name,
    /// Secondary storage, by name.
    pub store: Name,
    /// File in it: a raw disk image.
    pub file: String,
    /// SHA-256 of the file, hex; none = taken from `<file>.sha256` beside it when the template is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<crate::ids::Sha256>,
}

/// A host with the cluster, pod and zone it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The zone.
    pub zone: &'a Zone,
    /// The pod.
    pub pod: &'a Pod,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The host.
    pub host: &'a Host,
}

impl Site {
    /// All hosts, in plan order, with where they stand.
    pub fn hosts(&self) -> impl Iterator<Item = Placed<'_>> {
        self.zones.iter().flat_map(|zone| {
            zone.pods.iter().flat_map(move |pod| {
                pod.clusters.iter().flat_map(move |cluster| {
                    cluster.hosts.iter().map(move |host| Placed { zone, pod, cluster, host })
                })
            })
        })
    }

    /// One host by name.
    pub fn host(&self, name: &HostName) -> Option<Placed<'_>> {
        self.hosts().find(|placed| placed.host.name == *name)
    }

    /// One network by name.
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == *name)
    }

    /// The appliance's address for machines of a network: its own there, or, behind relays, the one that it has on
    /// another network of the same role, management before others.
    pub fn appliance_for(&self, network: &Network) -> Option<Ipv4Addr> {
        if network.appliance.is_some() || network.relays.is_empty() {
            return network.appliance;
        }
        let of =
            |role| self.networks.iter().filter(move |one| one.role == role).find_map(|one| one.appliance);
        of(network.role).or_else(|| of(NetworkRole::Management))
    }

    /// One primary storage by name.
    pub fn storage(&self, name: &Name) -> Option<&PrimaryStorage> {
        self.primary_storage.iter().find(|storage| storage.name == *name)
    }
}

impl Host {
    /// All its cabled NICs: bond legs first, then storage NICs, as `(role, MAC, port)`.
    pub fn nics(&self) -> impl Iterator<Item = (&Name, MacAddr, &SwitchPort)> {
        let legs = self.bond.nics.iter().map(|nic| (&nic.role, nic.mac, &nic.port));
        legs.chain(self.storage_nics.iter().map(|nic| (&nic.role, nic.mac, &nic.port)))
    }
}
