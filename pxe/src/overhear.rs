//! Listens for DHCP servers on a segment, and sends nothing.
//!
//! Invariants: it reads copies of what arrives on the device, whoever has the ports; what is no DHCPv4 message between
//! ports 67 and 68 is passed over, and so is an offer that no client would take. A switch sends it what is broadcast: offers to clients that ask for that, and every
//! client's choice of a server, so a network where nobody asks meanwhile shows nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

use crate::dhcp::wire::{COOKIE, FIXED, Fields, option};
use crate::net::first_packet;

/// Servers that are told apart; more are no news.
pub(crate) const MOST: usize = 64;
const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// What clients get from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gives {
    /// Addresses.
    Addresses,
    /// What to boot, and no address: proxyDHCP (PXE specification 2.1, section 2.2).
    Boot,
}

/// Servers that were heard of within `time`, with what told of them.
///
/// # Errors
/// No such device, or no right to packet sockets.
pub(crate) async fn overhear(
    device: &str,
    time: Duration,
) -> io::Result<BTreeMap<(Ipv4Addr, Gives), &'static str>> {
    let mut heard = BTreeMap::new();
    let each = |packet: &[u8]| {
        if let Some((server, gives, how)) = server_of(packet)
            && heard.len() < MOST
        {
            heard.entry((server, gives)).or_insert(how);
        }
    };
    packets(device, libc::ETH_P_IP as u16, time, each).await?;
    Ok(heard)
}

/// Shows each packet of a protocol that arrives on a device within `time`, without the link's header.
///
/// # Errors
/// No such device, or no right to packet sockets.
pub(crate) async fn packets(
    device: &str,
    protocol: u16,
    time: Duration,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let read = |packet: &[u8]| {
        each(packet);
        None::<()>
    };
    first_packet(device, protocol, &[], Instant::now() + time, read).await.map(drop)
}

/// A DHCPv4 message that names a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    op: u8,
    kind: u8,
    pub(crate) xid: [u8; 4],
    /// `yiaddr`.
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    /// The address that a client asks for.
    wanted: Option<Ipv4Addr>,
    /// Its vendor class is that of boot services.
    boot: bool,
}

impl Naming {
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (fixed, rest) = message.split_at_checked(FIXED)?;
        let mut options = Fields::default();
        options.walk(rest.strip_prefix(&COOKIE)?).ok()?;
        let &[kind] = options.get(option::MESSAGE_TYPE)? else { return None };
        let class = options.get(option::VENDOR_CLASS).unwrap_or_default();
        let address = |octets: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?));
        Some(Self {
            op: *fixed.first()?,
            kind,
            xid: fixed.get(4..8)?.try_into().ok()?,
            address: address(fixed.get(16..20)?)?,
            server: address(options.get(option::SERVER_ID)?)?,
            wanted: options.get(option::REQUESTED_IP).and_then(address),
            boot: class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient"),
        })
    }

    /// What an OFFER offers; nothing that a client would take: `None`.
    pub(crate) fn offers(&self) -> Option<Gives> {
        let gives = if self.boots() { Some(Gives::Boot) } else { None };
        let gives = if self.address.is_unspecified() { gives } else { Some(Gives::Addresses) };
        gives.filter(|_| self.op == 2 && self.kind == 2)
    }

    /// It says what to boot, and gives no address.
    fn boots(&self) -> bool {
        self.boot && self.address.is_unspecified()
    }
}

