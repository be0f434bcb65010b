//! DHCPv4 datagrams from clients, read strictly (RFC 2131, 2132, 3396, 4578).
//!
//! Purpose: a typed request, or the reason why it is none. Invariants: one bounded walk over the bytes; every option
//! keeps within its area; option 52 (overload) adds `file` and `sname` once each; fragments of one option are joined
//! (RFC 3396), so memory is bounded by the datagram; a known option of a wrong length refuses the datagram rather
//! than hiding what follows it. It answers nothing.

use std::net::Ipv4Addr;

use dayzero_model::MacAddr;
use dayzero_model::boot::Arch;

/// Longest datagram that is looked at.
pub(crate) const MAX_DATAGRAM: usize = 4096;
/// Bytes kept of one datagram's options, fragments that were moved counted again.
const MOST_BYTES: usize = 4 * MAX_DATAGRAM;
pub(crate) const FIXED: usize = 236;
pub(crate) const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FLAG_BROADCAST: u16 = 0x8000;
/// What every client takes (RFC 2131 section 2), and what one Ethernet frame carries: IP datagrams.
const EVERY_CLIENT: u16 = 576;
const ONE_FRAME: u16 = 1500;
/// IPv4 and UDP header of a datagram.
const HEADERS: u16 = 28;

/// Option numbers that are read or written.
pub(crate) mod option {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const VENDOR: u8 = 43;
    pub(crate) const REQUESTED_IP: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const MESSAGE: u8 = 56;
    pub(crate) const MOST_BYTES: u8 = 57;
    pub(crate) const T1: u8 = 58;
    pub(crate) const T2: u8 = 59;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const TFTP_SERVER: u8 = 66;
    pub(crate) const BOOT_FILE: u8 = 67;
    pub(crate) const USER_CLASS: u8 = 77;
    pub(crate) const RELAY: u8 = 82;
    pub(crate) const CLIENT_ARCH: u8 = 93;
    pub(crate) const CLIENT_UUID: u8 = 97;
    pub(crate) const IPXE: u8 = 175;
}

/// Sub-options of option 82.
pub(crate) mod relay {
    /// RFC 3046.
    pub(crate) const CIRCUIT: u8 = 1;
    /// RFC 3046.
    pub(crate) const REMOTE: u8 = 2;
    /// Link selection (RFC 3527): the client's network, where `giaddr` is not of it.
    pub(crate) const LINK: u8 = 5;
    /// Server identifier override (RFC 5107): the relay wants to see renewals too.
    pub(crate) const SERVER: u8 = 11;
}

/// What iPXE keeps in option 175.
pub(crate) mod ipxe {
    /// Feature: HTTPS.
    pub(crate) const HTTPS: u8 = 20;
    /// Setting `trust`: SHA-256 of the certificates that end a chain. iPXE reads it once, before its own DHCP: by then it has
    /// what the firmware was answered.
    pub(crate) const TRUST: u8 = 90;
    /// Setting `no-pxedhcp`: do not wait for a proxyDHCP server.
    pub(crate) const NO_PROXY: u8 = 176;
}

/// DHCP message types (RFC 2132 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1
    Discover,
    /// 2
    Offer,
    /// 3
    Request,
    /// 4
    Decline,
    /// 5
    Ack,
    /// 6
    Nak,
    /// 7
    Release,
    /// 8
    Inform,
}

impl Kind {
    pub(crate) fn wire(self) -> u8 {
        match self {
            Kind::Discover => 1,
            Kind::Offer => 2,
            Kind::Request => 3,
            Kind::Decline => 4,
            Kind::Ack => 5,
            Kind::Nak => 6,
            Kind::Release => 7,
            Kind::Inform => 8,
        }
    }

    fn read(byte: u8) -> Option<Self> {
        use Kind::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform].into_iter().find(|k| k.wire() == byte)
    }

    /// The word of the RFC.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Discover => "DISCOVER",
            Kind::Offer => "OFFER",
            Kind::Request => "REQUEST",
            Kind::Decline => "DECLINE",
            Kind::Ack => "ACK",
            Kind::Nak => "NAK",
            Kind::Release => "RELEASE",
            Kind::Inform => "INFORM",
        }
    }
}

