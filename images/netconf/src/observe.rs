//! Reads links, addresses, routes and rules by netlink dumps, and the sysctls that the plan may want.

use crate::error::NetError;
use crate::ethtool::Ethtool;
use crate::netlink::Netlink;
use crate::observed::{Address, Bond, BondSettings, Leg, Link, LinkKind, Observed, Route, Rule};
use crate::sysctl;
use dayzero_model::ids::MacAddr;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BondAdInfo, BondArpValidate, BondLacpRate, BondPrimaryReselect, BondXmitHashPolicy, BridgeStpState,
    InfoBond, InfoBondPort, InfoBridge, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkLayerType, LinkMessage, MiiStatus,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

const TABLE_LOCAL: u32 = 255;

/// Looks at the network once. An error means that netlink itself failed.
///
/// # Errors
/// [`NetError::Netlink`] with the dump that failed.
pub async fn observe() -> Result<Observed, NetError> {
    let netlink = Netlink::open()?;
    let failed = |what: &'static str| move |e| NetError::netlink(what, e);
    let links: Vec<LinkMessage> =
        netlink.link().get().execute().try_collect().await.map_err(failed("listing the links"))?;
    let addresses: Vec<AddressMessage> =
        netlink.address().get().execute().try_collect().await.map_err(failed("listing the addresses"))?;
    let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> =
        netlink.route().get(every).execute().try_collect().await.map_err(failed("listing the routes"))?;
    let rules: Vec<RuleMessage> = netlink
        .rule()
        .get(IpVersion::V4)
        .execute()
        .try_collect()
        .await
        .map_err(failed("listing the rules"))?;
    let ethtool = Ethtool::open()?;
    let mut links: Vec<Link> = links.iter().map(link).collect();
    for link in links.iter_mut().filter(|link| link.kind == LinkKind::Physical) {
        link.speed = ethtool.speed(&link.name);
    }
    Ok(Observed {
        sysctls: sysctl::read(links.iter().map(|link| link.name.as_str())),
        links,
        addresses: addresses.iter().filter_map(address).collect(),
        routes: routes.iter().filter_map(route).collect(),
        rules: rules.iter().filter_map(rule).collect(),
    })
}

fn mac_of(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().filter(|mac| *mac != [0; 6]).map(MacAddr)
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let loopback = flags.contains(LinkFlags::Loopback);
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        permanent: None,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        master: None,
        parent: None,
        speed: None,
        kind: if loopback { LinkKind::Loopback } else { LinkKind::Physical },
        leg: None,
    };
    if !ethernet && !loopback {
        link.kind = LinkKind::Other("no Ethernet".to_owned());
    }
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac_of(bytes),
            LinkAttribute::PermAddress(bytes) => link.permanent = mac_of(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.parent = Some(*index),
            LinkAttribute::LinkInfo(infos) => link_info(infos, &mut link),
            _ => {}
        }
    }
    link
}

fn link_info(infos: &[LinkInfo], link: &mut Link) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bond) => link.kind = LinkKind::Bond(Bond::default()),
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge { stp: false, forward_delay: 0 },
            LinkInfo::Kind(InfoKind::Vlan) => link.kind = LinkKind::Vlan(0),
            LinkInfo::Kind(InfoKind::Tun) => link.kind = LinkKind::Tap,
            // A veth stands for a NIC in a namespace.
            LinkInfo::Kind(InfoKind::Veth) => {}
            LinkInfo::Kind(other) => link.kind = LinkKind::Other(other.to_string()),
            LinkInfo::Data(InfoData::Bond(data)) => link.kind = LinkKind::Bond(bond(data)),
            LinkInfo::Data(InfoData::Bridge(data)) => link.kind = bridge(data),
            LinkInfo::Data(InfoData::Vlan(data)) => {
                let id = data.iter().find_map(|d| if let InfoVlan::Id(id) = d { Some(*id) } else { None });
                link.kind = LinkKind::Vlan(id.unwrap_or(0));
            }
            LinkInfo::PortData(InfoPortData::BondPort(data)) => {
                let permanent = data.iter().find_map(|d| match d {
                    InfoBondPort::PermHwaddr(bytes) => mac_of(bytes),
                    _ => None,
                });
                link.permanent = permanent.or(link.permanent);
                link.leg = Some(leg(data));
            }
            _ => {}
        }
    }
}

