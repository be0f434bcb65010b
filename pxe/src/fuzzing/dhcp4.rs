//! DHCPv4: whole servers with their pools, and a conversation with them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use dayzero_model::{MacAddr, Timestamp};

use super::{NEAR, RELAY, RESERVED, Stage, US, config, messages};
use crate::dhcp::core::{Came, Destination, DhcpCore, Handled};
use crate::dhcp::lease::LeaseChange;
use crate::dhcp::networks::Networks;
use crate::dhcp::wire::{Broken, COOKIE, FIXED, Fields, Request, option};
use crate::session::Sessions;

/// Most that one frame carries, less the headers; a relay's own option comes on top.
const LONGEST: usize = 1472;
/// Events of one message.
const EVENTS: usize = 4;

/// A conversation of DHCPv4. `how` of each message: where it came to (two bits: all, us, the segment's broadcast, the boot
/// server's port), from (two bits: as the message says, a machine of the segment, the relay's near address, nowhere), whose
/// it is (three bits), and which of two interfaces has it (the last bit).
///
/// # Panics
/// If an answer is not what its client may have.
pub fn dhcp4(conversation: &[u8]) {
    let Some(config) = config() else { return };
    let (stage, sessions) = (Arc::new(Stage::new()), Sessions::default());
    let networks = Arc::new(Networks::new(config, &[]));
    let core =
        |one| DhcpCore::new(one, config, Arc::clone(&networks), Arc::clone(&stage) as _, sessions.clone());
    let cores: Vec<DhcpCore> = config.interfaces.iter().map(core).collect();
    let mut leases = HashMap::new();
    for said in messages(conversation) {
        stage.set(said.how >> 4);
        let Some(core) = cores.get(usize::from(said.how >> 7)) else { return };
        let request = match Request::parse(said.datagram) {
            Ok(request) => request,
            Err(error) => {
                if let Some(broken) = Broken::read(said.datagram) {
                    let told = core.broken(&broken, came(&broken.request, said.how), &error);
                    assert!(told.reply.is_none() && told.change.is_none() && told.events.len() == 2);
                }
                continue;
            }
        };
        let came = came(&request, said.how);
        let handled = core.handle(&request, came, said.now);
        judge(&request, came, &handled);
        if let Some(change) = &handled.change {
            keep(&mut leases, change, said.now);
        }
        if let Some((address, mac)) = handled.probe.filter(|_| said.how & 15 == 1) {
            // Somebody else answers there.
            let found = core.conflict(address, mac, MacAddr([2, 9, 9, 9, 9, 9]), said.now);
            if let Some(change) = &found.change {
                keep(&mut leases, change, said.now);
            }
        }
        if said.how & 15 == 4 {
            sessions.loader_fetched(super::PLANNED, said.now);
        }
    }
}

fn came(request: &Request, how: u8) -> Came {
    let to = match how & 3 {
        0 => Ipv4Addr::BROADCAST,
        2 => Ipv4Addr::new(10, 77, 0, 255),
        _ => US,
    };
    let own = if request.giaddr.is_unspecified() { request.ciaddr } else { request.giaddr };
    let from = match how >> 2 & 3 {
        0 => own,
        1 => Ipv4Addr::new(10, 77, 0, 50),
        2 => NEAR,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    Came { from: SocketAddrV4::new(from, 67), to, boot_server: how & 3 == 3 }
}

fn judge(request: &Request, came: Came, handled: &Handled) {
    assert!(handled.events.len() <= EVENTS, "{:?}", handled.events);
    let Some((bytes, to)) = &handled.reply else { return };
    let relays = request.raw(option::RELAY).map_or(0, |option| option.len() + 2 * option.len().div_ceil(255));
    assert!(bytes.len() <= LONGEST + relays, "{} bytes", bytes.len());
    assert!(bytes.len() <= request.room().max(300) + relays, "{} bytes, more than it takes", bytes.len());
    assert_eq!((bytes[0], &bytes[4..8]), (2, &request.xid.to_be_bytes()[..]));
    assert_eq!(&bytes[28..34], &request.mac.0);
    assert_eq!(bytes[FIXED..FIXED + 4], COOKIE);
    let mut options = Fields::default();
    assert_eq!(options.walk(&bytes[FIXED + 4..]), Ok(()));
    assert!(matches!(options.get(option::MESSAGE_TYPE), Some([2 | 5 | 6])));
    assert!(options.get(option::SERVER_ID).is_some_and(|id| id.len() == 4));
    let giaddr = request.giaddr;
    if giaddr.is_unspecified() || came.boot_server {
        return;
    }
    assert!([RELAY, NEAR].contains(&giaddr), "{giaddr} is no relay of the plan");
    assert!(came.to == US && [RELAY, NEAR].contains(came.from.ip()), "{came:?} is no relay's");
    let back = SocketAddrV4::new(giaddr, 67);
    let known = SocketAddrV4::new(request.ciaddr, 68);
    assert!([Destination::Relay(back), Destination::Routed(known)].contains(to), "{to:?}");
}

/// No address is two clients' at a time, nor one that is kept for somebody.
fn keep(leases: &mut HashMap<Ipv4Addr, (MacAddr, Timestamp)>, change: &LeaseChange, now: Timestamp) {
    match change {
        LeaseChange::Remove { address, .. } => drop(leases.remove(address)),
        LeaseChange::Put(lease) if lease.declined => drop(leases.remove(&lease.address)),
        LeaseChange::Put(lease) => {
            assert_ne!(lease.address, RESERVED);
            let other = leases.get(&lease.address).filter(|(mac, until)| *mac != lease.mac && *until > now);
            assert!(other.is_none(), "{lease:?} is still {other:?}'s");
            leases.retain(|_, (mac, _)| *mac != lease.mac);
            leases.insert(lease.address, (lease.mac, lease.expires));
        }
    }
}
