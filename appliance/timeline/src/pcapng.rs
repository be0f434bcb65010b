//! Datagrams as a pcapng section (draft-ietf-opsawg-pcapng), which Wireshark opens; sections one after another are a file.
//!
//! What is honest about it: of UDP the services see the payload, so its packets are raw IP (`LINKTYPE_RAW`), with IP and UDP
//! headers that are written here from the addresses and ports that the kernel told; of ARP they see the message, so its
//! packets are Ethernet with a header written from the message's sender. Each interface's description says so. A packet that
//! was kept in part has its true length in its block and in its headers.

use crate::capture::Kept;
use dayzero_model::datagram::Wire;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINK_ETHERNET: u16 = 1;
const LINK_RAW: u16 = 101;
const COMMENT: u16 = 1;
const UDP: u8 = 17;

/// Whether packets of this kind are raw IP or Ethernet.
fn link(wire: &Wire) -> u16 {
    match wire {
        Wire::Udp { .. } => LINK_RAW,
        Wire::Arp { .. } => LINK_ETHERNET,
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (12 + body.len().next_multiple_of(4)) as u32;
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&length.to_le_bytes());
}

/// A section with these datagrams, in their order. `about` is a sentence for its reader.
pub(crate) fn section(datagrams: &[Kept], about: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut head = Vec::new();
    head.extend_from_slice(&BYTE_ORDER.to_le_bytes());
    head.extend_from_slice(&[1, 0, 0, 0]);
    // The section's length is not told: a reader that skips it reads its blocks.
    head.extend_from_slice(&u64::MAX.to_le_bytes());
    option(&mut head, COMMENT, about.as_bytes());
    option(&mut head, 4, b"dayzero");
    option(&mut head, 0, &[]);
    block(&mut out, SECTION, &head);

    let mut interfaces: Vec<(Arc<str>, u16)> = Vec::new();
    for one in datagrams {
        let key = (Arc::clone(&one.interface), link(&one.wire));
        let number = interfaces.iter().position(|known| *known == key).unwrap_or_else(|| {
            interface(&mut out, &key);
            interfaces.push(key);
            interfaces.len() - 1
        });
        packet(&mut out, number, one);
    }
    out
}

fn interface(out: &mut Vec<u8>, (name, link): &(Arc<str>, u16)) {
    let mut body = Vec::new();
    body.extend_from_slice(&link.to_le_bytes());
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&0_u32.to_le_bytes());
    let says = match *link {
        LINK_RAW => {
            "payloads as Dayzero's services read and sent them; the IP and UDP headers are written from the addresses and \
             ports that the kernel told: time to live, identification, fragmentation and checksums are not those of the \
             wire, and neither are addresses 0.0.0.0 and :: where the kernel chose"
        }
        _ => {
            "ARP messages as Dayzero read and sent them; the Ethernet headers are written from the messages' senders, and \
             are not those of the wire"
        }
    };
    option(&mut body, 2, name.as_bytes());
    option(&mut body, 3, says.as_bytes());
    // Microseconds.
    option(&mut body, 9, &[6]);
    option(&mut body, 0, &[]);
    block(out, INTERFACE, &body);
}

