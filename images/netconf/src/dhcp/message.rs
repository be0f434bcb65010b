//! DHCP messages of a client (RFC 2131, options of RFC 2132): what it writes, and the little that it reads.
//!
//! The reader is bounded by the datagram: a message that does not add up is refused with a word, never a panic.

use super::Lease;
use dayzero_model::ids::MacAddr;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::time::Duration;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the options begin.
const HEADER: usize = 240;
/// RFC 1542: relays may drop what is shorter.
const LEAST: usize = 300;
const NEVER: u32 = u32::MAX;
/// A shorter lease, seconds, would be asked for without end.
const SHORTEST: u32 = 4;

/// Message types (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    pub(super) mac: MacAddr,
    /// The address that it has; unspecified = none, and answers are to be broadcast.
    pub(super) client: Ipv4Addr,
    pub(super) wanted: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) hostname: String,
}

impl Ask {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out[..4].copy_from_slice(&[1, 1, 6, 0]);
        out[4..8].copy_from_slice(&self.xid.to_be_bytes());
        if self.client.is_unspecified() {
            out[10] = 0x80;
        }
        out[12..16].copy_from_slice(&self.client.octets());
        out[28..34].copy_from_slice(&self.mac.0);
        out[236..240].copy_from_slice(&COOKIE);
        let mut option = |code: u8, value: &[u8]| {
            let value = &value[..value.len().min(255)];
            out.extend([code, value.len() as u8]);
            out.extend(value);
        };
        option(53, &[self.kind as u8]);
        option(61, &[&[1], &self.mac.0[..]].concat());
        if let Some(wanted) = self.wanted {
            option(50, &wanted.octets());
        }
        if let Some(server) = self.server {
            option(54, &server.octets());
        }
        option(12, self.hostname.as_bytes());
        // Mask, router, lease time, server, renewal, rebinding.
        option(55, &[1, 3, 51, 54, 58, 59]);
        out.push(255);
        out.resize(out.len().max(LEAST), 0);
        out
    }
}

/// What a server answers. The lease of a NAK holds its server only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) lease: Lease,
}

impl Answer {
    /// Reads an answer to `xid` for `mac`; the error says what is wrong with it.
    pub(super) fn decode(message: &[u8], xid: u32, mac: MacAddr) -> Result<Self, &'static str> {
        if message.len() < HEADER || message[0] != 2 || message[236..240] != COOKIE {
            return Err("no DHCP answer");
        }
        if message[4..8] != xid.to_be_bytes() || message[28..34] != mac.0 {
            return Err("an answer to somebody else");
        }
        let options = &message[HEADER..];
        let kind = match find(options, 53)? {
            Some([2]) => Kind::Offer,
            Some([5]) => Kind::Ack,
            Some([6]) => Kind::Nak,
            _ => return Err("neither OFFER nor ACK nor NAK"),
        };
        let server = four(find(options, 54)?).map(Ipv4Addr::from).ok_or("it does not name its server")?;
        if kind == Kind::Nak {
            let (address, time) = (Ipv4Net::default(), Duration::ZERO);
            let lease = Lease { address, gateway: None, server, time, renew: time, rebind: time };
            return Ok(Self { kind, lease });
        }
        let mask = four(find(options, 1)?).ok_or("it has no subnet mask")?;
        let address = Ipv4Addr::from([message[16], message[17], message[18], message[19]]);
        let address = Ipv4Net::with_netmask(address, mask.into()).map_err(|_| "its subnet mask is none")?;
        let host = address.addr();
        if host.is_unspecified() || host.is_loopback() || host.is_multicast() || host.is_broadcast() {
            return Err("its address is none for a host");
        }
        let gateway = find(options, 3)?.and_then(|routers| four(routers.get(..4))).map(Ipv4Addr::from);
        let gateway = gateway.filter(|router| *router != host && address.contains(router));
        let number = |code| Ok::<_, &'static str>(four(find(options, code)?).map(u32::from_be_bytes));
        let time = number(51)?.ok_or("it has no lease time")?;
        if time < SHORTEST {
            return Err("its lease is shorter than 4 s");
        }
        // 1/2 and 7/8 are RFC 2131's own (4.4.5); a server's words count where they are in order.
        let renew = number(58)?.filter(|t| *t < time).unwrap_or(time / 2).max(1);
        let rebind = number(59)?.filter(|t| (renew..time).contains(t)).unwrap_or(time / 8 * 7).max(renew);
        let [time, renew, rebind] = [time, renew, rebind]
            .map(|s| Duration::from_secs(if time == NEVER { 1 << 32 } else { s.into() }));
        Ok(Self { kind, lease: Lease { address, gateway, server, time, renew, rebind } })
    }
}

fn four(value: Option<&[u8]>) -> Option<[u8; 4]> {
    value?.try_into().ok()
}

/// The first option with this code.
fn find(options: &[u8], wanted: u8) -> Result<Option<&[u8]>, &'static str> {
    let mut at = 0;
    loop {
        match options.get(at) {
            None | Some(255) => return Ok(None),
            Some(0) => at += 1,
            Some(code) => {
                let length = usize::from(*options.get(at + 1).ok_or("its options are cut short")?);
                let value = options.get(at + 2..at + 2 + length).ok_or("its options are cut short")?;
                if *code == wanted {
                    return Ok(Some(value));
                }
                at += 2 + length;
            }
        }
    }
}

