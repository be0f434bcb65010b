//! Doors for the fuzz targets of `pxe/fuzz`: each takes what the network would bring, and answers it as the services do.
//!
//! DHCP's doors take a conversation, so that what one message leaves behind meets the next: before each datagram stand its
//! length (two octets), how it came (one) and how much time passed (one). What comes back is judged: whom it goes to, how
//! long it is, and that no address is two clients'.

mod dhcp4;
mod dhcp6;
mod frames;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, OnceLock, PoisonError};

use dayzero_model::boot::{BootAction, BootWindow, Chain, Client};
use dayzero_model::site::{AddressRange, DhcpMode, NetworkRole};
use dayzero_model::{BootId, HostName, Timestamp};

use crate::config::{
    Ipv4Prefix, Ipv6Prefix, LeasePool, Loaders, NameZone, PxeConfig, ServedInterface, ServedNetwork,
};
use crate::director::{BootDirector, PxeEvent, ScriptQuery, SeenClient};
use crate::dns::zone::Zone;

pub use dhcp4::dhcp4;
pub use dhcp6::dhcp6;
pub use frames::frames;

/// Messages of one conversation.
const MOST: usize = 64;
/// Our address on the management network.
const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// A relay, as its clients see it and as we do.
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 88);
/// An address of the pool that is kept for somebody.
const RESERVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);
const PLANNED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

/// A DNS question.
pub fn dns(datagram: &[u8]) {
    static ZONE: OnceLock<Option<Zone>> = OnceLock::new();
    let zone = ZONE.get_or_init(|| {
        let host =
            "host1".parse().map(|name| (name, vec![PLANNED.into(), IpAddr::V6(prefix6(0).of(PLANNED))]));
        Zone::new(&NameZone {
            domain: "lab.example".to_owned(),
            names: host.into_iter().collect(),
            prefixes: vec![Ipv4Prefix { address: Ipv4Addr::new(10, 77, 0, 0), len: 24 }],
            prefixes6: vec![prefix6(0)],
        })
    });
    if let Some(answer) =
        zone.as_ref().and_then(|zone| zone.answer(datagram, &[US.into(), prefix6(0).of(US).into()]))
    {
        // An answer that is much larger than its question would serve an attacker.
        assert!(answer.len() <= datagram.len() + 300, "{} bytes for {}", answer.len(), datagram.len());
    }
}

/// A TFTP request; what follows it, four bytes each, arrives at its transfer.
pub fn tftp(datagram: &[u8]) {
    dayzero_tftp_server::fuzzing::conversation(datagram);
}

/// What a client sends on an HTTP connection.
pub fn http(bytes: &[u8]) {
    crate::http::fuzz(bytes);
}

/// One message of a conversation.
struct Said<'a> {
    how: u8,
    now: Timestamp,
    datagram: &'a [u8],
}

/// The messages of a conversation, in order.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = Said<'_>> {
    let mut now = Timestamp(1_700_000_000_000);
    std::iter::from_fn(move || {
        let ([high, low, how, time], tail) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (datagram, tail) = tail.split_at(length);
        rest = tail;
        // Up to eighteen hours, finely where it is short.
        now = Timestamp(now.0 + u64::from(*time) * u64::from(*time) * 1000);
        Some(Said { how: *how, now, datagram })
    })
    .take(MOST)
}

fn prefix6(third: u16) -> Ipv6Prefix {
    Ipv6Prefix { address: Ipv6Addr::new(0xfd77, 0, third, 0, 0, 0, 0, 0), len: 64 }
}

/// A management network with a pool and a relay, one beside another server, one behind the relay.
fn config() -> Option<&'static PxeConfig> {
    static CONFIG: OnceLock<Option<PxeConfig>> = OnceLock::new();
    let made = || {
        let network = |name: &str, second: u8| {
            let prefix = Ipv4Prefix { address: Ipv4Addr::new(10, second, 0, 0), len: 24 };
            let at = |last| Ipv4Addr::new(10, second, 0, last);
            let range = AddressRange { first: at(50), last: at(59) };
            Some(ServedNetwork {
                gateway: Some(at(1)),
                dns: vec![US, at(3)],
                domain: Some("lab.example".to_owned()),
                mtu: Some(9000),
                pool: Some(LeasePool { range, open: true }),
                prefix6: Some(prefix6(u16::from(second - 77))),
                ..ServedNetwork::new(name.parse().ok()?, NetworkRole::Management, prefix)
            })
        };
        let mut mgmt = network("mgmt", 77)?;
        mgmt.relays = vec![NEAR];
        mgmt.relay_sources = vec![RELAY.into()];
        let mut beside = network("beside", 78)?;
        (beside.mode, beside.pool) = (DhcpMode::Proxy, None);
        let mut far = network("far", 88)?;
        far.relays = vec![RELAY];
        far.relay_sources = vec![NEAR.into()];
        let interface =
            |device: &str, address, network| ServedInterface { device: device.into(), address, network };
        let mut loaders = Loaders { uefi_arm64: Some(Loaders::ARM64.to_owned()), ..Loaders::default() };
        loaders.secure.uki = Some("discovery.efi".to_owned());
        Some(PxeConfig {
            interfaces: vec![
                interface("mgmt0", US, mgmt),
                interface("beside0", Ipv4Addr::new(10, 78, 0, 2), beside),
            ],
            relayed: vec![far],
            names: NameZone { domain: "lab.example".to_owned(), ..NameZone::default() },
            loaders,
            ..PxeConfig::default()
        })
    };
    CONFIG.get_or_init(made).as_ref()
}

/// Plays the control plane: each message's client is who its conversation says.
struct Stage(Mutex<Client>);

impl Stage {
    fn new() -> Self {
        Self(Mutex::new(Client::Unknown))
    }

    fn set(&self, who: u8) {
        let client = client(who).unwrap_or(Client::Unknown);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// A client by three bits.
fn client(who: u8) -> Option<Client> {
    let host: HostName = "host1".parse().ok()?;
    let of = |window: bool, chain| Client::Host {
        host: host.clone(),
        address: PLANNED,
        window: window.then(|| BootWindow { boot: BootId(7), host: host.clone() }),
        uuid: Some("00112233-4455-6677-8899-aabbccddeeff".to_owned()),
        chain,
    };
    Some(match who & 7 {
        1 => of(true, Chain::Ipxe),
        2 => of(false, Chain::Ipxe),
        3 => Client::Bmc { host, address: PLANNED },
        4 => Client::Fixed { name: host, address: Ipv4Addr::new(10, 88, 0, 201) },
        5 => Client::Vm { name: host, address: None },
        6 => Client::Vm { name: host, address: Some(RESERVED) },
        7 => of(true, Chain::Uki),
        _ => return None,
    })
}

impl BootDirector for Stage {
    fn client(&self, _: &SeenClient) -> Client {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }

    fn is_reserved(&self, address: Ipv4Addr) -> bool {
        address == RESERVED
    }

    fn event(&self, _: PxeEvent) {}
}
