//! DHCPv6 (RFC 8415): the addresses of planned machines, and what they boot.
//!
//! `wire` reads and writes, `core` answers without I/O, by the same decision as DHCPv4, `serve` has the socket.
//! Invariants: only reservations are given, each address being the network's IPv6 prefix with the machine's IPv4
//! address at its end, so that there is no lease to lose; no dynamic pool, no prefix delegation, no temporary addresses.

pub(crate) mod core;
pub(crate) mod serve;
pub(crate) mod wire;

pub(crate) use self::core::{Core, Told};