/// A client's message in UDP in IPv4, from 0.0.0.0 port 68 to 255.255.255.255 port 67.
pub(super) fn from_nowhere(message: &[u8]) -> Vec<u8> {
    let length = |head: usize| u16::try_from(head + message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut ip = vec![0x45, 0x10, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&length(28));
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum);
    let mut udp = vec![0, 68, 0, 67, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&length(8));
    let pseudo = [&ip[12..20], &[0, 17], &length(8)].concat();
    let sum = checksum(&[&pseudo, &udp, message]);
    udp[6..8].copy_from_slice(&sum);
    [&ip, &udp, message].concat()
}

/// RFC 1071, over parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn ask() -> Ask {
        Ask {
            kind: Kind::Discover,
            xid: 0x1234_5678,
            mac: MAC,
            client: Ipv4Addr::UNSPECIFIED,
            wanted: None,
            server: None,
            hostname: "dayzero".to_owned(),
        }
    }

    /// An answer with these options, each `(code, value)`.
    fn answer(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = ask().encode()[..HEADER].to_vec();
        out[0] = 2;
        out[16..20].copy_from_slice(&[10, 0, 2, 15]);
        for (code, value) in options {
            out.extend([*code, value.len() as u8]);
            out.extend(*value);
        }
        out.push(255);
        out
    }

    const GOOD: [(u8, &[u8]); 5] = [
        (53, &[5]),
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 2, 2, 10, 0, 2, 3]),
        (51, &[0, 1, 0x51, 0x80]),
        (54, &[10, 0, 2, 2]),
    ];

    #[test]
    fn a_discover_is_this_on_the_wire() {
        let bytes = ask().encode();
        assert_eq!(bytes.len(), LEAST);
        insta::assert_snapshot!(hex(&bytes[..44]), @"0101060012345678000080000000000000000000000000000000000052540012345600000000000000000000");
        insta::assert_snapshot!(hex(&bytes[236..272]), @"638253633501013d07015254001234560c076461797a65726f3706010333363a3bff0000");
        let renewal = Ask { client: [10, 0, 2, 15].into(), ..ask() }.encode();
        assert_eq!((renewal[10], &renewal[12..16]), (0, &[10, 0, 2, 15][..]), "answered by unicast");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_ack_gives_a_lease() {
        let lease = Answer::decode(&answer(&GOOD), 0x1234_5678, MAC).unwrap().lease;
        assert_eq!(lease.address.to_string(), "10.0.2.15/24");
        assert_eq!(lease.gateway, Some([10, 0, 2, 2].into()));
        let times = [lease.time, lease.renew, lease.rebind].map(|time| time.as_secs());
        assert_eq!(times, [86_400, 43_200, 75_600]);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let without =
            |code: u8| answer(&GOOD.iter().filter(|(c, _)| *c != code).copied().collect::<Vec<_>>());
        let mut cut = answer(&GOOD);
        cut.truncate(HEADER + 8);
        for (message, reason) in [
            (without(53), "neither OFFER"),
            (without(54), "server"),
            (without(1), "subnet mask"),
            (without(51), "lease time"),
            (cut, "cut short"),
            (vec![2; 100], "no DHCP answer"),
            (ask().encode(), "no DHCP answer"),
        ] {
            let error = Answer::decode(&message, 0x1234_5678, MAC).unwrap_err();
            assert!(error.contains(reason), "{error} for {reason}");
        }
        assert!(Answer::decode(&answer(&GOOD), 1, MAC).unwrap_err().contains("somebody else"));
    }

    #[test]
    fn a_router_elsewhere_or_odd_times_are_not_taken() {
        let mut odd = GOOD.to_vec();
        odd[2] = (3, &[192, 0, 2, 1]);
        odd.extend([(58, &[0xff; 4][..]), (59, &[0, 0, 0, 1][..])]);
        let lease = Answer::decode(&answer(&odd), 0x1234_5678, MAC).unwrap().lease;
        assert_eq!(lease.gateway, None);
        assert_eq!((lease.renew.as_secs(), lease.rebind.as_secs()), (43_200, 75_600));
        let forever = [GOOD[0], GOOD[1], GOOD[4], (51, &[0xff; 4][..])];
        let lease = Answer::decode(&answer(&forever), 0x1234_5678, MAC).unwrap().lease;
        assert!(lease.renew.as_secs() >= u64::from(u32::MAX), "a lease for ever is not renewed");
    }

    #[test]
    fn a_packet_from_nowhere_has_right_checksums() {
        let packet = from_nowhere(b"odd");
        assert_eq!(checksum(&[&packet[..20]]), [0, 0]);
        let pseudo = [&packet[12..20], &[0, 17, 0, 11][..]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), [0, 0]);
        assert_eq!((&packet[12..16], &packet[16..20]), (&[0; 4][..], &[255; 4][..]));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(noise in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..400) {
            let mut message = answer(&GOOD);
            message.truncate(message.len() - 1);
            message.extend(noise);
            message.truncate(cut);
            let _ = Answer::decode(&message, 0x1234_5678, MAC);
        }
    }
}
