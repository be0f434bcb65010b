//! Which sockets a configuration opens, interface by interface, and at which addresses: where that changes, the services
//! begin anew.
//!
//! Invariants: [`crate::PxeServer::bind`] opens by this list alone, so that nothing is opened that is not compared; all
//! else that a plan says of a network is told to clients, and follows while the services run ([`crate::Live`]). Ports,
//! certificates and files are the appliance's, not the plan's, and are not compared.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dayzero_model::Name;
use dayzero_model::site::{DhcpMode, NetworkRole};

use crate::config::{Ipv4Prefix, PxeConfig, ServedInterface};
use crate::dns::zone::Zone;
use crate::net::device_has;
use crate::ra::Advertised;

/// What is opened on one interface, and what its listeners know for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    device: String,
    address: Ipv4Addr,
    network: Name,
    role: NetworkRole,
    prefix: Ipv4Prefix,
    /// Where boot services and DNS listen by IPv6, if the device has it.
    address6: Option<Ipv6Addr>,
    pub(crate) dhcp: bool,
    /// The boot server's port, beside DHCP.
    pub(crate) boot_server: Option<u16>,
    pub(crate) dhcp6: bool,
    pub(crate) names: bool,
    pub(crate) advertised: Option<Advertised>,
}

impl Opened {
    fn on(interface: &ServedInterface, config: &PxeConfig) -> Self {
        let (network, boots) = (&interface.network, interface.boots());
        let serves = network.role != NetworkRole::Storage;
        let dhcp = serves && serves_dhcp(config, interface);
        Self {
            device: interface.device.clone(),
            address: interface.address,
            network: network.name.clone(),
            role: network.role,
            prefix: network.prefix,
            address6: interface.address6().filter(|_| interface.listens6()),
            dhcp,
            boot_server: config.boot_server(interface).filter(|_| dhcp),
            dhcp6: serves && serves_dhcp6(config, interface),
            names: serves_names(config, interface),
            advertised: Advertised::on(network).filter(|_| boots),
        }
    }
}

/// Of each interface, in order.
pub(crate) fn opened(config: &PxeConfig) -> Vec<Opened> {
    config.interfaces.iter().map(|interface| Opened::on(interface, config)).collect()
}

impl PxeConfig {
    /// Whether services that run with this configuration need no other sockets for another plan, so that they can follow it
    /// ([`crate::Live::follow`]).
    pub fn opens_as(&self, other: &Self) -> bool {
        opened(self) == opened(other)
    }
}

/// Where our DHCP is off, relays may still bring clients of other networks.
fn serves_dhcp(config: &PxeConfig, interface: &ServedInterface) -> bool {
    interface.network.mode != DhcpMode::Off || !config.relayed.is_empty()
}

/// Where the plan has an IPv6 prefix, or relays of networks that have one.
fn serves_dhcp6(config: &PxeConfig, interface: &ServedInterface) -> bool {
    let own = interface.network.prefix6.is_some() && interface.network.mode == DhcpMode::Serve;
    own || config.relayed.iter().any(|network| network.prefix6.is_some())
}

/// Where the plan tells clients to ask us, and its domain can be asked for.
pub(crate) fn serves_names(config: &PxeConfig, interface: &ServedInterface) -> bool {
    interface.names() && Zone::is_domain(&config.names.domain)
}

/// Our IPv6 addresses that boot services and DNS listen on, by device.
pub(crate) type Six = BTreeMap<String, Ipv6Addr>;

/// Those that the plan gives us and the devices have. A device without its own loses IPv6 alone.
pub(crate) fn six(config: &PxeConfig) -> Six {
    let mut six = Six::new();
    for interface in config.interfaces.iter().filter(|interface| interface.listens6()) {
        let Some(address) = interface.address6() else { continue };
        let device = &interface.device;
        if device_has(device, IpAddr::V6(address)) {
            six.insert(device.clone(), address);
        } else {
            tracing::warn!(%device, %address, "the device does not have our IPv6 address: nothing boots by IPv6 there, nor asks our DNS. \
                {}, then restart", missing6(interface, address));
        }
    }
    six
}

/// What to do about it.
pub(crate) fn missing6(interface: &ServedInterface, address: Ipv6Addr) -> String {
    let len = interface.network.prefix6.map_or(64, |prefix| prefix.len);
    format!("ip addr add {address}/{len} dev {}", interface.device)
}

