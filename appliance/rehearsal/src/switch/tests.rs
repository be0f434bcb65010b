//! What the switch core promises, frame by frame.

use super::core::{LLDP_PERIOD, Mode, PortConfig, PortId, Role, Switch};
use super::frame::{Head, add_tag};
use super::lacp::{self, SHORT_TIMEOUT, Side};
use dayzero_model::MacAddr;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const HOST1: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 1, 1]);
const HOST2: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 2, 1]);
const CTL: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 2]);
const ALL: MacAddr = MacAddr([0xff; 6]);
/// Aggregable, active, short timeout, in sync.
const IN_SYNC: u8 = 0x0f;

/// A stack of two members; host 1 in LAG 0 (ports 0, 1), host 2 plain (2, 3), control on the stack (4), guests' side
/// of control in VLAN 100 (5).
struct Rig {
    switch: Switch,
    now: Instant,
}

fn frame(to: MacAddr, from: MacAddr) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend([0x08, 0x00]);
    frame.extend([0x45; 50]);
    frame
}

fn tagged(to: MacAddr, from: MacAddr, vlan: u16) -> Vec<u8> {
    let mut out = Vec::new();
    add_tag(&frame(to, from), vlan, &mut out);
    out
}

impl Rig {
    fn new() -> Self {
        let mut switch = Switch::new(1, &["sw-a", "sw-b"]);
        let trunk = Mode::Trunk { native: 1, tagged: vec![100] };
        for (host, lag) in [("1", Some(0)), ("2", None)] {
            for member in [0, 1] {
                switch.add_port(PortConfig {
                    member: Some(member),
                    name: host.into(),
                    mode: trunk.clone(),
                    lag,
                });
            }
        }
        for vlan in [1, 100] {
            switch.add_port(PortConfig {
                member: None,
                name: String::new(),
                mode: Mode::Access(vlan),
                lag: None,
            });
        }
        for port in 0..6 {
            switch.set_carrier(PortId(port), true);
        }
        Self { switch, now: Instant::now() }
    }

    fn send(&mut self, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut out = Vec::new();
        self.switch
            .frame_in(PortId(port), frame, self.now, &mut |port, frame| out.push((port.0, frame.to_vec())));
        out
    }

    fn ports(&mut self, port: u16, frame: &[u8]) -> Vec<u16> {
        self.send(port, frame).into_iter().map(|(port, _)| port).collect()
    }

    fn wait(&mut self, span: Duration) -> Vec<(u16, Vec<u8>)> {
        self.now += span;
        let mut out = Vec::new();
        self.switch.tick(self.now, &mut |port, frame| out.push((port.0, frame.to_vec())));
        out
    }

    fn lacpdu(&mut self, port: u16, state: u8) -> Vec<(u16, Vec<u8>)> {
        let actor = Side { system: HOST1.0, key: 9, port: port + 1, state, ..Side::default() };
        self.send(port, &lacp::write(HOST1, &actor, &Side::default()))
    }

    fn bond(mut self) -> Self {
        self.lacpdu(0, IN_SYNC);
        self.lacpdu(1, IN_SYNC);
        assert_eq!(self.roles(), [Role::Leg(0), Role::Leg(0), Role::Alone, Role::Alone]);
        self
    }

    fn roles(&self) -> [Role; 4] {
        [0, 1, 2, 3].map(|port| self.switch.role(PortId(port)))
    }
}

#[test]
fn vlans_are_kept_apart_and_tags_fit_the_port() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.ports(4, &frame(ALL, CTL)),
        [0, 1, 2, 3],
        "management: untagged to trunks, not to VLAN 100"
    );
    let out = rig.send(5, &frame(ALL, CTL));
    assert_eq!(out.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(
        out.iter().all(|(_, frame)| Head::read(frame).unwrap().tag == Some(100)),
        "guests: tagged to trunks"
    );
    let out = rig.send(2, &tagged(CTL, HOST2, 100));
    assert_eq!(out, [(5, frame(CTL, HOST2))], "untagged to the access port, by the learned address");
    assert_eq!(rig.ports(4, &tagged(ALL, CTL, 100)), [] as [u16; 0], "an access port takes no tag");
    assert_eq!(rig.ports(0, &tagged(ALL, HOST1, 7)), [] as [u16; 0], "a VLAN that the trunk does not carry");
    let out = rig.send(4, &tagged(HOST2, CTL, 0));
    assert!(out.iter().all(|(_, got)| *got == frame(HOST2, CTL)), "a priority tag is no VLAN");
}

