//! A strict reader of what `section` writes: every length, every padding octet, every checksum is looked at.

use super::{BYTE_ORDER, COMMENT, INTERFACE, LINK_ETHERNET, LINK_RAW, PACKET, SECTION, UDP, Wire, checksum};
use dayzero_model::ids::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) comments: Vec<String>,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) packets: Vec<Packet>,
}

#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) link: u16,
}

#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) at: u64,
    pub(crate) sent: bool,
    pub(crate) wire: Wire,
    pub(crate) headers: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) length: usize,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn big(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// Options up to their end, which must be the body's.
fn options(mut body: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let (code, length) = (half(body, 0), usize::from(half(body, 2)));
        if code == 0 {
            assert_eq!((length, body.len()), (0, 4), "the end of options is the end of the block");
            return found;
        }
        let padded = length.next_multiple_of(4);
        assert!(body[4 + length..4 + padded].iter().all(|octet| *octet == 0), "padding");
        found.push((code, body[4..4 + length].to_vec()));
        body = &body[4 + padded..];
    }
}

fn text(options: &[(u16, Vec<u8>)], code: u16) -> String {
    let value = options.iter().find(|(c, _)| *c == code).map(|(_, value)| value.clone());
    String::from_utf8(value.unwrap_or_default()).unwrap()
}

pub(crate) fn read(mut bytes: &[u8]) -> File {
    let mut file = File::default();
    let mut here: Vec<Interface> = Vec::new();
    let mut begun = false;
    while !bytes.is_empty() {
        let (kind, length) = (word(bytes, 0), word(bytes, 4) as usize);
        assert!(length.is_multiple_of(4) && length >= 12, "block length {length}");
        assert_eq!(word(bytes, length - 4) as usize, length, "both lengths");
        let body = &bytes[8..length - 4];
        bytes = &bytes[length..];
        assert!(begun || kind == SECTION, "a section comes first");
        match kind {
            SECTION => {
                begun = true;
                assert_eq!((word(body, 0), half(body, 4), half(body, 6)), (BYTE_ORDER, 1, 0));
                assert_eq!(&body[8..16], &[0xff; 8], "length not told");
                file.comments.push(text(&options(&body[16..]), COMMENT));
                here.clear();
            }
            INTERFACE => {
                let options = options(&body[8..]);
                assert!(options.contains(&(9, vec![6])), "microseconds");
                let (name, description) = (text(&options, 2), text(&options, 3));
                let one = Interface { name, description, link: half(body, 0) };
                here.push(one.clone());
                file.interfaces.push(one);
            }
            PACKET => file.packets.push(packet(body, &here)),
            other => panic!("a block of type {other}"),
        }
    }
    file
}

fn packet(body: &[u8], interfaces: &[Interface]) -> Packet {
    let interface = &interfaces[word(body, 0) as usize];
    let at = (u64::from(word(body, 4)) << 32) | u64::from(word(body, 8));
    let (kept, length) = (word(body, 12) as usize, word(body, 16) as usize);
    assert!(kept <= length);
    let data = &body[20..20 + kept];
    let options = options(&body[20 + kept.next_multiple_of(4)..]);
    let sent = match options.iter().find(|(code, _)| *code == 2).map(|(_, flags)| word(flags, 0)) {
        Some(1) => false,
        Some(2) => true,
        other => panic!("direction {other:?}"),
    };
    let (wire, headers) = match (interface.link, data[0] >> 4) {
        (LINK_ETHERNET, _) => {
            assert_eq!(&data[12..14], &[8, 6], "ARP");
            let mac = |at: usize| MacAddr(data[at..at + 6].try_into().unwrap());
            (Wire::Arp { from: mac(6), to: mac(0) }, 14)
        }
        (LINK_RAW, 4) => {
            assert_eq!((data[0], data[9], checksum(&[&data[..20]])), (0x45, UDP, 0));
            assert_eq!(usize::from(big(data, 2)), length, "IP's length");
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&data[at..at + 4]).unwrap()));
            (ports(ip(12), ip(16), &data[20..], length - 20), 28)
        }
        (LINK_RAW, 6) => {
            assert_eq!((data[6], usize::from(big(data, 4))), (UDP, length - 40));
            let pseudo = [&data[8..40], &[0, 0], &data[4..6], &[0, 0, 0, UDP]].concat();
            assert_eq!(checksum(&[&pseudo, &data[40..]]), 0);
            let ip =
                |at: usize| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&data[at..at + 16]).unwrap()));
            (ports(ip(8), ip(24), &data[40..], length - 40), 48)
        }
        other => panic!("{other:?}"),
    };
    Packet { at, sent, wire, headers, payload: data[headers..].to_vec(), length }
}

fn ports(from: IpAddr, to: IpAddr, udp: &[u8], length: usize) -> Wire {
    assert_eq!(usize::from(big(udp, 4)), length, "UDP's length");
    Wire::Udp { from: SocketAddr::new(from, big(udp, 0)), to: SocketAddr::new(to, big(udp, 2)) }
}
