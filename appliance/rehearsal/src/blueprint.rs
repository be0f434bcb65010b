//! From the site plan to the rack that is built of it: switches and ports, namespaces and addresses, machines.
//!
//! Pure: the same plan gives the same rack. It reads what the plan says of a real rack and adds only what a real
//! rack has besides (gateways, a SAN, a store); nothing is made here.

use crate::machine::Firmware;
use crate::switch::core::{LagId, Mode};
use crate::switch::frame::Vlan;
use dayzero_model::site::{
    BmcPlan, BmcProtocol, BondMode, DiskSelector, Host, Network, NetworkRole, Site, SwitchPort, SwitchRole,
};
use dayzero_model::{MacAddr, Name};
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Internal VLAN of untagged networks; no plan may use it as a tag.
pub const NATIVE: Vlan = 1;
/// Namespace of the control plane.
pub const NS_CONTROL: &str = "dz-ctl";
/// Namespace of the gateway and of secondary storage.
pub const NS_EDGE: &str = "dz-edge";
/// Namespace of the SAN.
pub const NS_SAN: &str = "dz-san";
/// Namespace of the QEMU processes: no interface, long datagram queues.
pub const NS_QEMU: &str = "dz-qemu";
/// What the MACs of the appliance's NICs begin with; their last byte counts from 1.
const APPLIANCE_MAC: [u8; 3] = [0x52, 0x54, 0x00];
/// Port of each access switch that strangers and clones are plugged into.
pub const EXTRA_PORTS: [&str; 2] = ["47", "48"];

/// A plan of which no lab can be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlueprintError {
    /// Something that the lab needs is not in the plan.
    #[error("the lab needs {what} in the plan: {remedy}")]
    Missing {
        /// What.
        what: String,
        /// What to write.
        remedy: &'static str,
    },
    /// A name that leads nowhere.
    #[error("{place} names {kind} '{name}', which the plan does not define")]
    Dangling {
        /// Where it is named.
        place: String,
        /// What it should be.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The LUN's WWN cannot be that of the lab's target.
    #[error(
        "primary storage '{name}': the lab's target (tgt) can only offer WWNs of the form 60000000000000000e0000TTTT…, such as {example}; the plan says {wwn}"
    )]
    Wwn {
        /// The storage.
        name: Name,
        /// What the plan says.
        wwn: String,
        /// What would do.
        example: String,
    },
}

/// A port of the rack's switches that something is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Index into [`Blueprint::switches`].
    pub switch: usize,
    /// Member's name; none = the stack itself.
    pub member: Option<String>,
    /// Port name.
    pub name: String,
    /// VLANs.
    pub mode: Mode,
    /// LAG.
    pub lag: Option<LagId>,
}

/// A switch or a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPlan {
    /// Member names.
    pub members: Vec<String>,
    /// What it is there for.
    pub role: SwitchRole,
}

/// An interface of a namespace: a tap in a switch port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePlan {
    /// Interface name.
    pub name: String,
    /// MAC; none = the kernel's choice.
    pub mac: Option<MacAddr>,
    /// Addresses with prefix.
    pub addresses: Vec<Ipv4Net>,
    /// Largest IP packet.
    pub mtu: u32,
    /// The port.
    pub port: PortPlan,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacePlan {
    /// Its name.
    pub name: String,
    /// Whether it routes between its interfaces.
    pub forwards: bool,
    /// Its interfaces.
    pub interfaces: Vec<InterfacePlan>,
}

/// A NIC of a host and the port that its cable goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicWire {
    /// MAC.
    pub mac: MacAddr,
    /// Switch and port by LLDP name.
    pub cable: SwitchPort,
    /// The port.
    pub port: PortPlan,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// Its name.
    pub name: Name,
    /// Firmware: UEFI behind Redfish, BIOS behind IPMI.
    pub firmware: Firmware,
    /// System serial.
    pub serial: String,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Its BMC.
    pub bmc: BmcPlan,
    /// Namespace of its BMC.
    pub bmc_namespace: String,
    /// NICs in slot order.
    pub nics: Vec<NicWire>,
    /// OS disk.
    pub disk: DiskSelector,
}

/// A NIC of the appliance, where that is a machine of the rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplianceNic {
    /// MAC.
    pub mac: MacAddr,
    /// The plan's address of the appliance on that network.
    pub address: Ipv4Net,
    /// The port.
    pub port: PortPlan,
}