/// Why a datagram is no DHCP request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDatagram {
    /// Too short, or longer than is looked at.
    #[error("{0} bytes: a DHCP message has 241 to {MAX_DATAGRAM}")]
    Length(usize),
    /// Not from a client.
    #[error("op is {0}, not BOOTREQUEST (1)")]
    Op(u8),
    /// Not Ethernet.
    #[error("hardware type {htype} with {hlen} address bytes is no Ethernet (1 with 6)")]
    Hardware {
        /// htype field.
        htype: u8,
        /// hlen field.
        hlen: u8,
    },
    /// A group or empty address.
    #[error("client address {0} is no unicast Ethernet address")]
    Mac(MacAddr),
    /// No DHCP, plain BOOTP or something else.
    #[error("the magic cookie is missing")]
    Cookie,
    /// An option runs over its area.
    #[error("option {0} is longer than what is left of the datagram")]
    Truncated(u8),
    /// A known option of a length that it cannot have.
    #[error("option {option} has {len} bytes{}", wanted(*.option))]
    OptionLength {
        /// Which.
        option: u8,
        /// Its length.
        len: usize,
    },
    /// Options torn into fragments that take turns: no client does that.
    #[error("its options are torn into too many fragments")]
    Fragments,
    /// Plain BOOTP.
    #[error("it has no message type (option 53): we do not serve plain BOOTP")]
    NoKind,
    /// A server's message, or an unknown one.
    #[error("message type {0} is none that a client may send")]
    Kind(u8),
}

/// The lengths that an option may have, to follow one that it may not have.
fn wanted(option: u8) -> &'static str {
    match option {
        option::MESSAGE_TYPE => ", not 1",
        option::REQUESTED_IP | option::SERVER_ID => ", not 4",
        option::OVERLOAD => ", not 1 with a value of 1 to 3",
        option::CLIENT_ARCH => ", not 2 for each architecture",
        option::CLIENT_UUID => ", not 17 (type 0 and the UUID) or none",
        option::RELAY => ", and an address in it has not 4 (its relay wrote it)",
        _ => "",
    }
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub kind: Kind,
    /// Relays that it came through.
    pub hops: u8,
    /// Transaction.
    pub xid: u32,
    /// Seconds since it began.
    pub secs: u16,
    /// It cannot receive unicast yet.
    pub broadcast: bool,
    /// The address that it has.
    pub ciaddr: Ipv4Addr,
    /// The relay that the message came by; unspecified: none.
    pub giaddr: Ipv4Addr,
    /// Its MAC.
    pub mac: MacAddr,
    options: Fields,
}

/// Options by code, each joined from its fragments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    /// Code, and where its value lies in `bytes`.
    index: Vec<(u8, usize, usize)>,
}

impl Fields {
    pub(crate) fn get(&self, code: u8) -> Option<&[u8]> {
        let (_, at, len) = *self.index.iter().find(|(one, ..)| *one == code)?;
        self.bytes.get(at..at + len)
    }

    fn add(&mut self, code: u8, value: &[u8]) {
        let end = self.bytes.len();
        match self.index.iter_mut().find(|(one, ..)| *one == code) {
            None => self.index.push((code, end, value.len())),
            Some((_, at, len)) => {
                // A fragment of what is not the last value: that value moves to the end, once for each fragment.
                if *at + *len != end {
                    self.bytes.extend_from_within(*at..*at + *len);
                    *at = end;
                }
                *len += value.len();
            }
        }
        self.bytes.extend_from_slice(value);
    }

    fn each(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.index.iter().filter_map(|(code, at, len)| Some((*code, self.bytes.get(*at..*at + *len)?)))
    }

    /// Walks one area of options, appending each value to what is there (RFC 3396).
    pub(crate) fn walk(&mut self, area: &[u8]) -> Result<(), BadDatagram> {
        let mut rest = area;
        while let Some((&code, tail)) = rest.split_first() {
            match code {
                0 => rest = tail,
                255 => return Ok(()),
                _ => {
                    let (value, tail) = value(code, tail)?;
                    self.add(code, value);
                    if self.bytes.len() > MOST_BYTES {
                        return Err(BadDatagram::Fragments);
                    }
                    rest = tail;
                }
            }
        }
        Ok(())
    }
}

/// A value with its length octet first, and what follows it.
fn value(code: u8, tail: &[u8]) -> Result<(&[u8], &[u8]), BadDatagram> {
    let Some((&len, tail)) = tail.split_first() else { return Err(BadDatagram::Truncated(code)) };
    tail.split_at_checked(usize::from(len)).ok_or(BadDatagram::Truncated(code))
}

