//! DHCPv6 messages, read strictly (RFC 8415, 3646, 4649, 5970, 6939).
//!
//! Invariants: one bounded walk a layer, at most [`MOST_RELAYS`] layers; every option keeps within its message; a known
//! option of a length that it cannot have refuses the message; what is kept is no longer than the datagram.

use std::net::Ipv6Addr;

use dayzero_model::MacAddr;
use dayzero_model::boot::Arch;

use crate::dhcp::wire::arch;
use crate::director::RelayPort;

/// Longest datagram that is looked at.
pub(crate) const MAX_DATAGRAM: usize = 4096;
/// Relays that a message may have come through (HOP_COUNT_LIMIT).
const MOST_RELAYS: usize = 8;
/// Addresses and associations of one message that are looked at.
const MOST_ITEMS: usize = 16;
/// RFC 8415 section 11.1.
const LONGEST_DUID: usize = 130;
/// A circuit id or remote id, of which a plan has no longer ones.
const LONGEST_ID: usize = 255;
/// RFC 1035 section 2.3.4.
const LONGEST_NAME: usize = 255;

/// Option numbers.
pub(crate) mod option {
    pub(crate) const CLIENT_ID: u16 = 1;
    pub(crate) const SERVER_ID: u16 = 2;
    pub(crate) const IA_NA: u16 = 3;
    pub(crate) const ADDRESS: u16 = 5;
    pub(crate) const REQUESTED: u16 = 6;
    pub(crate) const ELAPSED: u16 = 8;
    pub(crate) const RELAYED: u16 = 9;
    pub(crate) const STATUS: u16 = 13;
    pub(crate) const RAPID_COMMIT: u16 = 14;
    pub(crate) const USER_CLASS: u16 = 15;
    pub(crate) const VENDOR_CLASS: u16 = 16;
    pub(crate) const INTERFACE_ID: u16 = 18;
    pub(crate) const NAME_SERVERS: u16 = 23;
    pub(crate) const DOMAINS: u16 = 24;
    pub(crate) const REMOTE_ID: u16 = 37;
    pub(crate) const BOOT_FILE: u16 = 59;
    pub(crate) const CLIENT_ARCH: u16 = 61;
    pub(crate) const LINK_LAYER: u16 = 79;
}

/// Status codes.
pub(crate) mod status {
    pub(crate) const SUCCESS: u16 = 0;
    pub(crate) const NOT_ON_LINK: u16 = 4;
}

/// Message types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Solicit,
    Advertise,
    Request,
    Confirm,
    Renew,
    Rebind,
    Reply,
    Release,
    Decline,
    Inform,
}

const KINDS: [(Kind, u8, &str); 10] = [
    (Kind::Solicit, 1, "SOLICIT"),
    (Kind::Advertise, 2, "ADVERTISE"),
    (Kind::Request, 3, "REQUEST6"),
    (Kind::Confirm, 4, "CONFIRM"),
    (Kind::Renew, 5, "RENEW"),
    (Kind::Rebind, 6, "REBIND"),
    (Kind::Reply, 7, "REPLY"),
    (Kind::Release, 8, "RELEASE6"),
    (Kind::Decline, 9, "DECLINE6"),
    (Kind::Inform, 11, "INFORMATION-REQUEST"),
];
const RELAY_FORWARD: u8 = 12;
const RELAY_REPLY: u8 = 13;

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("?", |(.., word)| word)
    }

    fn wire(self) -> u8 {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, wire, _)| *wire)
    }
}

/// Why a datagram is no message that can be answered, or no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("{0} bytes: a DHCPv6 message has 4 to {MAX_DATAGRAM}")]
    Length(usize),
    #[error("message type {0} is none that a client may send")]
    Kind(u8),
    #[error("option {0} is longer than what is left of the message")]
    Truncated(u16),
    #[error("option {option} has {len} bytes")]
    OptionLength { option: u16, len: usize },
    #[error("more than {MOST_RELAYS} relays, or addresses without end")]
    TooMuch,
    #[error("no client identifier")]
    NoClient,
}

