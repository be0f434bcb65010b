//! Datagrams of the boot network, by MAC, in memory.
//!
//! Purpose: `dayzero pcap` and the recordings of failed boots. Invariants: keeping one costs a copy of its octets into the
//! ring of its MAC, and no allocation once that ring has grown (a new MAC gets the ring of one that went); memory is
//! bounded for each MAC and in all, and hosts of the plan and strangers do not drive each other out; when there is no room,
//! the MAC that was silent longest goes (by second chance: nothing is reordered when a datagram comes). Limits: what is no
//! datagram (HTTP, TLS) is not here, so that no token and no body of a request can be.

use dayzero_model::datagram::{Datagram, Wire};
use dayzero_model::ids::MacAddr;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Datagrams kept of a MAC: some twenty boots by PXE.
const KEEP: usize = 256;
/// Octets kept of a MAC.
const KEEP_BYTES: usize = 96 << 10;
/// Longest datagram that is kept whole.
const SNAP: usize = 2048;
/// What all rings of hosts of the plan may take, and all others.
const HOSTS: usize = 12 << 20;
const STRANGERS: usize = 4 << 20;
/// Empty rings that wait for new MACs, and what each may take: more than a machine's first lease needs.
const SPARE: usize = 64;
const SPARE_BYTES: usize = 4 << 10;
/// Interfaces that are told apart.
const INTERFACES: usize = 256;

/// A datagram that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Microseconds since 1970.
    pub at: u64,
    /// Interface.
    pub interface: Arc<str>,
    /// We sent it.
    pub sent: bool,
    /// What lies around it.
    pub wire: Wire,
    /// Its octets, perhaps not all of them.
    pub bytes: Vec<u8>,
    /// How many it has.
    pub length: usize,
}

struct Head {
    number: u64,
    at: u64,
    interface: usize,
    sent: bool,
    wire: Wire,
    kept: usize,
    length: usize,
}

/// What one datagram costs beside its octets.
const HEAD: usize = size_of::<Head>();

/// The ring of one MAC.
#[derive(Default)]
struct Tape {
    heads: VecDeque<Head>,
    bytes: VecDeque<u8>,
    /// The store has all up to this number.
    stored: u64,
}

impl Tape {
    /// What it takes, filled or not: one that another MAC has grown takes as much with one datagram.
    fn size(&self) -> usize {
        self.bytes.capacity() + self.heads.capacity() * HEAD
    }

    fn newest(&self) -> u64 {
        self.heads.back().map_or(0, |head| head.number)
    }

    fn push(&mut self, head: Head, bytes: &[u8]) {
        while self.heads.len() >= KEEP || self.bytes.len() + bytes.len() > KEEP_BYTES {
            let Some(oldest) = self.heads.pop_front() else { return };
            self.bytes.drain(..oldest.kept);
        }
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let room = (self.bytes.capacity() * 2).min(KEEP_BYTES).max(needed);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.heads.push_back(head);
        self.bytes.extend(bytes);
    }
}

/// The rings of one kind of MACs.
struct Tapes {
    by_mac: HashMap<MacAddr, Tape>,
    /// Each MAC once, with the number of its newest datagram when it was put here.
    queue: VecDeque<(MacAddr, u64)>,
    /// Empty ones, each with little room; not of `size`.
    spare: Vec<Tape>,
    size: usize,
    most: usize,
}

impl Tapes {
    fn new(most: usize) -> Self {
        Self { by_mac: HashMap::new(), queue: VecDeque::new(), spare: Vec::new(), size: 0, most }
    }

    fn push(&mut self, mac: MacAddr, head: Head, bytes: &[u8]) {
        let (queue, spare, size) = (&mut self.queue, &mut self.spare, &mut self.size);
        let number = head.number;
        let tape = self.by_mac.entry(mac).or_insert_with(|| {
            queue.push_back((mac, number));
            let tape = spare.pop().unwrap_or_default();
            *size += tape.size();
            tape
        });
        let before = tape.size();
        tape.push(head, bytes);
        *size = *size + tape.size() - before;
        while self.size > self.most {
            let Some((mac, number)) = self.queue.pop_front() else { return };
            match self.by_mac.get(&mac).map(Tape::newest) {
                Some(newest) if newest > number => self.queue.push_back((mac, newest)),
                _ => self.forget(mac),
            }
        }
    }