#[test]
fn unicast_goes_to_the_learned_port_until_its_link_drops() {
    let mut rig = Rig::new();
    rig.send(2, &frame(ALL, HOST2));
    assert_eq!(rig.ports(4, &frame(HOST2, CTL)), [2]);
    rig.send(3, &frame(ALL, HOST2));
    assert_eq!(rig.ports(4, &frame(HOST2, CTL)), [3], "the address moved");
    rig.switch.set_carrier(PortId(3), false);
    assert_eq!(rig.ports(4, &frame(HOST2, CTL)), [0, 1, 2], "flushed: flooded, not lost");
    assert_eq!(rig.ports(3, &frame(CTL, HOST2)), [] as [u16; 0], "nothing comes in without carrier");
    assert_eq!(rig.ports(2, &frame(HOST2, CTL)), [0, 1, 4], "its own flood does not come back");
    assert_eq!(
        rig.ports(2, &frame(CTL, HOST2)),
        [] as [u16; 0],
        "control moved to port 2: never out of where it came in"
    );
}

#[test]
fn active_backup_sees_its_own_broadcast_on_the_other_leg() {
    // ARP validation of the backup leg lives by this.
    assert_eq!(Rig::new().ports(2, &frame(ALL, HOST2)), [0, 1, 3, 4]);
}

#[test]
fn lag_carries_each_frame_on_one_leg_and_reflects_none() {
    let mut rig = Rig::new().bond();
    for last in 0..=255 {
        let from = MacAddr([2, 0, 0, 0, 0, last]);
        let out = rig.ports(4, &frame(ALL, from));
        assert_eq!(out.iter().filter(|port| **port < 2).count(), 1, "{out:?}");
    }
    assert_eq!(rig.ports(0, &frame(ALL, HOST1)), [2, 3, 4]);
    assert_eq!(rig.ports(1, &frame(ALL, HOST1)), [2, 3, 4]);
    assert_eq!(rig.ports(0, &frame(HOST1, CTL)).len(), 0, "behind the same LAG");
    assert_eq!(rig.ports(4, &frame(HOST1, HOST2)).len(), 1);
}

#[test]
fn a_pulled_leg_moves_its_flows_to_the_other_at_once() {
    let mut rig = Rig::new().bond();
    rig.send(0, &frame(ALL, HOST1));
    for (pulled, left) in [(0, 1), (1, 0)] {
        rig.switch.set_carrier(PortId(pulled), false);
        for last in [0, 1] {
            assert_eq!(
                rig.ports(4, &frame(HOST1, MacAddr([2, 0, 0, 0, 0, last]))),
                [left],
                "no flood either"
            );
        }
        rig.switch.set_carrier(PortId(pulled), true);
        assert_eq!(rig.switch.role(PortId(pulled)), Role::Closed, "silent until it speaks LACP again");
        rig.lacpdu(pulled, IN_SYNC);
        assert_eq!(rig.switch.role(PortId(pulled)), Role::Leg(0));
    }
}

#[test]
fn a_dead_member_is_silent_with_its_carrier_up() {
    let mut rig = Rig::new().bond();
    rig.send(2, &frame(ALL, HOST2));
    rig.switch.set_alive(0, false);
    assert_eq!(rig.roles(), [Role::Closed, Role::Leg(0), Role::Closed, Role::Alone]);
    assert_eq!(rig.ports(0, &frame(ALL, HOST1)), [] as [u16; 0]);
    assert_eq!(rig.ports(4, &frame(HOST2, CTL)), [3, 1]);
    assert_eq!(rig.lacpdu(0, IN_SYNC), [], "no LACP");
    let said: Vec<_> = rig.wait(Duration::from_secs(2)).into_iter().map(|(port, _)| port).collect();
    assert!(said.contains(&1) && said.contains(&3) && !said.contains(&0) && !said.contains(&2), "{said:?}");
    rig.switch.set_alive(0, true);
    assert_eq!(rig.roles(), [Role::Closed, Role::Leg(0), Role::Alone, Role::Alone]);
}

#[test]
fn a_muted_port_is_a_dead_switch_for_its_host_alone() {
    let mut rig = Rig::new().bond();
    rig.switch.set_forwarding(PortId(0), false);
    assert_eq!(rig.roles(), [Role::Closed, Role::Leg(0), Role::Alone, Role::Alone]);
    assert_eq!(rig.lacpdu(0, IN_SYNC), []);
    rig.switch.set_forwarding(PortId(0), true);
    rig.lacpdu(0, IN_SYNC);
    assert_eq!(rig.switch.role(PortId(0)), Role::Leg(0));
}

#[test]
fn fallback_forwards_alone_until_lacp_and_again_after_silence() {
    let mut rig = Rig::new();
    assert_eq!(rig.roles()[..2], [Role::Alone, Role::Alone], "firmware can PXE");
    rig.send(0, &frame(ALL, HOST1));
    let answer = rig.lacpdu(0, 0x07);
    assert_eq!(answer.len(), 1, "a new partner is answered at once");
    assert_eq!(
        rig.roles()[..2],
        [Role::Closed, Role::Closed],
        "not in sync yet; the other leg must not loop"
    );
    rig.lacpdu(0, IN_SYNC);
    assert_eq!(rig.roles()[..2], [Role::Leg(0), Role::Closed]);
    assert_eq!(
        rig.ports(4, &frame(HOST1, CTL)),
        [2, 3, 0],
        "what fallback had learned is forgotten, not black-holed"
    );
    rig.wait(SHORT_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.roles()[..2], [Role::Leg(0), Role::Closed]);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.roles()[..2], [Role::Alone, Role::Alone]);
}

