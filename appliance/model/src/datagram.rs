//! A datagram of the boot network, as it goes from the services that read or sent it to who keeps it.

use crate::ids::MacAddr;
use std::net::SocketAddr;

/// A datagram as a service read or sent it. It is lent: whoever keeps it copies it, and nothing else is done with it on
/// the way of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// When, in microseconds since 1970.
    pub at: u64,
    /// Interface.
    pub interface: &'a str,
    /// The client that it is of, where that is known.
    pub mac: Option<MacAddr>,
    /// That client is a host's NIC or BMC.
    pub of_host: bool,
    /// We sent it.
    pub sent: bool,
    /// What lies around it.
    pub wire: Wire,
    /// Its octets, without the headers that `wire` stands for; TFTP's data only in part.
    pub bytes: &'a [u8],
    /// How many it has on the wire.
    pub length: usize,
}

/// What the kernel took off a datagram, or puts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// IP and UDP; both addresses are of one family.
    Udp {
        /// Sender.
        from: SocketAddr,
        /// Receiver.
        to: SocketAddr,
    },
    /// Ethernet, for an ARP message.
    Arp {
        /// Sender.
        from: MacAddr,
        /// Receiver.
        to: MacAddr,
    },
}