    fn forget(&mut self, mac: MacAddr) {
        let Some(mut tape) = self.by_mac.remove(&mac) else { return };
        self.size -= tape.size();
        if self.spare.len() < SPARE && tape.size() <= SPARE_BYTES {
            tape.heads.clear();
            tape.bytes.clear();
            tape.stored = 0;
            self.spare.push(tape);
        }
    }
}

/// All rings.
pub(crate) struct Captures {
    /// Strangers', hosts'.
    tapes: [Tapes; 2],
    interfaces: Vec<Arc<str>>,
    next: u64,
}

impl Default for Captures {
    fn default() -> Self {
        Self { tapes: [Tapes::new(STRANGERS), Tapes::new(HOSTS)], interfaces: Vec::new(), next: 1 }
    }
}

impl Captures {
    /// Keeps one.
    pub(crate) fn keep(&mut self, datagram: &Datagram<'_>) {
        let Datagram { at, of_host, sent, wire, bytes, length, .. } = *datagram;
        let Some(mac) = datagram.mac else { return };
        let bytes = &bytes[..bytes.len().min(SNAP)];
        let interface = self.interface(datagram.interface);
        let number = self.next;
        self.next += 1;
        let head = Head { number, at, interface, sent, wire, kept: bytes.len(), length };
        self.tapes[usize::from(of_host)].push(mac, head, bytes);
    }

    fn interface(&mut self, name: &str) -> usize {
        match self.interfaces.iter().position(|known| **known == *name) {
            Some(place) => place,
            None if self.interfaces.len() < INTERFACES => {
                self.interfaces.push(name.into());
                self.interfaces.len() - 1
            }
            // Nobody has so many; the datagram counts more than its interface's name.
            None => 0,
        }
    }

    /// The store has what is kept of this MAC.
    pub(crate) fn stored(&mut self, mac: MacAddr, count: usize) {
        for tape in self.tapes.iter_mut().filter_map(|tapes| tapes.by_mac.get_mut(&mac)) {
            let new = tape.heads.iter().filter(|head| head.number > tape.stored).take(count);
            tape.stored = new.last().map_or(tape.stored, |head| head.number);
        }
    }

