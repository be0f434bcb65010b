//! Carries a plan out by netlink, one operation after the other, each with its status.
//!
//! A failed operation does not stop the rest: what does not depend on it is still made, and the report names each.

use crate::error::NetError;
use crate::ethtool::Ethtool;
use crate::netlink::Netlink;
use crate::observed::BondSettings;
use crate::op::{Op, RouteSpec, RuleSpec};
use crate::plan::Plan;
use crate::sysctl;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BondArpValidate, BondLacpRate, BondMode, BondPrimaryReselect, BondXmitHashPolicy, BridgeStpState,
    InfoBond, InfoKind,
};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{LinkBond, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

/// What became of one operation.
#[derive(Debug)]
pub struct OpStatus {
    /// The operation.
    pub op: Op,
    /// Its result.
    pub result: Result<(), NetError>,
}

/// Carries out all operations of a plan.
///
/// # Errors
/// Only if no netlink socket can be had; the operations' own errors stand in their status.
pub async fn apply(plan: &Plan) -> Result<Vec<OpStatus>, NetError> {
    let netlink = Netlink::open()?;
    let ethtool = Ethtool::open()?;
    let mut statuses = Vec::with_capacity(plan.ops.len());
    for op in &plan.ops {
        let result = one(&netlink, &ethtool, op).await;
        match &result {
            Ok(()) => tracing::info!(%op, "network changed"),
            Err(error) => tracing::warn!(%op, %error, "network change failed"),
        }
        statuses.push(OpStatus { op: op.clone(), result });
    }
    Ok(statuses)
}

/// Index of the link of that name, as of now.
pub(crate) async fn index(netlink: &Netlink, name: &str) -> Result<u32, NetError> {
    let mut found = Box::pin(netlink.link().get().match_name(name).execute());
    match found.try_next().await {
        Ok(Some(link)) => Ok(link.header.index),
        Ok(None) => Err(NetError::NoSuchLink { name: name.to_owned() }),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => {
            Err(NetError::NoSuchLink { name: name.to_owned() })
        }
        Err(e) => Err(NetError::netlink(format!("looking up {name}"), e)),
    }
}

/// Counts an answer that says "is so already" (or "is gone already") as done.
fn settled(result: Result<(), rtnetlink::Error>, what: &Op, fine: i32) -> Result<(), NetError> {
    match result {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -fine => Ok(()),
        other => other.map_err(|e| NetError::netlink(what.to_string(), e)),
    }
}

async fn one(netlink: &Netlink, ethtool: &Ethtool, op: &Op) -> Result<(), NetError> {
    let failed = |e| NetError::netlink(op.to_string(), e);
    let add = |message| async { netlink.link().add(message).execute().await.map_err(failed) };
    match op {
        Op::Sysctl { path, value } => sysctl::write(path, value),
        Op::SetSpeed { link, mbit } => ethtool.set_speed(link, *mbit),
        Op::DeleteLink { link, .. } => {
            let index = index(netlink, link).await?;
            settled(netlink.link().del(index).execute().await, op, libc::ENODEV)
        }
        Op::CreateBond { link, mac, settings } => {
            let mode = if settings.is_lacp() { BondMode::Ieee8023Ad } else { BondMode::ActiveBackup };
            let mut builder = bond(LinkBond::new(link).mode(mode), settings).address(mac.0.to_vec());
            if settings.is_lacp() {
                // Only of a bond that is down.
                builder = builder.ad_lacp_rate(BondLacpRate::Fast);
            }
            add(builder.build()).await
        }
        Op::CreateVlan { link, parent, id } => {
            let parent = index(netlink, parent).await?;
            add(LinkMessageBuilder::<LinkVlan>::new(link).id(*id).link(parent).build()).await
        }
        Op::CreateBridge { link } => {
            let builder = LinkMessageBuilder::<LinkBridge>::new(link);
            add(builder.stp_state(BridgeStpState::Disabled).forward_delay(0).build()).await
        }
        Op::AddAddress { link, address } => {
            let index = index(netlink, link).await?;
            let request = netlink.address().add(index, IpAddr::V4(address.addr()), address.prefix_len());
            settled(request.execute().await, op, libc::EEXIST)
        }
        Op::DelAddress { link, address } => {
            let message = address_message(index(netlink, link).await?, *address);
            settled(netlink.address().del(message).execute().await, op, libc::EADDRNOTAVAIL)
        }
        Op::AddRoute(route) => {
            let message = route_message(route, index(netlink, &route.link).await?);
            netlink.route().add(message).replace().execute().await.map_err(failed)
        }
        Op::DelRoute(route) => {
            let message = route_message(route, index(netlink, &route.link).await?);
            settled(netlink.route().del(message).execute().await, op, libc::ESRCH)
        }
        Op::AddRule(rule) => {
            let mut request = netlink.rule().add().v4();
            *request.message_mut() = rule_message(rule);
            settled(request.execute().await, op, libc::EEXIST)
        }
        Op::DelRule(rule) => {
            settled(netlink.rule().del(rule_message(rule)).execute().await, op, libc::ENOENT)
        }
        _ => change(netlink, op).await,
    }
}

/// Operations on one link that exists.
async fn change(netlink: &Netlink, op: &Op) -> Result<(), NetError> {
    let message = match op {
        Op::SetBond { link, settings } => bond(existing_bond(netlink, link).await?, settings).build(),
        Op::SetBridge { link } => LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge)
            .index(index(netlink, link).await?)
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            .build(),
        Op::SetPrimary { link, leg } => {
            existing_bond(netlink, link).await?.primary(index(netlink, leg).await?).build()
        }
        Op::SetMac { link, mac } => plain(netlink, link).await?.address(mac.0.to_vec()).build(),
        Op::SetMtu { link, mtu } => plain(netlink, link).await?.mtu(*mtu).build(),
        Op::Down { link } => plain(netlink, link).await?.down().build(),
        Op::Up { link } => plain(netlink, link).await?.up().build(),
        Op::Enslave { link, master } => {
            let master = index(netlink, master).await?;
            plain(netlink, link).await?.controller(master).build()
        }
        Op::Release { link } => plain(netlink, link).await?.nocontroller().build(),
        other => return Err(NetError::BadPlan(format!("'{other}' changes no existing link"))),
    };
    netlink.link().change(message).execute().await.map_err(|e| NetError::netlink(op.to_string(), e))
}

