//! Doors for the fuzz targets of `pxe/fuzz`: each takes one datagram as the network would bring it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

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
