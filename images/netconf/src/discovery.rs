//! The network of the discovery image: one NIC with a static address; all other links up without one.

use crate::apply::{apply, index};
use crate::error::NetError;
use crate::netlink::Netlink;
use crate::observe::observe;
use crate::observed::Link;
use crate::op::{Op, RouteSpec};
use crate::plan::{MAIN, Plan, default};
use dayzero_model::ids::MacAddr;
use ipnet::Ipv4Net;
use rtnetlink::LinkUnspec;
use std::net::Ipv4Addr;

async fn run(ops: Vec<Op>) -> Result<(), NetError> {
    for status in apply(&Plan { ops, problems: Vec::new() }).await? {
        status.result?;
    }
    Ok(())
}

/// Brings `lo` and one NIC up, and gives it an address and, where given, the default route. Idempotent.
///
/// # Errors
/// [`NetError::NoSuchNic`], or the kernel's refusal.
pub async fn discovery_up(mac: MacAddr, address: Ipv4Net, gateway: Option<Ipv4Addr>) -> Result<(), NetError> {
    let observed = observe().await?;
    let nic = observed.nic(mac).ok_or_else(|| NetError::NoSuchNic { mac, present: observed.macs() })?;
    let link = nic.name.clone();
    let mut ops = vec![Op::Up { link: "lo".to_owned() }, Op::Up { link: link.clone() }];
    ops.push(Op::AddAddress { link: link.clone(), address });
    if let Some(gateway) = gateway {
        let route =
            RouteSpec { table: MAIN, to: default(), gateway: Some(gateway), link, source: None, metric: 0 };
        ops.push(Op::AddRoute(route));
    }
    run(ops).await
}

/// Brings NICs up without an address, so that carrier and LLDP can be seen; all NICs for an empty list.
///
/// # Errors
/// [`NetError::NoSuchNic`] for a MAC that is not there (the others are up then), or the kernel's refusal.
pub async fn all_up(macs: &[MacAddr]) -> Result<(), NetError> {
    let observed = observe().await?;
    let netlink = Netlink::open()?;
    let wanted: Vec<&Link> = if macs.is_empty() {
        observed.physical().collect()
    } else {
        macs.iter().filter_map(|mac| observed.nic(*mac)).collect()
    };
    for nic in wanted.into_iter().filter(|nic| !nic.up) {
        let message = LinkUnspec::new_with_index(index(&netlink, &nic.name).await?).up().build();
        let result = netlink.link().change(message).execute().await;
        result.map_err(|e| NetError::netlink(format!("bring {} up", nic.name), e))?;
    }
    match macs.iter().find(|mac| observed.nic(**mac).is_none()) {
        Some(mac) => Err(NetError::NoSuchNic { mac: *mac, present: observed.macs() }),
        None => Ok(()),
    }
}