async fn plain(netlink: &Netlink, link: &str) -> Result<LinkMessageBuilder<LinkUnspec>, NetError> {
    Ok(LinkUnspec::new_with_index(index(netlink, link).await?))
}

/// Without its name: the kernel takes a name for a renaming, which it refuses while the link is up.
async fn existing_bond(netlink: &Netlink, link: &str) -> Result<LinkMessageBuilder<LinkBond>, NetError> {
    let index = index(netlink, link).await?;
    Ok(LinkMessageBuilder::<LinkBond>::new_with_info_kind(InfoKind::Bond).index(index))
}

/// All settings but the mode, which a bond with legs does not change.
fn bond(mut builder: LinkMessageBuilder<LinkBond>, set: &BondSettings) -> LinkMessageBuilder<LinkBond> {
    if set.arp_interval > 0 {
        builder = builder
            .arp_interval(set.arp_interval)
            .append_info_data(InfoBond::ArpIpTarget(set.arp_targets.clone()))
            .arp_validate(BondArpValidate::All)
            .append_info_data(InfoBond::MissedMax(set.missed_max));
    } else {
        builder = builder.miimon(set.miimon);
    }
    if set.is_lacp() {
        builder = builder.xmit_hash_policy(BondXmitHashPolicy::Layer34);
    } else {
        builder = builder.primary_reselect(BondPrimaryReselect::Failure);
    }
    builder.min_links(set.min_links)
}

fn address_message(index: u32, address: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.addr())));
    message
}

fn route_message(route: &RouteSpec, index: u32) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.to.network(), route.to.prefix_len())
        .output_interface(index)
        .table_id(route.table)
        .protocol(RouteProtocol::Static)
        .priority(route.metric);
    builder = match route.gateway {
        Some(gateway) => builder.gateway(gateway).scope(RouteScope::Universe),
        None => builder.scope(RouteScope::Link),
    };
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    builder.build()
}

fn rule_message(rule: &RuleSpec) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    match u8::try_from(rule.table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.attributes.push(RuleAttribute::Table(rule.table)),
    }
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix_len();
        message.attributes.push(RuleAttribute::Source(IpAddr::V4(from.addr())));
    }
    message
}