/// A sub-option of option 82; an error where they do not fill it exactly.
fn sub_option(mut rest: &[u8], wanted: u8) -> Result<Option<&[u8]>, BadDatagram> {
    let mut found = None;
    while let Some((&code, tail)) = rest.split_first() {
        let (value, tail) = value(option::RELAY, tail)?;
        if code == wanted && found.is_none() {
            found = Some(value);
        }
        rest = tail;
    }
    Ok(found)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(slice) = self.0.get(at..at + N) {
            out.copy_from_slice(slice);
        }
        out
    }

    /// The MAC of the client whose message it is.
    fn client(&self) -> Result<MacAddr, BadDatagram> {
        let [op, htype, hlen] = self.take::<3>(0);
        if op != 1 {
            return Err(BadDatagram::Op(op));
        }
        if htype != 1 || hlen != 6 {
            return Err(BadDatagram::Hardware { htype, hlen });
        }
        let mac = MacAddr(self.take::<6>(28));
        if mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
            return Err(BadDatagram::Mac(mac));
        }
        Ok(mac)
    }

    fn request(&self, kind: Kind, mac: MacAddr, options: Fields) -> Request {
        let [hops] = self.take(3);
        Request {
            kind,
            hops,
            xid: u32::from_be_bytes(self.take(4)),
            secs: u16::from_be_bytes(self.take(8)),
            broadcast: u16::from_be_bytes(self.take(10)) & FLAG_BROADCAST != 0,
            ciaddr: Ipv4Addr::from(self.take::<4>(12)),
            giaddr: Ipv4Addr::from(self.take::<4>(24)),
            mac,
            options,
        }
    }
}

/// A client's message that breaks the rules, as far as it can be read: it is told, and never answered.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// What it asks for, where it says so.
    pub(crate) kind: &'static str,
    /// What was read of it; the `kind` in it says nothing.
    pub(crate) request: Request,
}

impl Broken {
    /// None: it is no client's, or does not say whose.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let reader = Reader(datagram);
        let mac = reader.client().ok()?;
        let mut options = Fields::default();
        let area = datagram.get(FIXED + COOKIE.len()..).filter(|_| reader.take(FIXED) == COOKIE);
        // What stands before the fault is read.
        let whole = options.walk(area.unwrap_or_default()).is_ok() && datagram.len() > FIXED;
        let kind = match options.get(option::MESSAGE_TYPE) {
            // A server's, or one about a client (RFC 4388).
            Some([2 | 5 | 6 | 9..=18]) => return None,
            Some([byte]) => Kind::read(*byte).map_or(SOMETHING, Kind::word),
            None if whole && options.get(option::OVERLOAD).is_none() => "BOOTP",
            _ => SOMETHING,
        };
        Some(Self { kind, request: reader.request(Kind::Discover, mac, options) })
    }
}

/// The word of a message that does not say what it is.
const SOMETHING: &str = "message";