/// The SAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanPlan {
    /// iSCSI target name.
    pub target: String,
    /// Target id, from the planned WWN.
    pub tid: u16,
    /// Size of the LUN, bytes.
    pub size: u64,
    /// Portals.
    pub portals: Vec<SocketAddrV4>,
    /// Initiators that may log in.
    pub initiators: Vec<Ipv4Addr>,
}

/// The whole rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// Switches and stacks.
    pub switches: Vec<SwitchPlan>,
    /// Namespaces with interfaces.
    pub namespaces: Vec<NamespacePlan>,
    /// Hosts.
    pub hosts: Vec<HostPlan>,
    /// Ports for machines that are not in the plan.
    pub extras: Vec<PortPlan>,
    /// The SAN, if the plan has iSCSI storage.
    pub san: Option<SanPlan>,
    /// Where secondary storage answers, if the plan has any.
    pub store: Option<SocketAddrV4>,
    /// NICs of the appliance; empty = the control plane is a process in [`NS_CONTROL`].
    pub appliance: Vec<ApplianceNic>,
}

struct Draft<'a> {
    site: &'a Site,
    switches: Vec<SwitchPlan>,
    management: &'a Network,
    guest: Option<&'a Network>,
}

impl Blueprint {
    /// Draws the rack of a plan.
    pub fn of(site: &Site) -> Result<Self, BlueprintError> {
        let network = |role| site.networks.iter().find(|network| network.role == role);
        let management = network(NetworkRole::Management).ok_or_else(|| BlueprintError::Missing {
            what: "a network of role management".into(),
            remedy: "add it under 'networks'",
        })?;
        let draft =
            Draft { site, switches: switches_of(site), management, guest: network(NetworkRole::Guest) };
        let access = draft.find_role(SwitchRole::Access)?;
        let hosts = draft.hosts()?;
        let san = draft.san()?;
        let store = draft.store()?;
        let mut namespaces = vec![draft.control(access)?, draft.edge(access, store)];
        if san.is_some() {
            namespaces.push(draft.san_namespace()?);
        }
        let bmc_switch = draft.find_role(SwitchRole::Bmc)?;
        for host in &hosts {
            let port = draft.infra_port(bmc_switch, NATIVE);
            let interface = interface("eth0", Some(host.bmc.mac), Vec::new(), 1500, port);
            let name = host.bmc_namespace.clone();
            namespaces.push(NamespacePlan { name, forwards: false, interfaces: vec![interface] });
        }
        let member = draft.switches[access].members.first().cloned();
        let extras = EXTRA_PORTS.map(|name| PortPlan {
            switch: access,
            member: member.clone(),
            name: name.into(),
            mode: draft.trunk(),
            lag: None,
        });
        let appliance = Vec::new();
        Ok(Self { switches: draft.switches, namespaces, hosts, extras: extras.into(), san, store, appliance })
    }

    /// The appliance becomes a machine: it gets the control plane's addresses and ports. The namespace stays on the
    /// management and the BMC network, as an operator's desk, with addresses that the plan gives to nobody.
    ///
    /// # Errors
    /// A network without a free address.
    pub fn house_appliance(&mut self, site: &Site) -> Result<(), BlueprintError> {
        let Some(desk) = self.namespaces.iter_mut().find(|namespace| namespace.name == NS_CONTROL) else {
            return Ok(());
        };
        let places =
            desk.interfaces.iter().flat_map(|nic| nic.addresses.iter().map(move |address| (nic, *address)));
        let nic = |(number, (interface, address)): (u8, (&InterfacePlan, Ipv4Net))| {
            let [a, b, c] = APPLIANCE_MAC;
            ApplianceNic { mac: MacAddr([a, b, c, 0x77, 0, number]), address, port: interface.port.clone() }
        };
        self.appliance = (1..).zip(places).map(nic).collect();
        let desks = [NetworkRole::Management, NetworkRole::Bmc];
        let own = |network: &&Network| desks.contains(&network.role);
        for interface in &mut desk.interfaces {
            let held = std::mem::take(&mut interface.addresses);
            for network in site.networks.iter().filter(own) {
                if held.iter().any(|address| network.cidr.contains(&address.addr())) {
                    interface.addresses.push(free_address(site, network)?);
                }
            }
        }
        desk.interfaces.retain(|interface| !interface.addresses.is_empty());
        Ok(())
    }
}