/// The DHCP server that an IPv4 packet is from, or names.
pub(crate) fn server_of(packet: &[u8]) -> Option<(Ipv4Addr, Gives, &'static str)> {
    const UDP: u8 = 17;
    let head = usize::from(packet.first()? & 15) * 4;
    let port = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let whole = port(6)? & 0x3fff == 0;
    if packet[0] >> 4 != 4 || head < 20 || *packet.get(9)? != UDP || !whole {
        return None;
    }
    let (from, to) = (port(head)?, port(head + 2)?);
    let message = Naming::parse(packet.get(head + 8..)?)?;
    let (gives, how) = match (message.op, message.kind, from, to) {
        (2, 2 | 5, SERVER, CLIENT) if message.boots() => (Gives::Boot, "told a client what to boot"),
        (2, 2, SERVER, CLIENT) => (message.offers()?, "offered an address"),
        (2, 5 | 6, SERVER, CLIENT) => (Gives::Addresses, "answered a client"),
        // Simple clients choose a proxyDHCP server too, for the address that it did not give.
        (1, 3, CLIENT, SERVER) if message.wanted == Some(Ipv4Addr::UNSPECIFIED) => return None,
        (1, 3 | 4 | 7, CLIENT, SERVER) => (Gives::Addresses, "was chosen by a client"),
        _ => return None,
    };
    Some((message.server, gives, how))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With 10.0.0.99 as the client's address.
    fn packet(op: u8, ports: (u16, u16), options: &[u8]) -> Vec<u8> {
        let mut out = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17];
        out.resize(20, 0);
        out.extend_from_slice(&ports.0.to_be_bytes());
        out.extend_from_slice(&ports.1.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut message = vec![0; FIXED];
        message[0] = op;
        message[16..20].copy_from_slice(&[10, 0, 0, 99]);
        message.extend_from_slice(&COOKIE);
        message.extend_from_slice(options);
        out.extend_from_slice(&message);
        out
    }

    #[test]
    fn servers_show_in_their_answers_and_in_their_clients_choices() {
        let named = |kind: u8| [53, 1, kind, 54, 4, 10, 0, 0, 66, 255];
        let them = Ipv4Addr::new(10, 0, 0, 66);
        for (op, ports, kind, want) in [
            (2, (67, 68), 2, Some("offered an address")),
            (2, (67, 68), 5, Some("answered a client")),
            (1, (68, 67), 3, Some("was chosen by a client")),
            (1, (68, 67), 1, None),
            (2, (68, 67), 2, None),
            (1, (67, 67), 3, None),
        ] {
            let got = server_of(&packet(op, ports, &named(kind)));
            assert_eq!(got, want.map(|how| (them, Gives::Addresses, how)), "{op} {ports:?} {kind}");
        }
        let good = packet(2, (67, 68), &named(2));
        for (what, at, value) in
            [("TCP", 9, 6), ("a fragment", 7, 1), ("IPv6", 0, 0x65), ("no head", 0, 0x41)]
        {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(server_of(&bad), None, "{what}");
        }
        for length in 0..good.len() {
            let _ = server_of(&good[..length]);
        }
        assert_eq!(server_of(&packet(2, (67, 68), &[53, 1, 2, 255, 0])), None, "without a name");
        for (wanted, heard) in [([10, 0, 0, 99], true), ([0; 4], false)] {
            let chosen = [&[50, 4], &wanted[..], &named(3)].concat();
            assert_eq!(server_of(&packet(1, (68, 67), &chosen)).is_some(), heard, "{wanted:?}");
        }
    }

    #[test]
    fn who_says_what_to_boot_is_told_from_who_gives_addresses() {
        let them = Ipv4Addr::new(10, 0, 0, 66);
        let said = |kind: u8, address: [u8; 4], class: &[u8]| {
            let named = [53, 1, kind, 54, 4, 10, 0, 0, 66, 60, class.len() as u8];
            let mut packet = packet(2, (67, 68), &[&named, class, &[255]].concat());
            packet[28 + 16..28 + 20].copy_from_slice(&address);
            server_of(&packet)
        };
        let boot = Some((them, Gives::Boot, "told a client what to boot"));
        let given = Some((them, Gives::Addresses, "offered an address"));
        let answered = Some((them, Gives::Addresses, "answered a client"));
        for (kind, address, class, want) in [
            (2, [0; 4], &b"PXEClient"[..], boot),
            (2, [0; 4], b"HTTPClient", boot),
            (5, [0; 4], b"PXEClient", boot),
            (2, [10, 0, 0, 99], b"PXEClient", given),
            (2, [10, 0, 0, 99], b"", given),
            (5, [0; 4], b"", answered),
            // No client takes that.
            (2, [0; 4], b"", None),
            (2, [0; 4], b"MSFT 5.0", None),
        ] {
            assert_eq!(said(kind, address, class), want, "{kind} {address:?} {class:?}");
        }
    }
}