/// A relay's layer around a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    hops: u8,
    pub(crate) link: Ipv6Addr,
    pub(crate) peer: Ipv6Addr,
    interface: Option<Vec<u8>>,
    /// The relay's own name, without the number of the enterprise that made it.
    remote: Option<Vec<u8>>,
}

impl Relayed {
    /// The port that it got the message by: its circuit id, and the relay's remote id, as DHCPv4's option 82 has them. Ids that
    /// option 82 could not have are none.
    pub(crate) fn port(&self) -> Option<RelayPort> {
        let fits = |id: &&Vec<u8>| (1..=LONGEST_ID).contains(&id.len());
        let id = self.interface.as_ref().filter(fits)?.clone();
        Some(RelayPort { id, remote: self.remote.as_ref().filter(fits).cloned() })
    }
}

/// An association of a client's interface with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Association {
    pub(crate) id: [u8; 4],
    pub(crate) addresses: Vec<Ipv6Addr>,
}

/// A client's message, or a server's answer to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) xid: [u8; 3],
    /// Outermost first.
    pub(crate) relays: Vec<Relayed>,
    pub(crate) client: Vec<u8>,
    pub(crate) server: Option<Vec<u8>>,
    pub(crate) associations: Vec<Association>,
    /// The options that it asks for.
    pub(crate) requested: Vec<u16>,
    pub(crate) rapid: bool,
    pub(crate) ipxe: bool,
    /// Vendor class text: `PXEClient:Arch:…`, `HTTPClient:Arch:…`.
    pub(crate) vendor_class: Option<String>,
    pub(crate) arch: Option<Arch>,
    /// What the relay saw (RFC 6939), or the DUID says.
    link_layer: Option<MacAddr>,
}

/// Calls `each` for every option of an area.
fn walk<'a>(
    mut rest: &'a [u8],
    mut each: impl FnMut(u16, &'a [u8]) -> Result<(), BadMessage>,
) -> Result<(), BadMessage> {
    while !rest.is_empty() {
        let Some((head, tail)) = rest.split_at_checked(4) else {
            return Err(BadMessage::Truncated(rest.first().copied().map_or(0, u16::from)));
        };
        let code = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, tail) = tail.split_at_checked(len).ok_or(BadMessage::Truncated(code))?;
        each(code, value)?;
        rest = tail;
    }
    Ok(())
}

fn sized<const N: usize>(option: u16, value: &[u8]) -> Result<[u8; N], BadMessage> {
    value.try_into().map_err(|_| BadMessage::OptionLength { option, len: value.len() })
}

fn duid(option: u16, value: &[u8]) -> Result<Vec<u8>, BadMessage> {
    if (3..=LONGEST_DUID).contains(&value.len()) {
        Ok(value.to_vec())
    } else {
        Err(BadMessage::OptionLength { option, len: value.len() })
    }
}

/// Texts with a length of two octets before each.
fn texts(option: u16, mut rest: &[u8]) -> Result<Vec<&[u8]>, BadMessage> {
    let bad = BadMessage::OptionLength { option, len: rest.len() };
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(2).ok_or_else(|| bad.clone())?;
        let len = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let (text, tail) = tail.split_at_checked(len).ok_or_else(|| bad.clone())?;
        if out.len() < MOST_ITEMS {
            out.push(text);
        }
        rest = tail;
    }
    Ok(out)
}

fn unicast(mac: &[u8]) -> Option<MacAddr> {
    let mac: [u8; 6] = mac.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(MacAddr(mac))
}

impl Message {
    /// Reads a datagram.
    pub(crate) fn parse(datagram: &[u8]) -> Result<Self, BadMessage> {
        if datagram.len() < 4 || datagram.len() > MAX_DATAGRAM {
            return Err(BadMessage::Length(datagram.len()));
        }
        Self::whole(Self::begin(datagram)?)
    }

