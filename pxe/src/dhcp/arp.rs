//! Who answers for an address (RFC 5227's probe), without anybody waiting for it.
//!
//! Invariants: a probe goes out when an address is offered or given, and the DHCP answer does not wait for it; at most
//! [`PER_SECOND`] a second, so that a storm of new clients is no storm of ARP; what is remembered is bounded and
//! forgotten after [`PATIENCE`]; a probe is from the MAC that the device has then. An answer from the client itself is none. Clients behind relays are not probed: they
//! do it themselves, and decline.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;

use dayzero_model::{MacAddr, Millis, Timestamp};
use nix::libc;
use socket2::{SockAddr, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::net::{bound_mac, device_index, device_mac, link_address, packets_on};

/// Probes a second.
const PER_SECOND: usize = 500;
/// An answer counts for so long.
const PATIENCE: Millis = Millis(3_000);
/// Length of an Ethernet ARP message for IPv4 (RFC 826).
pub(crate) const LENGTH: usize = 28;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// Probes that wait for an answer.
#[derive(Debug, Default)]
struct Waiting {
    by_address: HashMap<Ipv4Addr, (MacAddr, Timestamp)>,
    second: u64,
    sent: usize,
}

impl Waiting {
    /// Whether this address may be probed now; it is remembered then.
    fn add(&mut self, address: Ipv4Addr, expected: MacAddr, now: Timestamp) -> bool {
        if self.second != now.0 / 1000 {
            (self.second, self.sent) = (now.0 / 1000, 0);
            self.by_address.retain(|_, (_, since)| now.since(*since) <= PATIENCE);
        }
        if self.sent >= PER_SECOND {
            return false;
        }
        self.sent += 1;
        self.by_address.insert(address, (expected, now)).is_none_or(|(mac, _)| mac != expected)
    }

    /// The client whose address somebody else says is his.
    fn conflict(&mut self, address: Ipv4Addr, found: MacAddr, now: Timestamp) -> Option<MacAddr> {
        let (expected, since) = *self.by_address.get(&address)?;
        if expected == found || now.since(since) > PATIENCE {
            return None;
        }
        self.by_address.remove(&address);
        Some(expected)
    }
}

/// The ARP socket of one device.
pub(crate) struct Arp {
    socket: AsyncFd<Socket>,
    index: i32,
    own: MacAddr,
    waiting: Waiting,
}

/// Somebody else has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) address: Ipv4Addr,
    /// Who was to have it.
    pub(crate) expected: MacAddr,
    /// Who has it.
    pub(crate) found: MacAddr,
    /// What says so.
    pub(crate) message: Vec<u8>,
}

impl Arp {
    /// # Errors
    /// No such device, or no right to packet sockets.
    pub(crate) fn bind(device: &str) -> io::Result<Self> {
        let index = device_index(device)?;
        let socket = packets_on(device, (libc::ETH_P_ARP as u16).to_be())?;
        let own = device_mac(device)?;
        // SAFETY: a `Socket` owns its one descriptor, which stays open until it is dropped, with the `AsyncFd`.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, index, own, waiting: Waiting::default() })
    }

    /// Our MAC: a bridge's or bond's becomes another one when its ports change.
    pub(crate) fn own(&self) -> MacAddr {
        bound_mac(self.socket.get_ref()).unwrap_or(self.own)
    }

    /// Asks who has `address`, which `expected` is to have; the probe, if one went out. Failures cost the check alone.
    pub(crate) fn probe(
        &mut self,
        address: Ipv4Addr,
        expected: MacAddr,
        now: Timestamp,
    ) -> Option<[u8; LENGTH]> {
        if !self.waiting.add(address, expected, now) {
            return None;
        }
        self.own = self.own();
        let probe = probe(self.own, address);
        match self.socket.get_ref().send_to(&probe, &link(self.index, [0xff; 6])) {
            Ok(_) => Some(probe),
            Err(error) => {
                tracing::debug!(%error, %address, "ARP probe not sent");
                None
            }
        }
    }