/// The addresses that an interface's boot services and DNS listen on.
pub(crate) fn listens_at(interface: &ServedInterface, six: &Six) -> impl Iterator<Item = IpAddr> + use<> {
    let v6 = six.get(&interface.device).copied().map(IpAddr::V6);
    std::iter::once(IpAddr::V4(interface.address)).chain(v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{Ipv6Prefix, LeasePool, ServedNetwork};
    use dayzero_model::site::AddressRange;

    const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

    fn prefix6(len: u8) -> Option<Ipv6Prefix> {
        Some(Ipv6Prefix { address: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0), len })
    }

    fn far() -> ServedNetwork {
        let prefix = Ipv4Prefix { address: Ipv4Addr::new(10, 88, 0, 0), len: 24 };
        let mut far = ServedNetwork::new("far".parse().unwrap(), NetworkRole::Management, prefix);
        far.relays = vec![FAR];
        far
    }

    fn before() -> PxeConfig {
        let mut config = config();
        config.names.domain = "lab.example".into();
        config
    }

    fn own(config: &mut PxeConfig) -> &mut ServedNetwork {
        &mut config.interfaces[0].network
    }

    type Change = fn(&mut PxeConfig);

    #[test]
    fn what_clients_are_told_opens_nothing() {
        let changes: Vec<(&str, Change)> = vec![
            ("a host", |c| c.names.names.push(("host9".parse().unwrap(), vec![OTHER.into()]))),
            ("the domain", |c| {
                c.names.domain = "new.example".into();
                own(c).domain = Some("new.example".into());
            }),
            ("the router", |c| own(c).gateway = Some(OTHER)),
            ("another name server", |c| own(c).dns.push(OTHER)),
            ("the MTU", |c| own(c).mtu = Some(9000)),
            ("a pool", |c| {
                own(c).pool =
                    Some(LeasePool { range: AddressRange { first: OTHER, last: OTHER }, open: true });
            }),
            ("a relay of ours", |c| own(c).relays.push(OTHER)),
            ("its source", |c| own(c).relay_sources.push(FAR.into())),
            ("a network behind a relay", |c| c.relayed.push(far())),
        ];
        for (what, change) in changes {
            let mut after = before();
            change(&mut after);
            assert!(before().opens_as(&after), "{what}");
        }
    }

    #[test]
    fn what_another_socket_is_for_begins_anew() {
        let changes: Vec<(&str, Change)> = vec![
            ("the device", |c| c.interfaces[0].device = "mgmt1".into()),
            ("our address", |c| c.interfaces[0].address = OTHER),
            ("the network's name", |c| own(c).name = "pxe".parse().unwrap()),
            ("what it carries", |c| own(c).role = NetworkRole::Guest),
            ("its prefix", |c| own(c).prefix.len = 23),
            ("proxyDHCP", |c| own(c).mode = DhcpMode::Proxy),
            ("no DHCP", |c| own(c).mode = DhcpMode::Off),
            ("names by us", |c| {
                let us = c.interfaces[0].address;
                own(c).dns.push(us);
            }),
            ("IPv6", |c| own(c).prefix6 = prefix6(64)),
            ("another network of ours", |c| c.interfaces.push(interface(NetworkRole::Bmc))),
            ("no network of ours", |c| c.interfaces.clear()),
            ("IPv6 behind a relay", |c| {
                c.relayed.push(ServedNetwork { prefix6: prefix6(64), ..far() });
            }),
            ("proxyDHCP behind a relay", |c| {
                c.relayed.push(ServedNetwork { mode: DhcpMode::Proxy, ..far() });
            }),
        ];
        for (what, change) in changes {
            let mut after = before();
            change(&mut after);
            assert!(!before().opens_as(&after), "{what}");
        }
        let with = |len| {
            let mut config = before();
            own(&mut config).prefix6 = prefix6(len);
            config
        };
        assert!(!with(64).opens_as(&with(80)), "what is advertised");
    }

    #[test]
    fn a_storage_network_opens_nothing() {
        let mut config = before();
        *own(&mut config) = ServedNetwork {
            mode: DhcpMode::Proxy,
            prefix6: prefix6(64),
            ..interface(NetworkRole::Storage).network
        };
        config.relayed.push(ServedNetwork { prefix6: prefix6(64), ..far() });
        let Opened { dhcp, boot_server, dhcp6, names, advertised, address6, .. } = &opened(&config)[0];
        assert!(
            !dhcp && boot_server.is_none() && !dhcp6 && !names && advertised.is_none() && address6.is_none()
        );
    }
}
