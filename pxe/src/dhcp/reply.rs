//! DHCPv4 answers as bytes.
//!
//! Purpose: write an OFFER, ACK or NAK from typed parts. Invariants: options of more than 255 bytes are split (RFC
//! 3396); the message is at least 300 bytes long, which old relays and ROMs want; the client id is echoed (option 61,
//! RFC 6842), the UUID (97) is not, although the PXE specification asks for it: where it stands before the
//! netmask, EDK2 declines its lease ("Lease is denied upon entering bound"), and other servers do without it too; a
//! relay's option 82 goes back as it came, last; the boot file stands in `file` when it fits, and in option 67 too;
//! iPXE's own options (175) stand before that: EDK2 writes a zero behind option 67, where the next one begins, and what it
//! keeps for a loader to read is garbled from there on; what the client gets is no longer than it takes (option 57): the
//! least needed options are left out first.

use std::net::Ipv4Addr;

use dayzero_model::MacAddr;

use super::wire::{Kind, Request, option};

/// Least bytes of a message.
const MIN: usize = 300;
/// Bytes before the options: fixed fields and cookie.
const HEAD: usize = 240;
/// Longest boot file that its field holds, with the zero at its end.
const FILE: usize = 127;
/// Options that a client can do without, the least needed first: what stands in a fixed field too, then what it can guess.
/// Those that are not here, an address is nothing without.
const LEAST_NEEDED: [u8; 13] = [
    option::TFTP_SERVER,
    option::BOOT_FILE,
    option::HOST_NAME,
    option::BROADCAST,
    option::DOMAIN,
    option::MESSAGE,
    option::T2,
    option::T1,
    option::CLIENT_UUID,
    option::MTU,
    option::DNS,
    option::IPXE,
    option::CLIENT_ID,
];

/// Bytes of most answers' options: so many are reserved at once.
const TYPICAL: usize = 256;

/// Options in the order they are added.
#[derive(Debug)]
pub(crate) struct Options(Vec<u8>);

impl Default for Options {
    fn default() -> Self {
        Self(Vec::with_capacity(TYPICAL))
    }
}

fn write(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    for part in value.chunks(255) {
        out.push(code);
        out.push(u8::try_from(part.len()).unwrap_or(255));
        out.extend_from_slice(part);
    }
}

impl Options {
    pub(crate) fn raw(&mut self, code: u8, value: &[u8]) -> &mut Self {
        write(&mut self.0, code, value);
        self
    }

    pub(crate) fn address(&mut self, code: u8, value: Ipv4Addr) -> &mut Self {
        self.raw(code, &value.octets())
    }

    pub(crate) fn seconds(&mut self, code: u8, value: u32) -> &mut Self {
        self.raw(code, &value.to_be_bytes())
    }

    pub(crate) fn text(&mut self, code: u8, value: &str) -> &mut Self {
        self.raw(code, value.as_bytes())
    }

    /// This option apart from the others.
    fn part(&self, wanted: u8) -> (Vec<u8>, Vec<u8>) {
        let (mut part, mut others) = (Vec::new(), Vec::with_capacity(self.0.len()));
        let mut rest = self.0.as_slice();
        while let [code, len, tail @ ..] = rest {
            let (one, after) = rest.split_at(2 + usize::from(*len).min(tail.len()));
            if *code == wanted { &mut part } else { &mut others }.extend_from_slice(one);
            rest = after;
        }
        (part, others)
    }

    /// Leaves options out until what remains is no longer than `most`; `needed` stays.
    fn shorten(&mut self, most: usize, needed: Option<u8>) {
        for code in LEAST_NEEDED.into_iter().filter(|code| Some(*code) != needed) {
            if self.0.len() <= most {
                return;
            }
            let (mut kept, mut rest) = (Vec::with_capacity(self.0.len()), self.0.as_slice());
            while let [this, len, tail @ ..] = rest {
                let (one, after) = rest.split_at(2 + usize::from(*len).min(tail.len()));
                if *this != code {
                    kept.extend_from_slice(one);
                }
                rest = after;
            }
            self.0 = kept;
        }
    }
}