    /// Waits for the next conflict.
    pub(crate) async fn conflict(&mut self, now: impl Fn() -> Timestamp) -> Conflict {
        loop {
            let mut buffer = [MaybeUninit::<u8>::uninit(); LENGTH];
            let got = self.socket.async_io(Interest::READABLE, |socket| socket.recv(&mut buffer)).await;
            let Ok(length) = got else {
                // The device went down; it says so once.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            // SAFETY: `recv` initialised the first `length` octets.
            let message: Vec<u8> = buffer[..length].iter().map(|b| unsafe { b.assume_init() }).collect();
            let Some((found, address)) = sender(&message) else { continue };
            if let Some(expected) = self.waiting.conflict(address, found, now()) {
                return Conflict { address, expected, found, message };
            }
        }
    }
}

fn link(index: i32, mac: [u8; 6]) -> SockAddr {
    link_address(index, (libc::ETH_P_ARP as u16).to_be(), mac)
}

fn probe(own: MacAddr, address: Ipv4Addr) -> [u8; LENGTH] {
    let mut out = [0; LENGTH];
    out[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, REQUEST]);
    out[8..14].copy_from_slice(&own.0);
    out[24..].copy_from_slice(&address.octets());
    out
}

/// The MAC and address that the sender of an ARP message says are his.
pub(crate) fn sender(message: &[u8]) -> Option<(MacAddr, Ipv4Addr)> {
    let known = message.len() == LENGTH
        && message[..7] == [0, 1, 8, 0, 6, 4, 0]
        && matches!(message[7], REQUEST | REPLY);
    let mac: [u8; 6] = message.get(8..14)?.try_into().ok()?;
    let address: [u8; 4] = message.get(14..18)?.try_into().ok()?;
    (known && address != [0; 4]).then_some((MacAddr(mac), Ipv4Addr::from(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn only_another_s_answer_in_time_is_a_conflict() {
        let mut waiting = Waiting::default();
        let at = Timestamp;
        assert!(waiting.add(A, CLIENT, at(1_000)));
        assert!(!waiting.add(A, CLIENT, at(1_001)), "asked just now");
        assert_eq!(waiting.conflict(A, CLIENT, at(1_100)), None, "the client itself");
        assert_eq!(waiting.conflict(Ipv4Addr::new(10, 77, 0, 51), OTHER, at(1_100)), None);
        assert_eq!(waiting.conflict(A, OTHER, at(1_200)), Some(CLIENT));
        assert_eq!(waiting.conflict(A, OTHER, at(1_300)), None, "told once");
        assert!(waiting.add(A, CLIENT, at(2_000)));
        assert_eq!(waiting.conflict(A, OTHER, at(5_001)), None, "too late");
    }

    #[test]
    fn a_storm_of_clients_is_no_storm_of_arp() {
        let mut waiting = Waiting::default();
        let probes = |waiting: &mut Waiting, at: u64| {
            let each = |i: u32| waiting.add(Ipv4Addr::from(0x0a00_0000 + i), CLIENT, Timestamp(at));
            (0..10_000).map(each).filter(|sent| *sent).count()
        };
        assert_eq!(probes(&mut waiting, 1_500), PER_SECOND);
        assert_eq!(waiting.by_address.len(), PER_SECOND);
        assert_eq!(probes(&mut waiting, 9_000), PER_SECOND);
        assert_eq!(waiting.by_address.len(), PER_SECOND, "old ones are forgotten");
    }

    #[test]
    fn messages_are_read_strictly() {
        let mut reply = probe(OTHER, A);
        assert_eq!(sender(&reply), None, "a probe claims nothing");
        reply[7] = REPLY;
        reply[14..18].copy_from_slice(&A.octets());
        assert_eq!(sender(&reply), Some((OTHER, A)));
        assert_eq!(sender(&reply[..27]), None);
        reply[4] = 8;
        assert_eq!(sender(&reply), None);
    }
}
