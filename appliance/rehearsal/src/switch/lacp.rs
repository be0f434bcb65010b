//! LACP of one switch port (IEEE 802.1AX): active, short timeout, as much of the state machines as a switch needs
//! that aggregates what its partner aggregates.
//!
//! Invariants: a partner is believed for 3 s after its last PDU; our Synchronization bit is set exactly while a
//! partner is believed; collecting and distributing follow the partner's own Synchronization bit. It does not
//! choose between ports: the switch's core does.

use super::frame::{ETH_SLOW, HEADER};
use dayzero_model::MacAddr;
use std::time::{Duration, Instant};

/// Slow-protocols group address; no bridge forwards it.
pub const SLOW_GROUP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x02]);
/// How long a partner is believed (short timeout: three fast periods).
pub const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between PDUs (fast periodic).
pub const FAST_PERIOD: Duration = Duration::from_secs(1);

const PDU: usize = 110;
const ACTIVITY: u8 = 0x01;
const TIMEOUT: u8 = 0x02;
const AGGREGATION: u8 = 0x04;
const SYNCHRONIZATION: u8 = 0x08;
const COLLECTING: u8 = 0x10;
const DISTRIBUTING: u8 = 0x20;
const DEFAULTED: u8 = 0x40;
const EXPIRED: u8 = 0x80;

/// One side of a link as a PDU carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// System priority.
    pub system_priority: u16,
    /// System id.
    pub system: [u8; 6],
    /// Operational key: ports of one key may aggregate.
    pub key: u16,
    /// Port priority.
    pub port_priority: u16,
    /// Port number.
    pub port: u16,
    /// State bits.
    pub state: u8,
}

impl Side {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            system_priority: word(0)?,
            system: bytes.get(2..8)?.try_into().ok()?,
            key: word(8)?,
            port_priority: word(10)?,
            port: word(12)?,
            state: *bytes.get(14)?,
        })
    }

    fn write(&self, kind: u8, out: &mut Vec<u8>) {
        out.extend([kind, 20]);
        out.extend(self.system_priority.to_be_bytes());
        out.extend(self.system);
        out.extend(self.key.to_be_bytes());
        out.extend(self.port_priority.to_be_bytes());
        out.extend(self.port.to_be_bytes());
        out.push(self.state);
        out.extend([0; 3]);
    }
}

/// Reads a LACPDU: the sender's side and what it believes of ours. None if it is no LACPDU version 1 or later.
pub fn read(frame: &[u8]) -> Option<(Side, Side)> {
    let pdu = frame.get(HEADER..)?;
    let known = pdu.len() >= PDU - HEADER
        && pdu[0] == 1
        && pdu[1] >= 1
        && pdu[2..4] == [1, 20]
        && pdu[22..24] == [2, 20];
    known.then_some(())?;
    Some((Side::read(&pdu[4..])?, Side::read(&pdu[24..])?))
}

/// Writes a LACPDU of 124 bytes.
pub fn write(source: MacAddr, actor: &Side, partner: &Side) -> Vec<u8> {
    let mut out = Vec::with_capacity(124);
    out.extend(SLOW_GROUP.0);
    out.extend(source.0);
    out.extend(ETH_SLOW.to_be_bytes());
    out.extend([1, 1]);
    actor.write(1, &mut out);
    partner.write(2, &mut out);
    out.extend([3, 16, 0, 0]);
    out.resize(124, 0);
    out
}

/// LACP of one port.
#[derive(Clone, Debug)]
pub struct Lacp {
    source: MacAddr,
    system: [u8; 6],
    key: u16,
    port: u16,
    partner: Option<Side>,
    believed_until: Option<Instant>,
    next_pdu: Option<Instant>,
}

impl Lacp {
    /// A port of `system` with number `port`, sending from `source`; ports of one LAG share `key`.
    pub fn new(source: MacAddr, system: [u8; 6], key: u16, port: u16) -> Self {
        Self { source, system, key, port, partner: None, believed_until: None, next_pdu: None }
    }

    /// Forgets the partner: the link went down, or the switch died.
    pub fn forget(&mut self) {
        self.partner = None;
        self.believed_until = None;
        self.next_pdu = None;
    }

    /// The partner, while it is believed: system and key tell which of its aggregators the port belongs to.
    pub fn partner(&self) -> Option<&Side> {
        self.partner.as_ref()
    }

    /// Whether data may pass: both sides are in sync.
    pub fn is_bundled(&self) -> bool {
        self.partner.is_some_and(|partner| partner.state & SYNCHRONIZATION != 0)
    }