/// The highest address of a network that the plan gives to nobody.
fn free_address(site: &Site, network: &Network) -> Result<Ipv4Net, BlueprintError> {
    let hosts = site.hosts().flat_map(|placed| [placed.host.address, placed.host.bmc.address]);
    let portals =
        site.primary_storage.iter().flat_map(|storage| storage.portals.iter().map(|portal| portal.address));
    let own = site.networks.iter().flat_map(|network| [network.appliance, network.gateway]).flatten();
    let taken: Vec<Ipv4Addr> = hosts.chain(portals).chain(own).collect();
    let pooled =
        |address: &Ipv4Addr| network.pool.is_some_and(|pool| (pool.first..=pool.last).contains(address));
    let last = u32::from(network.cidr.broadcast()).saturating_sub(1);
    let candidates = (u32::from(network.cidr.network()) + 1..=last).rev().map(Ipv4Addr::from);
    let stores = site.secondary_storage.iter().map(|store| store.url.as_str()).collect::<Vec<_>>();
    let free = |address: &Ipv4Addr| {
        !taken.contains(address)
            && !pooled(address)
            && !stores.iter().any(|url| url.contains(&address.to_string()))
    };
    let found = candidates.take(1024).find(free);
    within(network, found).ok_or_else(|| BlueprintError::Missing {
        what: format!("a free address on network '{}'", network.name),
        remedy: "the operator's desk stands there beside the appliance",
    })
}

fn switches_of(site: &Site) -> Vec<SwitchPlan> {
    let mut stacks: Vec<(Option<&Name>, SwitchPlan)> = Vec::new();
    for switch in &site.switches {
        let known = stacks.iter_mut().find(|(stack, _)| stack.is_some() && *stack == switch.stack.as_ref());
        match known {
            Some((_, plan)) => plan.members.push(switch.name.to_string()),
            None => {
                let plan = SwitchPlan { members: vec![switch.name.to_string()], role: switch.role };
                stacks.push((switch.stack.as_ref(), plan));
            }
        }
    }
    stacks.into_iter().map(|(_, plan)| plan).collect()
}

fn interface(
    name: &str,
    mac: Option<MacAddr>,
    addresses: Vec<Ipv4Net>,
    mtu: u32,
    port: PortPlan,
) -> InterfacePlan {
    InterfacePlan { name: name.into(), mac, addresses, mtu, port }
}

/// An address with the prefix length of its network.
fn within(network: &Network, address: Option<Ipv4Addr>) -> Option<Ipv4Net> {
    Ipv4Net::new(address?, network.cidr.prefix_len()).ok()
}

