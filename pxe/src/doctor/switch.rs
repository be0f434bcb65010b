//! What the switches say on the ports beneath an interface: LLDP, and spanning tree.
//!
//! Invariants: it sends nothing; it listens on an interface and on all devices beneath it (a bridge's ports, a bond's legs,
//! what a VLAN lies on) that have a link, for a bounded time.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayzero_model::lldp::{self, Heard};
use nix::libc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Finding, Severity, beneath};
use crate::config::ServedInterface;
use crate::net::first_packet;

/// A switch sends BPDUs every two seconds (802.1D's hello time). An edge port, too, may learn or find out for three seconds
/// after link-up that it is one (802.1D-2004's edge delay): only a port that does not forward for longer is none.
const HELLO: Duration = Duration::from_secs(7);
/// 802.1D's group address, and that of Cisco's per-VLAN spanning tree.
const STP_GROUPS: [[u8; 6]; 2] = [[0x01, 0x80, 0xc2, 0, 0, 0], [0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd]];
const EDGE: &str = "make the ports of hosts and of this machine edge ports (`portfast`, `spanning-tree port type edge`): others do not \
                    forward for 30 s after each link-up, and firmware's DHCP gives up before";

/// What one frame of spanning tree says of the port that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    /// 802.1D: nothing about the port.
    Classic,
    /// 802.1w and later: whether it forwards.
    Rapid { forwards: bool },
}

/// Listens beneath these interfaces, until each port heard LLDP, but at least until its port was seen to forward or not; at most for `time`.
pub(super) async fn switches(interfaces: &[&ServedInterface], time: Duration) -> Vec<Finding> {
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let end = start + time;
    for interface in interfaces {
        let sys = Path::new(beneath::SYS);
        let devices = beneath::stack(sys, &interface.device).into_iter();
        // Silence on a port without a link says nothing of the switch.
        for (device, leaf) in devices.filter(|(device, _)| !beneath::is_dead(sys, device)) {
            let interface = (*interface).clone();
            tasks.spawn(async move {
                let waits = AtomicBool::new(false);
                let (heard, tree) = tokio::join!(
                    first_packet(&device, lldp::ETHERTYPE, &[lldp::GROUP], end, |body| lldp::parse_body(
                        body
                    )
                    .ok()
                    .filter(|heard| heard.ttl > 0)),
                    first_packet(
                        &device,
                        libc::ETH_P_802_2 as u16,
                        &STP_GROUPS,
                        end.min(start + HELLO),
                        |body| { forwarding(body, &waits) }
                    ),
                );
                let waits = waits.into_inner().then_some(Tree::Rapid { forwards: false });
                let mut findings = Vec::new();
                match heard {
                    Ok(None) if !leaf => {}
                    heard => findings.push(neighbour(&device, heard, time).on(&interface)),
                }
                findings
                    .extend(tree.ok().flatten().or(waits).map(|tree| spanning(&device, tree).on(&interface)));
                findings
            });
        }
    }
    let mut all: Vec<Finding> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_by(|a, b| (a.check, &a.interface, &a.found).cmp(&(b.check, &b.interface, &b.found)));
    all
}

/// Reads a BPDU from its LLC header on: 802.1D, 802.1w, and Cisco's in a SNAP header.
fn tree(body: &[u8]) -> Option<Tree> {
    const LLC: &[u8] = &[0x42, 0x42, 3];
    const SNAP: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b];
    const RAPID: u8 = 2;
    const FORWARDING: u8 = 0x20;
    let bpdu = body.strip_prefix(LLC).or_else(|| body.strip_prefix(SNAP))?;
    match bpdu {
        [0, 0, 0, 0 | 0x80, ..] => Some(Tree::Classic),
        [0, 0, version, RAPID, flags, ..] if *version >= 2 => {
            Some(Tree::Rapid { forwards: flags & FORWARDING != 0 })
        }
        _ => None,
    }
}

/// Whether a BPDU's port forwards; none: it is no BPDU, or does not say.
pub(crate) fn forwards(body: &[u8]) -> Option<bool> {
    match tree(body)? {
        Tree::Rapid { forwards } => Some(forwards),
        Tree::Classic => None,
    }
}

/// A BPDU, but not of a port that may yet forward: that one is remembered.
fn forwarding(body: &[u8], waits: &AtomicBool) -> Option<Tree> {
    let tree = tree(body)?;
    waits.store(tree == Tree::Rapid { forwards: false }, Ordering::Relaxed);
    (tree != Tree::Rapid { forwards: false }).then_some(tree)
}

fn neighbour(device: &str, heard: io::Result<Option<Heard>>, time: Duration) -> Finding {
    let warning = |found: String, action: &str| Finding::new("lldp", Severity::Warning, found, action);
    match heard {
        Ok(Some(heard)) => {
            let name = heard.system_name.unwrap_or(heard.chassis_id);
            let described = heard.port_description.map_or_else(String::new, |text| format!(" ({text})"));
            let found = format!("{device} is on {name}, port {}{described}", heard.port_id);
            Finding::new("lldp", Severity::Good, found, "")
        }
        Ok(None) => warning(
            format!("{device} heard no LLDP in {} s", time.as_secs()),
            "switch LLDP on at the switch: without it the cabling cannot be checked",
        ),
        Err(error) => warning(format!("{device} cannot be listened on: {error}"), "run this as root"),
    }
}

