//! DHCPv4 answers as bytes.
//!
//! Purpose: write an OFFER, ACK or NAK from typed parts. Invariants: options of more than 255 bytes are split (RFC
//! 3396); the message is at least 300 bytes long, which old relays and ROMs want; the client id is echoed (option 61,
//! RFC 6842), the UUID (97) is not, although the PXE specification asks for it: where it stands before the
//! netmask, EDK2 declines its lease ("Lease is denied upon entering bound"), and other servers do without it too; a
//! relay's option 82 goes back as it came, last; the boot file stands in `file` when it fits, and in option 67 always.

use std::net::Ipv4Addr;

use dayzero_model::MacAddr;

use super::wire::{Kind, Request, option};

/// Least bytes of a message.
const MIN: usize = 300;

/// Options in the order they are added.
#[derive(Debug, Default)]
pub(crate) struct Options(Vec<u8>);

impl Options {
    pub(crate) fn raw(&mut self, code: u8, value: &[u8]) -> &mut Self {
        for part in value.chunks(255) {
            self.0.push(code);
            self.0.push(u8::try_from(part.len()).unwrap_or(255));
            self.0.extend_from_slice(part);
        }
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
        // A NAK goes by broadcast, which the relay must be told (RFC 2131 section 4.3.2).
        let broadcast = request.broadcast || (self.kind == Kind::Nak && !request.giaddr.is_unspecified());
        out.extend_from_slice(&[if broadcast { 0x80 } else { 0 }, 0]);
        let ciaddr = if self.kind == Kind::Ack { request.ciaddr } else { Ipv4Addr::UNSPECIFIED };
        for address in [ciaddr, self.yiaddr, self.siaddr, request.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        let MacAddr(mac) = request.mac;
        out.extend_from_slice(&mac);
        out.resize(108, 0);
        if let Some(file) = self.file.as_deref().filter(|f| f.len() < 128) {
            out.extend_from_slice(file.as_bytes());
        }
        out.resize(236, 0);
        out.extend_from_slice(&[99, 130, 83, 99]);
        let mut head = Options::default();
        head.raw(option::MESSAGE_TYPE, &[self.kind.wire()]).address(option::SERVER_ID, self.server);
        if let Some(id) = request.raw(option::CLIENT_ID) {
            head.raw(option::CLIENT_ID, id);
        }
        if let Some(file) = &self.file {
            if !self.siaddr.is_unspecified() {
                head.text(option::TFTP_SERVER, &self.siaddr.to_string());
            }
            head.text(option::BOOT_FILE, file);
        }
        out.extend_from_slice(&head.0);
        out.extend_from_slice(&self.options.0);
        if let Some(relay) = request.raw(option::RELAY) {
            // As it came, and last (RFC 3046 section 2.2).
            let mut last = Options::default();
            last.raw(option::RELAY, relay);
            out.extend_from_slice(&last.0);
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
        let asked = request(&[(53, &[1]), (61, b"\x01abc"), (97, &[0; 17])]);
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
}