    fn actor(&self) -> Side {
        let mut state = ACTIVITY | TIMEOUT | AGGREGATION;
        match &self.partner {
            None => state |= DEFAULTED,
            Some(_) => state |= SYNCHRONIZATION,
        }
        if self.is_bundled() {
            state |= COLLECTING | DISTRIBUTING;
        }
        Side {
            system_priority: 100,
            system: self.system,
            key: self.key,
            port_priority: 255,
            port: self.port,
            state,
        }
    }

    /// Takes a PDU in. True if what we have to say changed: a PDU is then due at once.
    pub fn pdu_in(&mut self, frame: &[u8], now: Instant) -> bool {
        let Some((sender, _)) = read(frame) else { return false };
        // Our own PDU, looped back: a partner must be another system that can aggregate.
        if sender.system == self.system || sender.state & AGGREGATION == 0 {
            return false;
        }
        let changed = self.partner != Some(sender);
        self.partner = Some(sender);
        self.believed_until = Some(now + SHORT_TIMEOUT);
        if changed {
            self.next_pdu = None;
        }
        changed
    }

    /// Lets time pass. Gives a PDU if one is due, and whether the partner was just given up.
    pub fn tick(&mut self, now: Instant) -> (Option<Vec<u8>>, bool) {
        let expired = self.believed_until.is_some_and(|until| now >= until);
        if expired {
            self.forget();
        }
        if self.next_pdu.is_some_and(|next| now < next) {
            return (None, expired);
        }
        self.next_pdu = Some(now + FAST_PERIOD);
        let partner = self.partner.unwrap_or_default();
        (Some(write(self.source, &self.actor(), &partner)), expired)
    }
}

/// The bits of a state octet in words, for status and logs.
pub fn state_words(state: u8) -> String {
    let names = [
        (ACTIVITY, "active"),
        (TIMEOUT, "short"),
        (AGGREGATION, "aggregable"),
        (SYNCHRONIZATION, "sync"),
        (COLLECTING, "collecting"),
        (DISTRIBUTING, "distributing"),
        (DEFAULTED, "defaulted"),
        (EXPIRED, "expired"),
    ];
    let set: Vec<_> = names.iter().filter(|(bit, _)| state & bit != 0).map(|(_, name)| *name).collect();
    set.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const SYSTEM: [u8; 6] = [2, 0, 0, 0xaa, 0xbb, 1];

    fn host_pdu(state: u8) -> Vec<u8> {
        let actor =
            Side { system_priority: 65535, system: HOST.0, key: 9, port_priority: 255, port: 1, state };
        write(HOST, &actor, &Side::default())
    }

    fn port() -> Lacp {
        Lacp::new(MacAddr([2, 0, 0, 0, 0, 9]), SYSTEM, 7, 3)
    }

    #[test]
    fn a_port_without_partner_says_so_each_second() {
        let (mut port, start) = (port(), Instant::now());
        let (pdu, _) = port.tick(start);
        let (actor, partner) = read(&pdu.unwrap()).unwrap();
        assert_eq!(state_words(actor.state), "active short aggregable defaulted");
        assert_eq!((actor.key, actor.port, partner), (7, 3, Side::default()));
        assert!(port.tick(start + Duration::from_millis(900)).0.is_none());
        assert!(port.tick(start + Duration::from_secs(1)).0.is_some());
    }

    #[test]
    fn sync_then_collecting_then_expiry() {
        let (mut port, start) = (port(), Instant::now());
        port.tick(start);
        assert!(port.pdu_in(&host_pdu(ACTIVITY | AGGREGATION), start));
        assert!(!port.is_bundled());
        let (actor, partner) = read(&port.tick(start).0.expect("a change is told at once")).unwrap();
        assert_eq!(state_words(actor.state), "active short aggregable sync");
        assert_eq!(partner.system, HOST.0);
        assert!(port.pdu_in(&host_pdu(ACTIVITY | AGGREGATION | SYNCHRONIZATION), start));
        assert!(port.is_bundled());
        let (actor, _) = read(&port.tick(start).0.unwrap()).unwrap();
        assert_eq!(state_words(actor.state), "active short aggregable sync collecting distributing");
        let (_, expired) = port.tick(start + SHORT_TIMEOUT - Duration::from_millis(1));
        assert!(!expired && port.is_bundled());
        let (_, expired) = port.tick(start + SHORT_TIMEOUT);
        assert!(expired && !port.is_bundled() && port.partner().is_none());
    }

    #[test]
    fn own_individual_and_broken_pdus_make_no_partner() {
        let (mut port, now) = (port(), Instant::now());
        let own = port.tick(now).0.unwrap();
        let mut short = host_pdu(AGGREGATION);
        short.truncate(60);
        let mut marker = host_pdu(AGGREGATION);
        marker[14] = 2;
        for frame in [own, host_pdu(ACTIVITY), short, marker, Vec::new()] {
            assert!(!port.pdu_in(&frame, now));
            assert!(port.partner().is_none());
        }
    }
}