/// A message to a client.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: Kind,
    /// Its address from now on; unspecified in a NAK and in the answer to an INFORM.
    pub(crate) yiaddr: Ipv4Addr,
    /// Next server (TFTP); unspecified: none.
    pub(crate) siaddr: Ipv4Addr,
    /// Us.
    pub(crate) server: Ipv4Addr,
    /// Boot file: a name for TFTP, or a URL.
    pub(crate) file: Option<String>,
    pub(crate) options: Options,
}

impl Reply {
    /// The bytes to send in answer to `request`.
    pub(crate) fn encode(&self, request: &Request) -> Vec<u8> {
        let mut out = Vec::with_capacity(548);
        out.extend_from_slice(&[2, 1, 6, 0]);
        out.extend_from_slice(&request.xid.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        // What names no address of the client's goes by broadcast, which a relay must be told: a NAK (RFC 2131 section
        // 4.3.2), and the OFFER of one that only says what to boot, which relays would send to 0.0.0.0.
        let nowhere = self.yiaddr.is_unspecified() && self.kind != Kind::Ack;
        let broadcast = request.broadcast || (nowhere && !request.giaddr.is_unspecified());
        out.extend_from_slice(&[if broadcast { 0x80 } else { 0 }, 0]);
        let ciaddr = if self.kind == Kind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        for address in [ciaddr, self.yiaddr, self.siaddr, request.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        let MacAddr(mac) = request.mac;
        out.extend_from_slice(&mac);
        out.resize(108, 0);
        let in_field = self.file.as_deref().filter(|file| file.len() <= FILE);
        if let Some(file) = in_field {
            out.extend_from_slice(file.as_bytes());
        }
        out.resize(236, 0);
        out.extend_from_slice(&[99, 130, 83, 99]);
        let mut head = Options::default();
        head.raw(option::MESSAGE_TYPE, &[self.kind.wire()]).address(option::SERVER_ID, self.server);
        if let Some(id) = request.raw(option::CLIENT_ID) {
            head.raw(option::CLIENT_ID, id);
        }
        let (ipxe, others) = self.options.part(option::IPXE);
        head.0.extend_from_slice(&ipxe);
        if let Some(file) = &self.file {
            if !self.siaddr.is_unspecified() {
                head.text(option::TFTP_SERVER, &self.siaddr.to_string());
            }
            head.text(option::BOOT_FILE, file);
        }
        // The relay takes option 82 off again: the client gets the rest.
        let most = request.room() - HEAD - 1;
        if head.0.len() + others.len() > most {
            head.0.extend_from_slice(&others);
            head.shorten(most, in_field.is_none().then_some(option::BOOT_FILE));
            out.extend_from_slice(&head.0);
        } else {
            out.extend_from_slice(&head.0);
            out.extend_from_slice(&others);
        }
        if let Some(relay) = request.raw(option::RELAY) {
            // As it came, and last (RFC 3046 section 2.2).
            write(&mut out, option::RELAY, relay);
        }
        out.push(255);
        if out.len() < MIN {
            out.resize(MIN, 0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::tests::request;
    use super::*;
    use dhcproto::v4::{DhcpOption, Message, OptionCode};
    use dhcproto::{Decodable, Decoder};

    #[test]
    fn a_foreign_decoder_reads_what_we_write() {
        let asked = request(&[(53, &[1]), (57, &[5, 0xdc]), (61, b"\x01abc"), (97, &[0; 17])]);
        let long = "x".repeat(300);
        let mut options = Options::default();
        options.seconds(option::LEASE_TIME, 3600).text(option::MESSAGE, &long);
        let reply = Reply {
            kind: Kind::Offer,
            yiaddr: Ipv4Addr::new(10, 77, 0, 11),
            siaddr: Ipv4Addr::new(10, 77, 0, 2),
            server: Ipv4Addr::new(10, 77, 0, 2),
            file: Some("snponly.efi".into()),
            options,
        };
        let bytes = reply.encode(&asked);
        let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
        assert_eq!(message.yiaddr(), reply.yiaddr);
        assert_eq!(message.siaddr(), reply.siaddr);
        assert_eq!(message.xid(), asked.xid);
        assert_eq!(message.fname(), Some(&b"snponly.efi\0"[..]));
        let opts = message.opts();
        assert_eq!(opts.get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(3600)));
        assert_eq!(opts.get(OptionCode::Message), Some(&DhcpOption::Message(long)));
        assert_eq!(
            opts.get(OptionCode::BootfileName),
            Some(&DhcpOption::BootfileName(b"snponly.efi".to_vec()))
        );
        assert!(opts.get(OptionCode::ClientIdentifier).is_some());
        assert!(opts.get(OptionCode::ClientMachineIdentifier).is_none(), "EDK2 declines a lease with it");
        assert!(bytes.len() >= MIN);
    }

    #[test]
    fn a_client_gets_no_more_than_it_takes_and_what_it_needs_least_is_left_out_first() {
        let id = [7; 180];
        let url = format!("http://10.77.0.2:8080/boot/script?mac={}", "x".repeat(60));
        let encode = |size: Option<u16>, file: &str, relayed: bool| {
            let octets = size.unwrap_or_default().to_be_bytes();
            let mut asked: Vec<(u8, &[u8])> = vec![(53, &[1]), (61, &id)];
            asked.extend(size.is_some().then_some((57, &octets[..])));
            asked.extend(relayed.then_some((82, &b"\x01\x03e17"[..])));
            let mut options = Options::default();
            options.seconds(option::LEASE_TIME, 3600).address(option::SUBNET_MASK, [255, 255, 255, 0].into());
            options.address(option::ROUTER, [10, 77, 0, 1].into()).raw(option::DNS, &[10; 32]);
            options.text(option::DOMAIN, &"d".repeat(100)).text(option::HOST_NAME, &"h".repeat(63));
            options.raw(option::IPXE, &[176, 1, 1]);
            let (none, server) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 77, 0, 2));
            let file = Some(file.to_owned());
            let reply = Reply { kind: Kind::Offer, yiaddr: none, siaddr: server, server, file, options };
            reply.encode(&super::super::wire::tests::request(&asked))
        };
        let codes = |bytes: &[u8]| {
            let (mut all, mut rest) = (Vec::new(), &bytes[HEAD..]);
            while let [code, len, tail @ ..] = rest {
                if *code == 255 {
                    break;
                }
                all.push(*code);
                rest = &tail[usize::from(*len)..];
            }
            all
        };
        let all = encode(Some(1500), &url, false);
        assert_eq!(codes(&all), [53, 54, 61, 175, 66, 67, 51, 1, 3, 6, 15, 12]);
        // What says nothing, or less than a client must take, takes 576: 548 without its headers.
        for size in [None, Some(576), Some(0), Some(300)] {
            let short = encode(size, &url, false);
            assert!(short.len() <= 548, "{size:?}: {} bytes", short.len());
            assert_eq!(codes(&short), [53, 54, 61, 175, 51, 1, 3, 6], "{size:?}");
            assert_eq!(&short[108..108 + url.len()], url.as_bytes(), "{size:?}");
            assert!(Message::decode(&mut Decoder::new(&short)).is_ok());
        }
        assert_eq!(codes(&encode(Some(690), &url, false)), [53, 54, 61, 175, 51, 1, 3, 6, 15, 12]);
        // A name too long for its field stays in its option, and the relay's own is beside all that.
        let long = "y".repeat(200);
        let named = codes(&encode(None, &long, true));
        assert!(named.contains(&67) && named.ends_with(&[82]), "{named:?}");
        assert!([53, 54, 51, 1, 3].iter().all(|code| named.contains(code)), "{named:?}");
    }
}
