//! Listens for DHCP servers on a segment, and sends nothing.
//!
//! Invariants: it reads copies of what arrives on the device, whoever has the ports; what is no DHCPv4 message between
//! ports 67 and 68 is passed over. A switch sends it what is broadcast: offers to clients that ask for that, and every
//! client's choice of a server, so a network where nobody asks meanwhile shows nothing.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::dhcp::wire::{COOKIE, FIXED, Fields, option};
use crate::net::packets_on;

/// Servers that are told apart; more are no news.
const MOST: usize = 64;
const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// Servers that were heard of within `time`, with what told of them.
///
/// # Errors
/// No such device, or no right to packet sockets.
pub(crate) async fn overhear(device: &str, time: Duration) -> io::Result<BTreeMap<Ipv4Addr, &'static str>> {
    let protocol = (libc::ETH_P_IP as u16).to_be();
    let socket = packets_on(device, protocol)?;
    // SAFETY: a `Socket` owns its one descriptor, which stays open until it is dropped, with the `AsyncFd`.
    let socket = unsafe { AsyncFd::register(socket) }?;
    let end = Instant::now() + time;
    let mut heard = BTreeMap::new();
    loop {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
        let got = socket.async_io(Interest::READABLE, |socket| socket.recv(&mut buffer));
        let Ok(got) = timeout_at(end, got).await else { return Ok(heard) };
        let length = got?;
        // SAFETY: `recv` initialised the first `length` octets.
        let packet: Vec<u8> = buffer[..length].iter().map(|b| unsafe { b.assume_init() }).collect();
        if let Some((server, how)) = server_of(&packet)
            && heard.len() < MOST
        {
            heard.entry(server).or_insert(how);
        }
    }
}

/// The DHCP server that an IPv4 packet is from, or names.
pub(crate) fn server_of(packet: &[u8]) -> Option<(Ipv4Addr, &'static str)> {
    const UDP: u8 = 17;
    let head = usize::from(packet.first()? & 15) * 4;
    let port = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let whole = port(6)? & 0x3fff == 0;
    if packet[0] >> 4 != 4 || head < 20 || *packet.get(9)? != UDP || !whole {
        return None;
    }
    let (from, to) = (port(head)?, port(head + 2)?);
    let message = packet.get(head + 8..)?;
    if message.len() <= FIXED + 4 || message[FIXED..FIXED + 4] != COOKIE {
        return None;
    }
    let mut options = Fields::default();
    options.walk(&message[FIXED + 4..]).ok()?;
    let kind = *options.get(option::MESSAGE_TYPE)?.first()?;
    let how = match (message[0], kind, from, to) {
        (2, 2, SERVER, CLIENT) => "offered an address",
        (2, 5 | 6, SERVER, CLIENT) => "answered a client",
        (1, 3 | 4 | 7, CLIENT, SERVER) => "was chosen by a client",
        _ => return None,
    };
    let server: [u8; 4] = options.get(option::SERVER_ID)?.try_into().ok()?;
    Some((Ipv4Addr::from(server), how))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(op: u8, ports: (u16, u16), options: &[u8]) -> Vec<u8> {
        let mut out = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17];
        out.resize(20, 0);
        out.extend_from_slice(&ports.0.to_be_bytes());
        out.extend_from_slice(&ports.1.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut message = vec![0; FIXED];
        message[0] = op;
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
            assert_eq!(got, want.map(|how| (them, how)), "{op} {ports:?} {kind}");
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
    }
}