impl Request {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`BadDatagram`]: why it is ignored.
    pub fn parse(datagram: &[u8]) -> Result<Self, BadDatagram> {
        if datagram.len() <= FIXED + COOKIE.len() || datagram.len() > MAX_DATAGRAM {
            return Err(BadDatagram::Length(datagram.len()));
        }
        let reader = Reader(datagram);
        let mac = reader.client()?;
        if reader.take::<4>(FIXED) != COOKIE {
            return Err(BadDatagram::Cookie);
        }
        let room = datagram.len() - FIXED;
        let mut options = Fields { bytes: Vec::with_capacity(room), index: Vec::with_capacity(16) };
        options.walk(&datagram[FIXED + COOKIE.len()..])?;
        let overload = match options.get(option::OVERLOAD) {
            None => 0,
            Some([mode @ 1..=3]) => *mode,
            Some(other) => {
                return Err(BadDatagram::OptionLength { option: option::OVERLOAD, len: other.len() });
            }
        };
        if overload & 1 != 0 {
            options.walk(&datagram[108..236])?;
        }
        if overload & 2 != 0 {
            options.walk(&datagram[44..108])?;
        }
        check_lengths(&options)?;
        let Some([byte]) = options.get(option::MESSAGE_TYPE) else { return Err(BadDatagram::NoKind) };
        let kind = Kind::read(*byte).filter(|kind| !matches!(kind, Kind::Offer | Kind::Ack | Kind::Nak));
        let kind = kind.ok_or(BadDatagram::Kind(*byte))?;
        Ok(reader.request(kind, mac, options))
    }

    /// An option's bytes, joined.
    pub fn raw(&self, code: u8) -> Option<&[u8]> {
        self.options.get(code)
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.raw(code)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    }

    /// Option 50.
    pub fn requested_ip(&self) -> Option<Ipv4Addr> {
        self.address(option::REQUESTED_IP)
    }

    /// Option 54.
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.address(option::SERVER_ID)
    }

    /// Longest message that it takes, in octets of DHCP: what option 57 says of the whole IP datagram, less its headers. A
    /// client takes 576 whatever it says (RFC 2132 section 9.10), and more than a frame is sent to nobody.
    pub(crate) fn room(&self) -> usize {
        let told =
            self.raw(option::MOST_BYTES).and_then(|raw| Some(u16::from_be_bytes(raw.try_into().ok()?)));
        usize::from(told.unwrap_or(EVERY_CLIENT).clamp(EVERY_CLIENT, ONE_FRAME) - HEADERS)
    }

    /// A sub-option of option 82, which a relay added.
    pub fn relayed(&self, code: u8) -> Option<&[u8]> {
        sub_option(self.raw(option::RELAY)?, code).ok().flatten()
    }

    /// An address in a sub-option of option 82.
    pub(crate) fn relayed_address(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.relayed(code)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    }

    fn text(&self, code: u8) -> Option<String> {
        let show = |b: &u8| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' };
        self.raw(code).map(|raw| raw.iter().take(64).map(show).collect())
    }

    /// Option 60 as printable text, at most 64 characters.
    pub fn vendor_class(&self) -> Option<String> {
        self.text(option::VENDOR_CLASS)
    }

    /// Option 56, what the client has to say, likewise.
    pub fn message(&self) -> Option<String> {
        self.text(option::MESSAGE)
    }

    /// The user class (option 77) says iPXE, bare or with RFC 3004's length byte.
    pub fn is_ipxe(&self) -> bool {
        matches!(self.raw(option::USER_CLASS), Some(b"iPXE" | b"\x04iPXE"))
    }

    /// An iPXE that has HTTPS: it says so by a version other than 0 (feature 20 in option 175).
    pub fn has_https(&self) -> bool {
        let mut rest = self.raw(option::IPXE).unwrap_or_default();
        while let [code, len, tail @ ..] = rest {
            let Some((version, after)) = tail.split_at_checked(usize::from(*len)) else { break };
            if *code == ipxe::HTTPS {
                return self.is_ipxe() && version.iter().any(|octet| *octet != 0);
            }
            rest = after;
        }
        false
    }

    /// It is firmware or a loader that wants a boot file.
    pub fn wants_boot(&self) -> bool {
        let class = self.raw(option::VENDOR_CLASS).unwrap_or_default();
        class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient") || self.is_ipxe()
    }

    /// UEFI HTTP boot.
    pub fn is_http(&self) -> bool {
        self.raw(option::VENDOR_CLASS).is_some_and(|class| class.starts_with(b"HTTPClient"))
    }

    /// The first architecture of option 93 that we know, else its first.
    pub fn arch(&self) -> Option<Arch> {
        let raw = self.raw(option::CLIENT_ARCH)?;
        let mut codes = raw.chunks_exact(2).take(8).map(|pair| arch(u16::from_be_bytes([pair[0], pair[1]])));
        let first = codes.next()?;
        Some(std::iter::once(first).chain(codes).find(|a| !matches!(a, Arch::Other(_))).unwrap_or(first))
    }

    /// Option 97 as SMBIOS writes it (`dmidecode` shows the same): the wire carries the first three fields little-endian.
    pub fn uuid(&self) -> Option<String> {
        let raw = self.raw(option::CLIENT_UUID)?;
        let [0, u @ ..] = raw else { return None };
        let u: [u8; 16] = u.try_into().ok()?;
        let hex = |order: &[usize]| order.iter().map(|i| format!("{:02x}", u[*i])).collect::<String>();
        Some(format!(
            "{}-{}-{}-{}-{}",
            hex(&[3, 2, 1, 0]),
            hex(&[5, 4]),
            hex(&[7, 6]),
            hex(&[8, 9]),
            hex(&[10, 11, 12, 13, 14, 15])
        ))
    }
}

fn check_lengths(options: &Fields) -> Result<(), BadDatagram> {
    for (option, value) in options.each() {
        let ok = match option {
            option::REQUESTED_IP | option::SERVER_ID => value.len() == 4,
            option::MESSAGE_TYPE => value.len() == 1,
            option::CLIENT_ARCH => !value.is_empty() && value.len() % 2 == 0,
            // 17 by the RFC; some boards send nothing.
            option::CLIENT_UUID => matches!(value.len(), 0 | 17),
            option::RELAY => matches!(
                (sub_option(value, relay::LINK)?, sub_option(value, relay::SERVER)?),
                (None | Some([_, _, _, _]), None | Some([_, _, _, _]))
            ),
            _ => true,
        };
        if !ok {
            return Err(BadDatagram::OptionLength { option, len: value.len() });
        }
    }
    Ok(())
}

/// An architecture code of IANA's registry.
pub(crate) fn arch(code: u16) -> Arch {
    match code {
        0 => Arch::Bios,
        6 => Arch::UefiX86,
        // RFC 4578 wrote 7 where firmware means 9, and the other way round; all of it is x86-64.
        7 | 9 => Arch::UefiX64,
        11 => Arch::UefiArm64,
        15 => Arch::UefiX86Http,
        16 | 17 => Arch::UefiX64Http,
        19 => Arch::UefiArm64Http,
        other => Arch::Other(other),
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(crate) mod tests;
