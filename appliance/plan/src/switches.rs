//! "Before you plug it in": what each switch port must be set to, from the plan, as text for the person at the switch.
//!
//! Invariants: one line a cabled port; what a bond needs of its switches is said for the switches, not per vendor. It
//! configures no switch.

use dayzero_model::Name;
use dayzero_model::site::{BondMode, Network, NetworkRole, Placed, Site, Switch, SwitchPort, SwitchRole};
use std::collections::BTreeMap;

/// What the switches must be set to.
pub fn switch_settings(site: &Site) -> String {
    let mut text = format!("Before you plug it in: the switches of site {}\n", site.name);
    let mut ports: BTreeMap<&Name, Vec<(&SwitchPort, String)>> = BTreeMap::new();
    for placed in site.hosts() {
        pod_ports(site, placed, &mut ports);
        storage_ports(site, placed, &mut ports);
    }
    stacks(site, &mut text);
    for switch in &site.switches {
        text.push_str(&format!("\n{}\n", title(switch)));
        let mut rows = ports.remove(&switch.name).unwrap_or_default();
        rows.sort_by_key(|(port, _)| (port.port.parse::<u64>().unwrap_or(u64::MAX), &port.port));
        let width = rows.iter().map(|(port, _)| port.port.chars().count()).max().unwrap_or(0);
        for (port, setting) in &rows {
            text.push_str(&format!("  port {:<width$}  {setting}\n", port.port));
        }
        match switch.role {
            SwitchRole::Bmc => bmc(site, &mut text),
            _ if rows.is_empty() => text.push_str("  no port of it is cabled to a host of this plan\n"),
            _ => {}
        }
    }
    everywhere(site, &mut text);
    text
}

fn title(switch: &Switch) -> String {
    let role = match switch.role {
        SwitchRole::Access => "access",
        SwitchRole::Storage => "storage",
        SwitchRole::Bmc => "BMC",
    };
    match &switch.stack {
        Some(stack) => format!("Switch {} ({role}, member of stack {stack})", switch.name),
        None => format!("Switch {} ({role})", switch.name),
    }
}

fn stacks(site: &Site, text: &mut String) {
    let mut stacks: BTreeMap<&Name, Vec<&str>> = BTreeMap::new();
    for switch in &site.switches {
        if let Some(stack) = &switch.stack {
            stacks.entry(stack).or_default().push(switch.name.as_str());
        }
    }
    for (stack, members) in stacks {
        text.push_str(&format!(
            "\nStack {stack}: {} are one LACP system (stack or MLAG): one system id, the peer link carries all VLANs below.\n",
            members.join(" and ")
        ));
    }
}

fn network(network: &Network) -> String {
    format!("{} ({})", network.name, network.cidr)
}

fn pod_ports<'a>(
    site: &'a Site,
    at: Placed<'a>,
    ports: &mut BTreeMap<&'a Name, Vec<(&'a SwitchPort, String)>>,
) {
    let (host, legs) = (at.host, &at.host.bond.nics);
    let native = site.network(&at.pod.network).map_or_else(|| at.pod.network.to_string(), network);
    let guest = at.cluster.guest_network.as_ref().and_then(|name| site.network(name));
    let tagged = match guest.and_then(|guest| Some((guest, guest.vlan?))) {
        Some((guest, vlan)) => format!("tagged {vlan} = {}", network(guest)),
        None => "nothing tagged".to_owned(),
    };
    for leg in legs {
        let others = legs.iter().filter(|other| other.port != leg.port).map(|other| other.port.to_string());
        let others = others.collect::<Vec<_>>().join(", ");
        let bond = match host.bond.mode {
            BondMode::Lacp => {
                format!("LACP with {others}, short timeout, fallback to a single port without LACPDUs")
            }
            BondMode::ActiveBackup => "no LACP, no static aggregation".to_owned(),
        };
        let setting = format!("{} {}: untagged {native}; {tagged}; {bond}", host.name, leg.role);
        ports.entry(&leg.port.switch).or_default().push((&leg.port, setting));
    }
}

fn storage_ports<'a>(
    site: &'a Site,
    at: Placed<'a>,
    ports: &mut BTreeMap<&'a Name, Vec<(&'a SwitchPort, String)>>,
) {
    for nic in &at.host.storage_nics {
        let Some(net) = site.network(&nic.network) else { continue };
        let how = net.vlan.map_or("untagged".to_owned(), |vlan| format!("tagged {vlan}"));
        let setting = format!("{} {}: {how} {}; no aggregation", at.host.name, nic.role, network(net));
        ports.entry(&nic.port.switch).or_default().push((&nic.port, setting));
    }
}

fn bmc(site: &Site, text: &mut String) {
    for net in site.networks.iter().filter(|net| net.role == NetworkRole::Bmc) {
        text.push_str(&format!(
            "  every port of a BMC: untagged {}; the plan names no ports here\n",
            network(net)
        ));
    }
}

fn everywhere(site: &Site, text: &mut String) {
    text.push_str("\nOn every port above\n");
    text.push_str("  spanning tree: edge port (portfast): firmware gives up on DHCP before a port that listens and learns forwards\n");
    text.push_str("  LLDP: transmit system name and port id, as the plan spells them; without, cabling cannot be checked\n");
    let mtu = site.networks.iter().map(|net| net.mtu).max().unwrap_or(1500);
    text.push_str(&format!(
        "  MTU: at least {mtu} bytes of IP (frames of {} with VLAN tag and checksum)\n",
        mtu + 22
    ));
    text.push_str("  port security: off, or at least 16 addresses, since VMs are behind the port\n");
    text.push_str("\nThe appliance\n");
    for net in &site.networks {
        let Some(address) = net.appliance else { continue };
        let how = net.vlan.map_or("untagged".to_owned(), |vlan| {
            format!("tagged {vlan}, or a port of its own in that VLAN")
        });
        text.push_str(&format!("  {address} on {}: {how}\n", network(net)));
    }
    text.push_str("  DHCP snooping: trust the appliance's ports; beside another DHCP server, that one must not answer these networks\n");
}
