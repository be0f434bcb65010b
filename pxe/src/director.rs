//! What these services ask of the control plane, and what they tell it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dayzero_model::boot::{Arch, BootAction, Client};
use dayzero_model::event::What;
use dayzero_model::{BootId, HostName, MacAddr, Name};

/// A client that sent a DHCP message, as far as the message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenClient {
    /// Its MAC.
    pub mac: MacAddr,
    /// The network that it was seen on, or that its relay stands for.
    pub network: Name,
    /// It wants a boot file.
    pub wants_boot: bool,
    /// Its architecture, if it wants one.
    pub arch: Option<Arch>,
    /// UUID of option 97, in SMBIOS order; iPXE and some boards write another order.
    pub uuid: Option<String>,
    /// Option 60, printable.
    pub vendor_class: Option<String>,
    /// Option 61.
    pub client_id: Option<Vec<u8>>,
    /// Its DUID: DHCPv6's, or in RFC 4361's client identifier.
    pub duid: Option<Vec<u8>>,
    /// Where it stands, if a relay of the plan says so.
    pub circuit: Option<RelayPort>,
}

/// A relay's port (option 82).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPort {
    /// Agent circuit id.
    pub id: Vec<u8>,
    /// Agent remote id.
    pub remote: Option<Vec<u8>>,
}

/// A request for a boot script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptQuery {
    /// MAC in the URL that our DHCP gave.
    pub mac: MacAddr,
    /// Address that asks.
    pub peer: IpAddr,
    /// MAC that our DHCP gave that address to, if any: another one than `mac` is suspicious.
    pub leased_to: Option<MacAddr>,
    /// Network that it asks on.
    pub network: Name,
}

/// Something that a service saw or did. The director stamps the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PxeEvent {
    /// Interface.
    pub interface: String,
    /// MAC, where known.
    pub mac: Option<MacAddr>,
    /// Host, where known.
    pub host: Option<HostName>,
    /// Boot whose window was open, where known.
    pub boot: Option<BootId>,
    /// What.
    pub what: What,
}

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

/// Who a client is and what it boots: answered by the control plane from memory. The calls come from network tasks,
/// for each datagram: they must neither block nor panic.
pub trait BootDirector: Send + Sync + 'static {
    /// Who this client is now. An `Unknown` one is the director's to record as pending.
    fn client(&self, seen: &SeenClient) -> Client;

    /// What this client's iPXE is to do.
    fn boot_script(&self, query: &ScriptQuery) -> BootAction;

    /// Whether an address of a pool is kept for somebody (a VM's reservation), so that it is not given to others.
    fn is_reserved(&self, address: Ipv4Addr) -> bool {
        let _ = address;
        false
    }

    /// Records what happened.
    fn event(&self, event: PxeEvent);

    /// Keeps a datagram, for a while, or does not.
    fn datagram(&self, datagram: &Datagram<'_>) {
        let _ = datagram;
    }
}
