//! DHCPv4: reading and writing messages, who gets which answer, leases, and the sockets.
//!
//! `wire` reads, `decide` decides, `core` brings both together without I/O, `reply` writes, `serve` has the sockets, `send` those that answers leave by, `arp` looks for conflicts.

pub(crate) mod arp;
pub(crate) mod core;
pub mod decide;
pub mod lease;
pub(crate) mod networks;
pub(crate) mod reply;
mod send;
pub(crate) mod serve;
pub mod wire;