#[test]
fn without_fallback_a_port_has_a_link_and_lldp_and_forwards_nothing_until_lacp() {
    let mut rig = Rig::new();
    rig.switch.set_fallback(0, false);
    assert_eq!(
        rig.roles(),
        [Role::Closed, Role::Closed, Role::Alone, Role::Alone],
        "the other host's LAG has it"
    );
    assert!(rig.ports(0, &frame(ALL, HOST1)).is_empty(), "firmware cannot PXE");
    let mut heard = Vec::new();
    rig.switch.tick(rig.now + LLDP_PERIOD, &mut |port, bytes| heard.push((port, bytes.to_vec())));
    let lldp =
        |at: u16| heard.iter().any(|(port, bytes)| *port == PortId(at) && bytes[12..14] == [0x88, 0xcc]);
    assert!(lldp(0) && lldp(1), "{heard:?}");
    let mut rig = rig.bond();
    assert_eq!(
        rig.roles()[..2],
        [Role::Leg(0), Role::Leg(0)],
        "an operating system that speaks LACP is served"
    );
    rig.wait(SHORT_TIMEOUT);
    assert_eq!(rig.roles()[..2], [Role::Closed, Role::Closed]);
    rig.switch.set_fallback(0, true);
    assert_eq!(rig.roles()[..2], [Role::Alone, Role::Alone]);
}

#[test]
fn a_second_partner_on_the_same_lag_stays_out() {
    let mut rig = Rig::new();
    rig.lacpdu(0, IN_SYNC);
    let other = Side { system: HOST2.0, key: 9, port: 1, state: IN_SYNC, ..Side::default() };
    rig.send(1, &lacp::write(HOST2, &other, &Side::default()));
    assert_eq!(rig.roles()[..2], [Role::Leg(0), Role::Closed], "mis-cabled: two hosts are no LAG");
}

#[test]
fn lldp_names_member_and_port_and_is_never_forwarded() {
    let mut rig = Rig::new();
    let said = rig.wait(Duration::ZERO);
    let lldp: Vec<_> =
        said.iter().filter(|(_, frame)| Head::read(frame).unwrap().ethertype == 0x88cc).collect();
    assert_eq!(
        lldp.iter().map(|(port, _)| *port).collect::<Vec<_>>(),
        [0, 1, 2, 3],
        "not to the stack's own ports"
    );
    assert!(lldp[1].1.windows(4).any(|bytes| bytes == b"sw-b"));
    let again = rig.wait(Duration::from_millis(1999));
    assert!(again.iter().all(|(_, frame)| Head::read(frame).unwrap().ethertype != 0x88cc));
    assert!(
        rig.wait(Duration::from_millis(1))
            .iter()
            .any(|(_, frame)| Head::read(frame).unwrap().ethertype == 0x88cc)
    );
    for last in 0..=15 {
        let reserved = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
        assert_eq!(rig.ports(2, &frame(reserved, HOST2)), [] as [u16; 0]);
    }
}

proptest! {
    /// Whatever arrives in whatever order of faults: nothing goes back where it came from, nothing leaves twice by a
    /// LAG, nothing leaves by a closed port.
    #[test]
    fn no_loop_and_no_copy_under_faults(steps in proptest::collection::vec((0u8..6, 0u16..6, 0u8..8), 1..200)) {
        let mut rig = Rig::new();
        for (kind, port, mac) in steps {
            let from = MacAddr([2, 0, 0, 0, 0, mac]);
            match kind {
                0 => rig.switch.set_carrier(PortId(port), mac & 1 == 0),
                1 => rig.switch.set_alive(usize::from(port & 1), mac & 1 == 0),
                2 => { rig.lacpdu(port & 1, if mac & 1 == 0 { IN_SYNC } else { 0x07 }); }
                3 => { rig.wait(Duration::from_millis(u64::from(mac) * 400)); }
                _ => {
                    let to = if kind == 4 { ALL } else { MacAddr([2, 0, 0, 0, 0, mac ^ 1]) };
                    let before = rig.switch.role(PortId(port));
                    let out = rig.ports(port, &frame(to, from));
                    prop_assert!(!out.contains(&port));
                    prop_assert!(before != Role::Closed || out.is_empty());
                    let legs = out.iter().filter(|port| rig.switch.role(PortId(**port)) == Role::Leg(0)).count();
                    prop_assert!(legs <= 1 && (legs == 0 || before != Role::Leg(0)));
                    prop_assert!(out.iter().all(|port| rig.switch.role(PortId(*port)) != Role::Closed));
                }
            }
        }
    }

    /// Any bytes at all are survived.
    #[test]
    fn hostile_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), port in 0u16..8) {
        let mut rig = Rig::new();
        rig.send(port, &bytes);
        let slow = [&lacp::SLOW_GROUP.0[..], &HOST1.0, &[0x88, 0x09], &bytes].concat();
        rig.send(port, &slow);
    }
}