    /// Reads what a server answers to a client that no relay stands before.
    pub(crate) fn parse_answer(datagram: &[u8]) -> Result<Self, BadMessage> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(BadMessage::Length(datagram.len()));
        }
        Self::whole(Self::head(datagram, Vec::new(), None, true)?)
    }

    fn whole((mut out, options): (Self, &[u8])) -> Result<Self, BadMessage> {
        walk(options, |code, value| out.option(code, value))?;
        if out.client.is_empty() && out.kind != Kind::Inform {
            return Err(BadMessage::NoClient);
        }
        Ok(out)
    }

    /// A client's message that breaks the rules, with all options that keep to them: it is told, and never answered. None: it
    /// is no client's.
    pub(crate) fn broken(datagram: &[u8]) -> Option<Self> {
        let (mut out, options) = Self::begin(datagram).ok()?;
        // It ends where its options do.
        let _ = walk(options, |code, value| {
            let _ = out.option(code, value);
            Ok(())
        });
        Some(out)
    }

    /// The layers of its relays and its own head, and the options that follow.
    fn begin(datagram: &[u8]) -> Result<(Self, &[u8]), BadMessage> {
        let (mut relays, mut link_layer, mut rest) = (Vec::new(), None, datagram);
        while rest.first() == Some(&RELAY_FORWARD) {
            if relays.len() >= MOST_RELAYS {
                return Err(BadMessage::TooMuch);
            }
            let (head, options) = rest.split_at_checked(34).ok_or(BadMessage::Length(rest.len()))?;
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&head[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            let (link, peer) = (address(2), address(18));
            let mut layer = Relayed { hops: head[1], link, peer, interface: None, remote: None };
            let mut inner = None;
            walk(options, |code, value| {
                match code {
                    option::RELAYED => inner = Some(value),
                    option::INTERFACE_ID => layer.interface = Some(value.to_vec()),
                    option::REMOTE_ID => {
                        // RFC 4649: four octets of the enterprise's number, then the id.
                        let (_, id) = value
                            .split_at_checked(4)
                            .ok_or(BadMessage::OptionLength { option: code, len: value.len() })?;
                        layer.remote = Some(id.to_vec());
                    }
                    option::LINK_LAYER => {
                        let (kind, mac) = value
                            .split_at_checked(2)
                            .ok_or(BadMessage::OptionLength { option: code, len: value.len() })?;
                        if kind == [0, 1] {
                            link_layer = unicast(mac);
                        }
                    }
                    _ => {}
                }
                Ok(())
            })?;
            relays.push(layer);
            rest = inner.filter(|inner| inner.len() >= 4).ok_or(BadMessage::Kind(RELAY_FORWARD))?;
        }
        Self::head(rest, relays, link_layer, false)
    }

    /// Its own head, of a client's message or of an answer, and the options that follow.
    fn head(
        message: &[u8],
        relays: Vec<Relayed>,
        link_layer: Option<MacAddr>,
        answer: bool,
    ) -> Result<(Self, &[u8]), BadMessage> {
        let Some(([kind, xid @ ..], options)) = message.split_first_chunk::<4>() else {
            return Err(BadMessage::Length(message.len()));
        };
        let known = KINDS.iter().find(|(_, wire, _)| wire == kind).map(|(kind, ..)| *kind);
        let known = known.filter(|kind| matches!(kind, Kind::Advertise | Kind::Reply) == answer);
        let out = Self {
            kind: known.ok_or(BadMessage::Kind(*kind))?,
            xid: *xid,
            relays,
            client: Vec::new(),
            server: None,
            associations: Vec::new(),
            requested: Vec::new(),
            rapid: false,
            ipxe: false,
            vendor_class: None,
            arch: None,
            link_layer,
        };
        Ok((out, options))
    }

    fn option(&mut self, code: u16, value: &[u8]) -> Result<(), BadMessage> {
        match code {
            option::CLIENT_ID => self.client = duid(code, value)?,
            option::SERVER_ID => self.server = Some(duid(code, value)?),
            option::RAPID_COMMIT => self.rapid = sized::<0>(code, value).map(|_| true)?,
            option::IA_NA => {
                let (head, options) = value
                    .split_at_checked(12)
                    .ok_or(BadMessage::OptionLength { option: code, len: value.len() })?;
                let mut addresses = Vec::new();
                walk(options, |inner, value| {
                    if inner == option::ADDRESS {
                        let octets = value.first_chunk::<16>().filter(|_| value.len() >= 24);
                        let octets =
                            octets.ok_or(BadMessage::OptionLength { option: inner, len: value.len() })?;
                        if addresses.len() >= MOST_ITEMS {
                            return Err(BadMessage::TooMuch);
                        }
                        addresses.push(Ipv6Addr::from(*octets));
                    }
                    Ok(())
                })?;
                if self.associations.len() >= MOST_ITEMS {
                    return Err(BadMessage::TooMuch);
                }
                self.associations.push(Association { id: [head[0], head[1], head[2], head[3]], addresses });
            }
            option::REQUESTED => {
                if !value.len().is_multiple_of(2) {
                    return Err(BadMessage::OptionLength { option: code, len: value.len() });
                }
                self.requested = value.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]])).collect();
            }
            option::USER_CLASS => self.ipxe = texts(code, value)?.contains(&&b"iPXE"[..]),
            option::VENDOR_CLASS => {
                let (_, classes) = value
                    .split_at_checked(4)
                    .ok_or(BadMessage::OptionLength { option: code, len: value.len() })?;
                let show = |b: &u8| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' };
                let class =
                    texts(code, classes)?.first().map(|text| text.iter().take(64).map(show).collect());
                self.vendor_class = class.or(self.vendor_class.take());
            }
            option::CLIENT_ARCH => {
                if value.is_empty() || !value.len().is_multiple_of(2) {
                    return Err(BadMessage::OptionLength { option: code, len: value.len() });
                }
                let all = value.chunks_exact(2).take(8).map(|p| arch(u16::from_be_bytes([p[0], p[1]])));
                let all: Vec<Arch> = all.collect();
                self.arch = all.iter().find(|a| !matches!(a, Arch::Other(_))).or(all.first()).copied();
            }
            _ => {}
        }
        Ok(())
    }

    /// It wants a boot file.
    pub(crate) fn wants_boot(&self) -> bool {
        let class = self.vendor_class.as_deref().unwrap_or_default();
        self.ipxe || class.starts_with("PXEClient") || class.starts_with("HTTPClient")
    }

    /// It is UEFI HTTP boot.
    pub(crate) fn is_http(&self) -> bool {
        self.vendor_class.as_deref().is_some_and(|class| class.starts_with("HTTPClient"))
    }

    /// The client's own address: the innermost relay's peer, else who sent the datagram.
    pub(crate) fn peer(&self, from: Ipv6Addr) -> Ipv6Addr {
        self.relays.last().map_or(from, |layer| layer.peer)
    }

    /// The port that it came by, as the relay nearest to it says that surely is one: of whom a relay got the message from its
    /// link (the peer is a link-local address), that may be a switch that adds what it knows (RFC 6221), or the client that
    /// wrote such a layer itself.
    pub(crate) fn port(&self) -> Option<RelayPort> {
        let nearest = self.relays.iter().find(|layer| layer.peer.is_unicast_link_local());
        nearest.or(self.relays.last()).and_then(Relayed::port)
    }

    /// Its MAC: what its relay saw, what its DUID is made of, what its link-local address is made of.
    pub(crate) fn mac(&self, from: Ipv6Addr) -> Option<MacAddr> {
        self.link_layer.or_else(|| made_of(&self.client)).or_else(|| eui64(self.peer(from)))
    }
}