fn bridge(data: &[InfoBridge]) -> LinkKind {
    let (mut on, mut delay) = (false, 0);
    for item in data {
        match item {
            InfoBridge::StpState(state) => on = *state != BridgeStpState::Disabled,
            InfoBridge::ForwardDelay(centiseconds) => delay = *centiseconds,
            _ => {}
        }
    }
    LinkKind::Bridge { stp: on, forward_delay: delay }
}

fn bond(data: &[InfoBond]) -> Bond {
    let mut bond = Bond::default();
    let set: &mut BondSettings = &mut bond.settings;
    for item in data {
        match item {
            InfoBond::Mode(mode) => set.mode = mode.to_string(),
            InfoBond::MiiMon(ms) => set.miimon = *ms,
            InfoBond::ArpInterval(ms) => set.arp_interval = *ms,
            InfoBond::ArpIpTarget(targets) => set.arp_targets.clone_from(targets),
            InfoBond::ArpValidate(validate) => set.arp_validate_all = *validate == BondArpValidate::All,
            InfoBond::MissedMax(missed) => set.missed_max = *missed,
            InfoBond::AdLacpRate(rate) => set.lacp_fast = *rate == BondLacpRate::Fast,
            InfoBond::XmitHashPolicy(policy) => set.hash_layer34 = *policy == BondXmitHashPolicy::Layer34,
            InfoBond::MinLinks(links) => set.min_links = *links,
            InfoBond::PrimaryReselect(policy) => {
                set.reselect_on_failure = *policy == BondPrimaryReselect::Failure;
            }
            InfoBond::ActivePort(index) => bond.active = Some(*index).filter(|index| *index != 0),
            InfoBond::Primary(index) => bond.primary = Some(*index).filter(|index| *index != 0),
            InfoBond::AdInfo(infos) => {
                for info in infos {
                    match info {
                        BondAdInfo::Aggregator(id) => bond.aggregator = Some(*id),
                        BondAdInfo::PartnerMac(mac) => bond.partner = mac_of(mac),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    bond
}

fn leg(data: &[InfoBondPort]) -> Leg {
    let mut leg = Leg::default();
    for item in data {
        match item {
            InfoBondPort::MiiStatus(status) => leg.mii_up = *status == MiiStatus::Up,
            InfoBondPort::AdAggregatorId(id) => leg.aggregator = Some(*id),
            InfoBondPort::AdActorOperPortState(bits) => leg.actor = bits.bits(),
            InfoBondPort::AdPartnerOperPortState(bits) => leg.partner = bits.bits(),
            _ => {}
        }
    }
    leg
}

fn address(message: &AddressMessage) -> Option<Address> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    let address = Ipv4Net::new(own, message.header.prefix_len).ok()?;
    Some(Address { link: message.header.index, address })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.address_family != AddressFamily::Inet || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        table: u32::from(header.table),
        to: Ipv4Net::new(Ipv4Addr::UNSPECIFIED, header.destination_prefix_length).ok()?,
        gateway: None,
        link: None,
        source: None,
        metric: 0,
        by_kernel: header.protocol == RouteProtocol::Kernel,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                route.to = Ipv4Net::new(*to, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some(*gateway),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => route.source = Some(*source),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    (route.table != TABLE_LOCAL).then_some(route)
}

fn rule(message: &RuleMessage) -> Option<Rule> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let mut rule = Rule { priority: 0, from: None, table: u32::from(message.header.table) };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(IpAddr::V4(source)) => {
                rule.from = Ipv4Net::new(*source, message.header.src_len).ok();
            }
            _ => {}
        }
    }
    Some(rule)
}