fn spanning(device: &str, tree: Tree) -> Finding {
    let finding = |severity, found: String, action: &str| Finding::new("edge-port", severity, found, action);
    match tree {
        Tree::Rapid { forwards: false } => {
            let found = format!("the switch port of {device} does not forward yet: it is no edge port");
            finding(Severity::Fault, found, EDGE)
        }
        Tree::Rapid { forwards: true } => {
            let found = format!(
                "rapid spanning tree on {device}, and the port forwards; whether it is an edge port, only the switch says"
            );
            finding(Severity::Good, found, "")
        }
        Tree::Classic => {
            let found = format!(
                "spanning tree (802.1D) on {device}: its frames do not say whether the port is an edge port"
            );
            finding(Severity::Warning, found, EDGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpdus_tell_whether_their_port_forwards() {
        let rapid = |flags| [0x42, 0x42, 3, 0, 0, 2, 2, flags, 0];
        // Proposal, designated; then with learning and forwarding.
        assert_eq!(tree(&rapid(0x0e)), Some(Tree::Rapid { forwards: false }));
        assert_eq!(tree(&rapid(0x3c)), Some(Tree::Rapid { forwards: true }));
        assert_eq!(tree(&[0x42, 0x42, 3, 0, 0, 0, 0, 0]), Some(Tree::Classic));
        assert_eq!(tree(&[0x42, 0x42, 3, 0, 0, 0, 0x80]), Some(Tree::Classic), "a change of topology");
        let cisco = [0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b, 0, 0, 2, 2, 0x3c];
        assert_eq!(tree(&cisco), Some(Tree::Rapid { forwards: true }));
        for length in 0..8 {
            assert_eq!(tree(&rapid(0x3c)[..length.min(6)]), None, "{length}");
        }
        assert_eq!(tree(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 2, 180]), None, "Cisco's CDP");
        let rows = [
            (Tree::Classic, Severity::Warning),
            (Tree::Rapid { forwards: false }, Severity::Fault),
            (Tree::Rapid { forwards: true }, Severity::Good),
        ];
        for (tree, severity) in rows {
            let finding = spanning("eno1", tree);
            assert_eq!((finding.severity, finding.action.is_empty()), (severity, severity == Severity::Good));
        }
    }

    /// As Debian 12's Open vSwitch 3.1 and kernel 6.1 sent them, from link-up on: an RSTP port that is no edge port proposes
    /// for 20 s before it learns, and an edge port learns for a moment too.
    #[test]
    fn real_switches_ports_are_told_apart() {
        let rows: [(&[u8], Tree); 6] = [
            (include_bytes!("../../fuzz/seeds/frames/ovs-rstp-proposes"), Tree::Rapid { forwards: false }),
            (include_bytes!("../../fuzz/seeds/frames/ovs-rstp-learns"), Tree::Rapid { forwards: false }),
            (
                include_bytes!("../../fuzz/seeds/frames/ovs-rstp-topology-change"),
                Tree::Rapid { forwards: true },
            ),
            (include_bytes!("../../fuzz/seeds/frames/ovs-rstp-forwards"), Tree::Rapid { forwards: true }),
            (include_bytes!("../../fuzz/seeds/frames/kernel-stp"), Tree::Classic),
            (include_bytes!("../../fuzz/seeds/frames/kernel-stp-topology-change"), Tree::Classic),
        ];
        for (i, (frame, want)) in rows.into_iter().enumerate() {
            assert_eq!(tree(&frame[14..]), Some(want), "{i}");
            let waits = AtomicBool::new(false);
            let waiting = want == Tree::Rapid { forwards: false };
            assert_eq!(forwarding(&frame[14..], &waits), (!waiting).then_some(want), "{i}");
            assert_eq!(waits.into_inner(), waiting, "{i}");
        }
    }

    #[test]
    fn a_port_is_named_by_its_neighbour_or_by_its_silence() {
        let heard = Heard {
            system_name: Some("sw-a".into()),
            chassis_id: "02:00:00:00:aa:01".into(),
            port_id: "Ethernet1/7".into(),
            port_description: Some("appliance".into()),
            ttl: 120,
        };
        let found = neighbour("eno1", Ok(Some(heard.clone())), HELLO).found;
        assert_eq!(found, "eno1 is on sw-a, port Ethernet1/7 (appliance)");
        let nameless = Heard { system_name: None, port_description: None, ..heard };
        let found = neighbour("eno1", Ok(Some(nameless)), HELLO).found;
        assert_eq!(found, "eno1 is on 02:00:00:00:aa:01, port Ethernet1/7");
        assert_eq!(neighbour("eno1", Ok(None), HELLO).severity, Severity::Warning);
    }
}