/// The MAC that a DUID is made of (RFC 8415 sections 11.2 and 11.4).
pub(crate) fn made_of(duid: &[u8]) -> Option<MacAddr> {
    match duid {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => unicast(mac),
        _ => None,
    }
}

/// The MAC of which a link-local address is made (RFC 4291 appendix A).
pub(crate) fn eui64(address: Ipv6Addr) -> Option<MacAddr> {
    let o = address.octets();
    let made = address.is_unicast_link_local() && o[11..13] == [0xff, 0xfe];
    made.then(|| [o[8] ^ 2, o[9], o[10], o[13], o[14], o[15]]).and_then(|mac| unicast(&mac))
}

/// Options of an answer.
#[derive(Debug, Default)]
pub(crate) struct Options(Vec<u8>);

impl Options {
    pub(crate) fn raw(&mut self, code: u16, value: &[u8]) -> &mut Self {
        // Nothing that we write comes near 64 KiB.
        let value = &value[..value.len().min(4096)];
        self.0.extend_from_slice(&code.to_be_bytes());
        self.0.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn status(&mut self, code: u16, text: &str) -> &mut Self {
        let mut value = code.to_be_bytes().to_vec();
        value.extend_from_slice(text.as_bytes());
        self.raw(option::STATUS, &value)
    }

    /// One domain to search (RFC 3646, in the form of RFC 8415 section 10); nothing, where the text is no domain name.
    pub(crate) fn domain(&mut self, domain: &str) -> &mut Self {
        let mut name = Vec::with_capacity(domain.len() + 2);
        for label in domain.strip_suffix('.').unwrap_or(domain).split('.') {
            let Some(length) = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))
            else {
                return self;
            };
            name.push(length);
            name.extend_from_slice(label.as_bytes());
        }
        name.push(0);
        if name.len() > LONGEST_NAME {
            return self;
        }
        self.raw(option::DOMAINS, &name)
    }

    /// An association that gets nothing, and why.
    pub(crate) fn refused(&mut self, id: [u8; 4], code: u16) -> &mut Self {
        let mut value = id.to_vec();
        value.extend_from_slice(&[0; 8]);
        let mut inner = Options::default();
        inner.status(code, "");
        value.extend_from_slice(&inner.0);
        self.raw(option::IA_NA, &value)
    }

    /// An association with addresses and their lifetimes in seconds.
    pub(crate) fn association(
        &mut self,
        id: [u8; 4],
        valid: u32,
        addresses: &[(Ipv6Addr, u32)],
    ) -> &mut Self {
        let mut value = id.to_vec();
        value.extend_from_slice(&(valid / 2).to_be_bytes());
        value.extend_from_slice(&(valid / 5 * 4).to_be_bytes());
        let mut inner = Options::default();
        for (address, seconds) in addresses {
            let mut one = address.octets().to_vec();
            one.extend_from_slice(&seconds.to_be_bytes());
            one.extend_from_slice(&seconds.to_be_bytes());
            inner.raw(option::ADDRESS, &one);
        }
        value.extend_from_slice(&inner.0);
        self.raw(option::IA_NA, &value)
    }
}

