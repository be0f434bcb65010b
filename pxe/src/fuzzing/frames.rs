//! Frames that are read as they came: ARP's answers, LLDP, spanning tree, others' DHCP and router advertisements.

use std::net::Ipv4Addr;

use dayzero_model::lldp::{self, Heard, TEXT_MAX};

use crate::dhcp::arp;
use crate::doctor::{routers, switch};
use crate::overhear;

/// Destination, source, type.
const ETHERNET: usize = 14;
/// U+FFFD stands for one octet that is no text.
const LONGEST: usize = TEXT_MAX * 3;
/// What is no EtherType is a length (802.3).
const TYPES: u16 = 0x0600;

/// A whole frame, read by whom the kernel would give it to.
///
/// # Panics
/// If more is read out of it than stands in it.
pub fn frames(frame: &[u8]) {
    let Some((head, body)) = frame.split_at_checked(ETHERNET) else { return };
    match u16::from_be_bytes([head[12], head[13]]) {
        lldp::ETHERTYPE => {
            if let Ok(heard) = lldp::parse(frame) {
                neighbour(&heard);
            }
        }
        0x0806 => {
            // The socket's buffer ends there.
            let message = &body[..body.len().min(arp::LENGTH)];
            if let Some((mac, address)) = arp::sender(message) {
                assert_eq!((&message[8..14], &message[14..18]), (&mac.0[..], &address.octets()[..]));
                assert_ne!(address, Ipv4Addr::UNSPECIFIED, "a probe claims nothing");
            }
        }
        0x0800 => {
            if let Some((server, ..)) = overhear::server_of(body) {
                assert!(body.windows(4).any(|four| four == server.octets()), "{server} is named nowhere");
            }
        }
        0x86dd => {
            if let Some((router, said)) = routers::advertised(body) {
                assert!(router.is_unicast_link_local(), "{router} is beyond the link");
                for prefix in said.prefixes {
                    let octets = prefix.address.octets();
                    assert!(body.windows(16).any(|sixteen| sixteen == octets), "{prefix} stands nowhere");
                    assert!(prefix.len <= 128, "{prefix}");
                }
            }
        }
        length if length < TYPES => {
            let forwards = switch::forwards(body);
            assert!(forwards.is_none() || body.len() > 6, "{forwards:?} of {} octets", body.len());
        }
        _ => {}
    }
}

fn neighbour(heard: &Heard) {
    let Heard { system_name, chassis_id, port_id, port_description, .. } = heard;
    let texts = [system_name.as_ref(), Some(chassis_id), Some(port_id), port_description.as_ref()];
    for text in texts.into_iter().flatten() {
        assert!(text.len() <= LONGEST, "{} octets", text.len());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
