//! DHCPv6 (RFC 8415): the addresses of planned machines, and what they boot.
//!
//! `wire` reads and writes, `core` answers without I/O, by the same decision as DHCPv4, `serve` has the socket.
//! Invariants: only reservations are given, each address being the network's IPv6 prefix with the machine's IPv4
//! address at its end, so that there is no lease to lose; no dynamic pool, no prefix delegation, no temporary addresses.

mod core;
pub(crate) mod serve;
mod wire;

pub(crate) use self::core::Core;

/// One datagram, for the fuzz target.
pub(crate) fn fuzz(datagram: &[u8], from: std::net::Ipv6Addr) {
    if let Ok(message) = wire::Message::parse(datagram) {
        let _ = (message.mac(from), message.wants_boot(), message.is_http(), message.peer(from));
        let _ = wire::encode(message.kind, &message, &[0, 3, 0, 1], &wire::Options::default());
    }
}