/// A client's message to all servers.
pub(crate) fn ask(kind: Kind, xid: [u8; 3], client: &[u8], options: &Options) -> Vec<u8> {
    let mut head = Options::default();
    head.raw(option::CLIENT_ID, client);
    [&[kind.wire()], &xid[..], &head.0, &options.0].concat()
}

/// The answer's bytes, in the layers of the relays that it goes back through.
pub(crate) fn encode(kind: Kind, to: &Message, server: &[u8], options: &Options) -> Vec<u8> {
    let mut head = Options::default();
    if !to.client.is_empty() {
        head.raw(option::CLIENT_ID, &to.client);
    }
    head.raw(option::SERVER_ID, server);
    let mut out = vec![kind.wire()];
    out.extend_from_slice(&to.xid);
    out.extend_from_slice(&head.0);
    out.extend_from_slice(&options.0);
    for layer in to.relays.iter().rev() {
        let mut around = vec![RELAY_REPLY, layer.hops];
        around.extend_from_slice(&layer.link.octets());
        around.extend_from_slice(&layer.peer.octets());
        let mut inner = Options::default();
        if let Some(interface) = &layer.interface {
            inner.raw(option::INTERFACE_ID, interface);
        }
        inner.raw(option::RELAYED, &out);
        around.extend_from_slice(&inner.0);
        out = around;
    }
    out
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(crate) mod tests;
