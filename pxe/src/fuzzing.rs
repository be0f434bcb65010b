//! Doors for the fuzz targets of `pxe/fuzz`: each takes one datagram as the network would bring it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dayzero_tftp_server::{Caps, Incoming, Send, Transfer, negotiate, parse_incoming, parse_request};

use crate::config::{Ipv4Prefix, NameZone};
use crate::dhcp::wire::Request;
use crate::dns::zone::Zone;

/// A DHCPv4 datagram, with all that is asked of a request.
pub fn dhcp4(datagram: &[u8]) {
    if let Ok(request) = Request::parse(datagram) {
        let _ = (request.arch(), request.uuid(), request.vendor_class(), request.message());
        let _ = (request.is_ipxe(), request.wants_boot(), request.is_http(), request.requested_ip());
        for code in 0..=u8::MAX {
            let _ = request.relayed(code);
        }
    }
}

/// A DHCPv6 datagram.
pub fn dhcp6(datagram: &[u8]) {
    crate::dhcp6::fuzz(datagram, Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe77, 1));
}

/// A DNS question.
pub fn dns(datagram: &[u8]) {
    static ZONE: OnceLock<Option<Zone>> = OnceLock::new();
    let zone = ZONE.get_or_init(|| {
        let host = "host1".parse().map(|name| (name, vec![Ipv4Addr::new(10, 77, 0, 11).into()]));
        Zone::new(&NameZone {
            domain: "lab.example".to_owned(),
            names: host.into_iter().collect(),
            prefixes: vec![Ipv4Prefix { address: Ipv4Addr::new(10, 77, 0, 0), len: 24 }],
            prefixes6: Vec::new(),
        })
    });
    if let Some(answer) = zone.as_ref().and_then(|zone| zone.answer(datagram, Ipv4Addr::new(10, 77, 0, 2))) {
        // An answer that is much larger than its question would serve an attacker.
        assert!(answer.len() <= datagram.len() + 300, "{} bytes for {}", answer.len(), datagram.len());
    }
}

/// A TFTP request; what follows it, four bytes each, arrives at its transfer.
pub fn tftp(datagram: &[u8]) {
    let _ = parse_incoming(datagram);
    let whole = parse_request(datagram).ok().flatten().map(|request| (request, datagram.len()));
    let prefixes = (2..datagram.len().min(512)).rev();
    let read = whole.or_else(|| {
        let mut found = prefixes.filter(|end| datagram[end - 1] == 0);
        found.find_map(|end| parse_request(&datagram[..end]).ok().flatten().map(|request| (request, end)))
    });
    let Some((request, end)) = read else { return };
    assert!(request.options.len() <= 16 && request.name.len() <= 512);
    let file = Bytes::from_static(&[7; 4000]);
    let Ok(terms) = negotiate(&request, file.len() as u64, &Caps::default()) else { return };
    assert!((8..=65464).contains(&terms.block) && terms.window >= 1);
    let (window, start) = (u64::from(terms.window), Instant::now());
    let (mut transfer, _) = Transfer::start(file, terms, Duration::from_secs(20), start);
    for (n, packet) in datagram[end..].chunks(4).enumerate() {
        let (before, incoming) = (transfer.acked(), parse_incoming(packet));
        let repeated = incoming == Incoming::Ack((before & 0xffff) as u16) && before > 0;
        let step = transfer.handle(incoming, start + Duration::from_millis(n as u64));
        if let Some(Send::Blocks { first, last }) = step.send {
            assert!(!repeated, "a repeated acknowledgement sends nothing");
            assert!(first <= last && last - first < window, "{first} to {last}, window {window}");
        }
        if step.outcome.is_some() {
            return;
        }
    }
}

/// What a client sends on an HTTP connection.
pub fn http(bytes: &[u8]) {
    crate::http::fuzz(bytes);
}
