//! What these services ask of the control plane, and what they tell it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use dayzero_model::boot::{Arch, BootAction, Client};
use dayzero_model::datagram::Datagram;
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
    /// MAC, where known.
    pub mac: Option<MacAddr>,
    /// Host, where known.
    pub host: Option<HostName>,
    /// Boot whose window was open, where known.
    pub boot: Option<BootId>,
    /// What.
    pub what: What,
}

impl PxeEvent {
    /// Of an event that says that a DHCP message goes out: that it could not leave.
    pub(crate) fn unsent(&self, to: IpAddr, error: &io::Error) -> Option<Self> {
        let What::DhcpOut { kind, .. } = &self.what else { return None };
        let what = What::DhcpUnsent { kind: kind.clone(), to, error: error.to_string() };
        Some(Self { what, ..self.clone() })
    }
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

    /// Whether this client's firmware holds the authority's certificate of [`crate::PxeConfig::loader_trust`], so that it
    /// can boot by HTTPS. Where nobody knows: no.
    fn trusts(&self, mac: MacAddr) -> bool {
        let _ = mac;
        false
    }

    /// Records what happened.
    fn event(&self, event: PxeEvent);

    /// Keeps a datagram, for a while, or does not.
    fn datagram(&self, datagram: &Datagram<'_>) {
        let _ = datagram;
    }
}