impl Draft<'_> {
    fn find_role(&self, role: SwitchRole) -> Result<usize, BlueprintError> {
        self.switches.iter().position(|switch| switch.role == role).ok_or_else(|| BlueprintError::Missing {
            what: format!("a switch of role {role:?}").to_lowercase(),
            remedy: "add it under 'switches'",
        })
    }

    fn find_switch(&self, name: &Name, place: &str) -> Result<usize, BlueprintError> {
        let at = self
            .switches
            .iter()
            .position(|switch| switch.members.iter().any(|member| member == name.as_str()));
        at.ok_or_else(|| BlueprintError::Dangling {
            place: place.into(),
            kind: "switch",
            name: name.to_string(),
        })
    }

    fn trunk(&self) -> Mode {
        let tagged = self.site.networks.iter().filter_map(|network| network.vlan).collect();
        Mode::Trunk { native: self.management.vlan.unwrap_or(NATIVE), tagged }
    }

    fn infra_port(&self, switch: usize, vlan: Vlan) -> PortPlan {
        PortPlan { switch, member: None, name: String::new(), mode: Mode::Access(vlan), lag: None }
    }

    /// An interface on a network of the access stack.
    fn access_interface(
        &self,
        access: usize,
        name: &str,
        network: &Network,
        addresses: Vec<Ipv4Net>,
    ) -> InterfacePlan {
        let port = self.infra_port(access, network.vlan.unwrap_or(NATIVE));
        interface(name, None, addresses, network.mtu, port)
    }

    fn control(&self, access: usize) -> Result<NamespacePlan, BlueprintError> {
        let own = |network: &Network| within(network, network.appliance).into_iter().collect::<Vec<_>>();
        let mut interfaces =
            vec![self.access_interface(access, "mgmt0", self.management, own(self.management))];
        if let Some(guest) = self.guest {
            interfaces.push(self.access_interface(access, "guest0", guest, own(guest)));
        }
        if let Some(bmc) = self.site.networks.iter().find(|network| network.role == NetworkRole::Bmc) {
            let port = self.infra_port(self.find_role(SwitchRole::Bmc)?, NATIVE);
            interfaces.push(interface("bmc0", None, own(bmc), bmc.mtu, port));
        }
        Ok(NamespacePlan { name: NS_CONTROL.into(), forwards: false, interfaces })
    }

    fn edge(&self, access: usize, store: Option<SocketAddrV4>) -> NamespacePlan {
        let mut addresses: Vec<_> = within(self.management, self.management.gateway).into_iter().collect();
        addresses.extend(store.and_then(|store| within(self.management, Some(*store.ip()))));
        addresses.dedup();
        let mut interfaces = vec![self.access_interface(access, "mgmt0", self.management, addresses)];
        if let Some(guest) = self.guest {
            let gateway = within(guest, guest.gateway).into_iter().collect();
            interfaces.push(self.access_interface(access, "guest0", guest, gateway));
        }
        NamespacePlan { name: NS_EDGE.into(), forwards: true, interfaces }
    }

    fn hosts(&self) -> Result<Vec<HostPlan>, BlueprintError> {
        let hosts = self.site.hosts().enumerate();
        hosts.map(|(index, placed)| self.host(index, placed.host)).collect()
    }

    fn host(&self, index: usize, host: &Host) -> Result<HostPlan, BlueprintError> {
        let lag = (host.bond.mode == BondMode::Lacp).then_some(index as LagId);
        let legs = host.bond.nics.len();
        let nics = host.nics().enumerate().map(|(nic, (role, mac, cable))| {
            let place = format!("host '{}', NIC '{role}'", host.name);
            let switch = self.find_switch(&cable.switch, &place)?;
            let on_access = self.switches[switch].role == SwitchRole::Access;
            let mode = if on_access { self.trunk() } else { Mode::Access(NATIVE) };
            let member = Some(cable.switch.to_string());
            let lag = if nic < legs { lag } else { None };
            let port = PortPlan { switch, member, name: cable.port.clone(), mode, lag };
            Ok(NicWire { mac, cable: cable.clone(), port })
        });
        let firmware = match host.bmc.protocol {
            BmcProtocol::Ipmi => Firmware::Bios,
            BmcProtocol::Redfish | BmcProtocol::Auto => Firmware::Uefi,
        };
        Ok(HostPlan {
            name: host.name.clone(),
            firmware,
            serial: host.serial.clone(),
            uuid: host.uuid.clone().unwrap_or_else(|| format!("6c1d5a30-7f0e-4b6e-9a51-{:012x}", index + 1)),
            bmc: host.bmc.clone(),
            bmc_namespace: format!("dz-bmc{}", index + 1),
            nics: nics.collect::<Result<_, _>>()?,
            disk: host.os_disk.clone(),
        })
    }

    fn san(&self) -> Result<Option<SanPlan>, BlueprintError> {
        let Some(storage) = self.site.primary_storage.iter().find(|storage| storage.target.is_some()) else {
            return Ok(None);
        };
        let tid = match &storage.wwn {
            None => 1,
            Some(wwn) => tid_of(wwn.as_str()).ok_or_else(|| BlueprintError::Wwn {
                name: storage.name.clone(),
                wwn: wwn.to_string(),
                example: wwn_of(1),
            })?,
        };
        let hosts =
            self.site.hosts().flat_map(|placed| placed.host.storage_nics.iter().map(|nic| nic.address));
        Ok(Some(SanPlan {
            target: storage.target.clone().unwrap_or_default(),
            tid,
            size: storage.size.0,
            portals: storage
                .portals
                .iter()
                .map(|portal| SocketAddrV4::new(portal.address, portal.port))
                .collect(),
            initiators: hosts.collect(),
        }))
    }

    fn san_namespace(&self) -> Result<NamespacePlan, BlueprintError> {
        let storage = self.site.networks.iter().filter(|network| network.role == NetworkRole::Storage);
        let interfaces = storage.zip('a'..='z').map(|(network, letter)| {
            let cable = self
                .site
                .hosts()
                .flat_map(|placed| &placed.host.storage_nics)
                .find(|nic| nic.network == network.name);
            let cable = cable.ok_or_else(|| BlueprintError::Missing {
                what: format!("a storage NIC on network '{}'", network.name),
                remedy: "the SAN is plugged into the switch that the hosts' storage NICs are cabled to",
            })?;
            let switch = self.find_switch(&cable.port.switch, &format!("network '{}'", network.name))?;
            let mut addresses: Vec<_> = within(network, network.gateway).into_iter().collect();
            let portals = self.site.primary_storage.iter().flat_map(|storage| &storage.portals);
            let here = portals.filter(|portal| portal.network == network.name);
            addresses.extend(here.filter_map(|portal| within(network, Some(portal.address))));
            let port = self.infra_port(switch, NATIVE);
            Ok(interface(&format!("st{letter}0"), None, addresses, network.mtu, port))
        });
        Ok(NamespacePlan {
            name: NS_SAN.into(),
            forwards: false,
            interfaces: interfaces.collect::<Result<_, _>>()?,
        })
    }

    fn store(&self) -> Result<Option<SocketAddrV4>, BlueprintError> {
        let Some(store) = self.site.secondary_storage.first() else { return Ok(None) };
        let authority = store.url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let address = authority.and_then(|text| match text.parse() {
            Ok(address) => Some(address),
            Err(_) => text.parse().ok().map(|ip| SocketAddrV4::new(ip, 80)),
        });
        address.map(Some).ok_or_else(|| BlueprintError::Missing {
            what: format!("an http URL with an IPv4 address for secondary storage '{}'", store.name),
            remedy: "write it as http://10.77.0.5:8081",
        })
    }
}