    /// What is kept of these MACs and is not in the store, in the order in which it came.
    pub(crate) fn of(&self, macs: &[MacAddr]) -> Vec<Kept> {
        let mut found: Vec<(u64, Kept)> = Vec::new();
        for tape in self.tapes.iter().flat_map(|tapes| macs.iter().filter_map(|mac| tapes.by_mac.get(mac))) {
            let mut from = 0;
            for head in &tape.heads {
                let bytes = tape.bytes.range(from..from + head.kept);
                from += head.kept;
                if head.number <= tape.stored {
                    continue;
                }
                let interface = Arc::clone(&self.interfaces[head.interface]);
                let (at, sent, wire, length) = (head.at, head.sent, head.wire, head.length);
                let bytes = bytes.copied().collect();
                found.push((head.number, Kept { at, interface, sent, wire, bytes, length }));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, kept)| kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: Wire = Wire::Arp { from: MacAddr([2, 0, 0, 0, 0, 9]), to: MacAddr([0xff; 6]) };

    fn mac(number: usize) -> MacAddr {
        let [.., a, b, c] = number.to_be_bytes();
        MacAddr([2, 0, 0, a, b, c])
    }

    fn keep(captures: &mut Captures, at: u64, mac: MacAddr, of_host: bool, bytes: &[u8]) {
        let (interface, sent, length) = ("mgmt0", false, bytes.len());
        captures.keep(&Datagram { at, interface, mac: Some(mac), of_host, sent, wire: WIRE, bytes, length });
    }

    #[test]
    fn a_macs_ring_is_bounded_by_number_and_by_octets_and_loses_the_oldest() {
        let mut captures = Captures::default();
        for at in 1..=1000 {
            keep(&mut captures, at, mac(1), true, &at.to_be_bytes());
        }
        let kept = captures.of(&[mac(1)]);
        assert_eq!((kept.len(), kept[0].at, kept[KEEP - 1].at), (KEEP, 745, 1000));
        assert!(kept.iter().all(|one| one.bytes == one.at.to_be_bytes() && one.length == 8));
        captures.stored(mac(1), 250);
        assert_eq!(captures.of(&[mac(1)]).len(), KEEP - 250, "only what the store has not");
        captures.stored(mac(1), KEEP);
        assert!(captures.of(&[mac(1)]).is_empty());

        for at in 1..=1000 {
            keep(&mut captures, at, mac(2), true, &[at as u8; 4000]);
        }
        let kept = captures.of(&[mac(2)]);
        assert_eq!((kept.len(), kept[0].bytes.len(), kept[0].length), (KEEP_BYTES / SNAP, SNAP, 4000));
        assert!(captures.tapes[1].by_mac.values().all(|tape| tape.size() <= KEEP_BYTES + KEEP * HEAD));
        assert_eq!(kept.last().unwrap().bytes, [1000_u64 as u8; SNAP]);
    }

    #[test]
    fn a_storm_of_strangers_drives_out_the_silent_ones_and_no_host() {
        let mut captures = Captures::default();
        keep(&mut captures, 1, mac(0xffff), true, b"a host, long silent");
        for round in 0..60_000_usize {
            keep(&mut captures, 2, mac(round), false, &[0; 300]);
            // One that keeps asking.
            keep(&mut captures, 3, mac(7), false, &[7; 300]);
            let sum: usize = captures.tapes[0].by_mac.values().map(Tape::size).sum();
            assert!(round % 5000 != 0 || sum == captures.tapes[0].size, "{sum} counted wrong");
            assert!(captures.tapes[0].size <= STRANGERS);
        }
        assert_eq!(captures.of(&[mac(0xffff)]).len(), 1, "the host is still there");
        assert_eq!(captures.of(&[mac(7)]).len(), KEEP, "who speaks stays");
        assert!(captures.of(&[mac(8)]).is_empty(), "who fell silent is gone");
        assert_eq!(captures.tapes[0].queue.len(), captures.tapes[0].by_mac.len());
        let spare = &captures.tapes[0].spare;
        let empty = |tape: &Tape| tape.heads.is_empty() && tape.bytes.is_empty() && tape.stored == 0;
        assert!(!spare.is_empty() && spare.len() <= SPARE && spare.iter().all(empty));
        assert_eq!(captures.of(&[mac(59_999), mac(7)]).len(), KEEP + 1);
    }

    #[test]
    fn rings_that_one_stranger_grows_for_others_take_no_more_in_all() {
        let mut captures = Captures::default();
        let mut strangers = 0..;
        for round in 0..3000 {
            for _ in 0..17 {
                keep(&mut captures, round, mac(0xf0_0000 + round as usize), false, &[0; 80]);
            }
            for stranger in strangers.by_ref().take(20) {
                keep(&mut captures, round, mac(stranger), false, &[0; 34]);
            }
        }
        let tapes = &captures.tapes[0];
        let room = |tape: &Tape| tape.bytes.capacity() + tape.heads.capacity() * HEAD;
        let live: usize = tapes.by_mac.values().map(room).sum();
        let spare: usize = tapes.spare.iter().map(room).sum();
        assert_eq!(tapes.size, live, "counted wrong");
        assert!(live <= STRANGERS && spare <= SPARE * SPARE_BYTES, "{live} and {spare} octets");
    }

    #[test]
    fn two_macs_come_in_the_order_of_the_wire() {
        let mut captures = Captures::default();
        for (at, number) in [(5, 1), (5, 2), (5, 1), (6, 2)] {
            keep(&mut captures, at, mac(number), number == 1, &[number as u8]);
        }
        let order: Vec<u8> = captures.of(&[mac(2), mac(1)]).iter().map(|kept| kept.bytes[0]).collect();
        assert_eq!(order, [1, 2, 1, 2]);
    }
}