fn packet(out: &mut Vec<u8>, interface: usize, one: &Kept) {
    let mut data = match one.wire {
        Wire::Udp { from, to } => udp(from, to, one),
        Wire::Arp { from, to } => [&to.0[..], &from.0, &[0x08, 0x06]].concat(),
    };
    let headers = data.len();
    data.extend_from_slice(&one.bytes);
    let mut body = Vec::with_capacity(data.len() + 64);
    body.extend_from_slice(&(interface as u32).to_le_bytes());
    body.extend_from_slice(&((one.at >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(one.at as u32).to_le_bytes());
    body.extend_from_slice(&(data.len() as u32).to_le_bytes());
    body.extend_from_slice(&((headers + one.length) as u32).to_le_bytes());
    body.extend_from_slice(&data);
    body.resize(body.len().next_multiple_of(4), 0);
    // Direction: inbound, outbound.
    let flags: u32 = if one.sent { 2 } else { 1 };
    option(&mut body, 2, &flags.to_le_bytes());
    option(&mut body, 0, &[]);
    block(out, PACKET, &body);
}

/// IP and UDP headers of a datagram.
fn udp(from: SocketAddr, to: SocketAddr, one: &Kept) -> Vec<u8> {
    let length = (8 + one.length).min(usize::from(u16::MAX)) as u16;
    let mut udp = Vec::with_capacity(8);
    for word in [from.port(), to.port(), length, 0] {
        udp.extend_from_slice(&word.to_be_bytes());
    }
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [ipv4(from, to, length), udp].concat(),
        (from, to) => {
            let v6 = |address| match address {
                IpAddr::V6(address) => address,
                IpAddr::V4(address) => address.to_ipv6_mapped(),
            };
            let (from, to) = (v6(from), v6(to));
            // By IPv6 a datagram must have a checksum (RFC 8200, section 8.1).
            let pseudo =
                [&from.octets()[..], &to.octets(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, UDP]].concat();
            let sum = match checksum(&[&pseudo, &udp, &one.bytes]) {
                0 => 0xffff,
                sum => sum,
            };
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            [ipv6(from, to, length), udp].concat()
        }
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&length.saturating_add(20).to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0, 0, 64, UDP, 0, 0]);
    ip.extend_from_slice(&from.octets());
    ip.extend_from_slice(&to.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, length: u16) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend_from_slice(&length.to_be_bytes());
    ip.extend_from_slice(&[UDP, 64]);
    ip.extend_from_slice(&from.octets());
    ip.extend_from_slice(&to.octets());
    ip
}

/// The Internet checksum (RFC 1071); every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
pub(crate) mod reader;

#[cfg(test)]
mod tests {
    use super::reader::{Packet, read};
    use super::*;
    use dayzero_model::ids::MacAddr;

    fn kept(at: u64, interface: &str, wire: Wire, bytes: &[u8], length: usize) -> Kept {
        Kept {
            at,
            interface: interface.into(),
            sent: at.is_multiple_of(2),
            wire,
            bytes: bytes.to_vec(),
            length,
        }
    }

    fn between(from: &str, to: &str) -> Wire {
        Wire::Udp { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn a_strict_reader_finds_what_was_kept() {
        let client = MacAddr([0x52, 0x54, 0, 0x77, 1, 1]);
        let all = [
            kept(1_795_000_000_000_001, "mgmt0", between("0.0.0.0:68", "255.255.255.255:67"), b"discover", 8),
            kept(1_795_000_000_000_002, "mgmt0", between("10.77.0.2:67", "10.77.0.11:68"), b"offer, odd", 10),
            kept(
                1_795_000_000_000_003,
                "mgmt0",
                Wire::Arp { from: client, to: MacAddr([0xff; 6]) },
                &[1; 28],
                28,
            ),
            kept(
                1_795_000_000_000_004,
                "mgmt0",
                between("10.77.0.2:4000", "10.77.0.11:2000"),
                &[3; 68],
                1472,
            ),
            kept(1_795_000_000_000_005, "mgmt1", between("[fe80::1]:546", "[ff02::1:2]:547"), b"solicit", 7),
        ];
        let bytes = section(&all, "MAC 52:54:00:77:01:01");
        let file = read(&bytes);
        assert_eq!(file.comments, ["MAC 52:54:00:77:01:01"]);
        let interfaces: Vec<_> = file.interfaces.iter().map(|one| (one.name.as_str(), one.link)).collect();
        assert_eq!(interfaces, [("mgmt0", LINK_RAW), ("mgmt0", LINK_ETHERNET), ("mgmt1", LINK_RAW)]);
        assert!(file.interfaces.iter().all(|one| one.description.contains("not those of the wire")));
        assert_eq!(file.packets.len(), all.len());
        for (got, want) in file.packets.iter().zip(&all) {
            assert_eq!((got.at, got.sent), (want.at, want.sent));
            let Packet { headers, payload, .. } = got;
            assert_eq!(payload, &want.bytes);
            assert_eq!(got.length, headers + want.length, "the length on the wire");
            assert_eq!(got.wire, want.wire);
        }
    }

    #[test]
    fn sections_one_after_another_are_a_file() {
        let one =
            |at| section(&[kept(at, "mgmt0", between("10.0.0.1:67", "10.0.0.2:68"), b"x", 1)], "a boot");
        let file = read(&[one(1), one(2), section(&[], "nothing")].concat());
        assert_eq!((file.comments.len(), file.packets.len()), (3, 2));
    }
}