/// WWN that tgt gives to LUN 1 of target `tid` (NAA 6, from target and LUN number alone).
pub fn wwn_of(tid: u16) -> String {
    format!("60000000000000000e0000{:06x}0001", tid)
}

fn tid_of(wwn: &str) -> Option<u16> {
    let tid = u16::from_str_radix(wwn.get(24..28)?, 16).ok()?;
    (wwn == wwn_of(tid) && tid > 0).then_some(tid)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn lab_plan() -> Site {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../plan/examples/lab.yaml"))
            .unwrap();
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn the_rack_of_the_example_plan() {
        let mut site = lab_plan();
        site.primary_storage[0].wwn = Some(wwn_of(1).parse().unwrap());
        insta::assert_debug_snapshot!(Blueprint::of(&site).unwrap());
    }

    #[test]
    fn an_appliance_of_its_own_takes_the_control_plane_s_place() {
        let site = lab_plan();
        let mut blueprint = Blueprint::of(&site).unwrap();
        let before = blueprint.namespaces[0].clone();
        blueprint.house_appliance(&site).unwrap();
        let nics: Vec<String> =
            blueprint.appliance.iter().map(|nic| format!("{} {}", nic.mac, nic.address)).collect();
        insta::assert_snapshot!(nics.join("\n"), @r#"
        52:54:00:77:00:01 10.77.0.2/24
        52:54:00:77:00:02 10.77.100.2/24
        52:54:00:77:00:03 10.77.9.2/24
        "#);
        let ports = |namespace: &NamespacePlan| {
            namespace.interfaces.iter().map(|i| i.port.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            blueprint.appliance.iter().map(|nic| nic.port.clone()).collect::<Vec<_>>(),
            ports(&before)
        );
        let desk = &blueprint.namespaces[0];
        let left: Vec<String> =
            desk.interfaces.iter().map(|i| format!("{} {:?}", i.name, i.addresses)).collect();
        insta::assert_snapshot!(left.join("\n"), @r#"
        mgmt0 [10.77.0.254/24]
        bmc0 [10.77.9.254/24]
        "#);
    }

    #[test]
    fn faults_of_the_plan_are_named() {
        let mut site = lab_plan();
        site.primary_storage[0].wwn = Some("0x6000000000000000000000000e000001".parse().unwrap());
        assert!(matches!(Blueprint::of(&site), Err(BlueprintError::Wwn { .. })));
        site.primary_storage[0].wwn = None;
        site.zones[0].pods[0].clusters[0].hosts[0].bond.nics[0].port.switch = "sw-x".parse().unwrap();
        let error = Blueprint::of(&site).unwrap_err().to_string();
        assert_eq!(error, "host 'host1', NIC 'pod-a' names switch 'sw-x', which the plan does not define");
        site.networks.retain(|network| network.role != NetworkRole::Management);
        assert!(Blueprint::of(&site).unwrap_err().to_string().contains("role management"));
    }
}
