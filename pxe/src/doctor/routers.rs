//! Other routers that advertise themselves on an interface's network (RFC 4861).
//!
//! Invariants: three solicitations at most, and none where nothing shall be sent; what did not come from the link is passed
//! over (hop limit 255, a link-local sender), and a message that is not whole is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use dayzero_model::site::DhcpMode;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{Instant, sleep_until};

use super::servers::PAUSE;
use super::{Finding, Severity};
use crate::config::{Ipv6Prefix, ServedInterface};
use crate::net::device_index;
use crate::overhear::{MOST, packets};
use crate::ra::{ADVERTISEMENT, ALL_ROUTERS, SOLICITATION};

/// MAX_RTR_SOLICITATIONS.
const SOLICITATIONS: usize = 3;
/// Prefixes of one advertisement that are looked at.
const MOST_PREFIXES: usize = 16;
const HOPS: u8 = 255;
const PREFIX: u8 = 3;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const AUTONOMOUS: u8 = 0x40;

/// A prefix of an advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: Ipv6Addr,
    pub(crate) len: u8,
    /// Hosts make addresses of their own in it.
    autonomous: bool,
}

impl Prefix {
    fn is(&self, planned: Ipv6Prefix) -> bool {
        self.len == planned.len && planned.covers(self.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = if self.autonomous { " (hosts make addresses of their own there, flag A)" } else { "" };
        write!(f, "{}/{}{own}", self.address, self.len)
    }
}

/// What a router says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Router {
    /// Addresses come from DHCPv6 (flag M).
    managed: bool,
    /// All else comes from DHCPv6 (flag O).
    other: bool,
    /// Seconds for which hosts route by it.
    lifetime: u16,
    pub(crate) prefixes: Vec<Prefix>,
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<String> = self.prefixes.iter().map(|p| format!("prefix {p}")).collect();
        let flags = match (self.managed, self.other) {
            (true, true) => "flags M and O",
            (true, false) => "flag M",
            (false, true) => "flag O",
            (false, false) => "neither flag M nor O",
        };
        let route = match self.lifetime {
            0 => "no default route".to_owned(),
            seconds => format!("itself as default route for {seconds} s"),
        };
        let none = || vec!["no prefix".to_owned()];
        let prefixes = if prefixes.is_empty() { none() } else { prefixes };
        write!(f, "{}, {flags}, {route}", prefixes.join(", "))
    }
}

/// The router that an IPv6 packet is the advertisement of, with what it says.
pub(crate) fn advertised(packet: &[u8]) -> Option<(Ipv6Addr, Router)> {
    const ICMPV6: u8 = 58;
    let (&[version, _, _, _, high, low, next, hops, ref addresses @ ..], rest) =
        packet.split_first_chunk::<40>()?;
    let from = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
    if version >> 4 != 6 || next != ICMPV6 || hops != HOPS || !from.is_unicast_link_local() {
        return None;
    }
    let message = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
    let (head, mut options) = message.split_first_chunk::<16>()?;
    let [ADVERTISEMENT, 0, _, _, _, flags, seconds @ ..] = head else { return None };
    let lifetime = u16::from_be_bytes(*seconds.first_chunk::<2>()?);
    let (managed, other) = (flags & MANAGED != 0, flags & OTHER != 0);
    let mut router = Router { managed, other, lifetime, prefixes: Vec::new() };
    while let [kind, units, ..] = options {
        let (option, tail) = options.split_at_checked(usize::from(*units) * 8)?;
        if *kind == PREFIX
            && let Some(prefix) = prefix(option)?
            && router.prefixes.len() < MOST_PREFIXES
        {
            router.prefixes.push(prefix);
        } else if option.is_empty() {
            return None;
        }
        options = tail;
    }
    options.is_empty().then_some((from, router))
}

/// A prefix that is not withdrawn; `None`: no such option.
fn prefix(option: &[u8]) -> Option<Option<Prefix>> {
    let option: &[u8; 32] = option.try_into().ok()?;
    let [_, _, len, flags, rest @ ..] = option;
    let valid = *rest.first_chunk::<4>()? != [0; 4];
    let address = Ipv6Addr::from(*rest.last_chunk::<16>()?);
    let prefix = Prefix { address, len: *len, autonomous: flags & AUTONOMOUS != 0 };
    (*len <= 128).then_some(Some(prefix).filter(|_| valid))
}

/// Asks, if it may, and listens; `own`: the addresses of this machine.
pub(super) async fn others(
    interface: &ServedInterface,
    own: &BTreeSet<Ipv6Addr>,
    ask: bool,
    time: Duration,
) -> Vec<Finding> {
    let device = &interface.device;
    let mut heard: BTreeMap<Ipv6Addr, Router> = BTreeMap::new();
    let each = |packet: &[u8]| {
        if let Some((from, router)) = advertised(packet)
            && !own.contains(&from)
            && (heard.len() < MOST || heard.contains_key(&from))
        {
            heard.insert(from, router);
        }
    };
    let asked = async { if ask { solicit(device, time).await } else { Ok(()) } };
    let (asked, listened) = tokio::join!(asked, packets(device, libc::ETH_P_IPV6 as u16, time, each));
    let mut findings: Vec<Finding> = [asked.err(), listened.err()]
        .into_iter()
        .flatten()
        .map(|error| {
            let found = format!("cannot look for other IPv6 routers: {error}");
            Finding::new("other-router", Severity::Warning, found, "run this as root").on(interface)
        })
        .collect();
    findings.extend(judge(interface, &heard, findings.is_empty()));
    findings
}

/// Asks all routers to advertise themselves.
async fn solicit(device: &str, time: Duration) -> io::Result<()> {
    let index = u32::try_from(device_index(device)?).unwrap_or_default();
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(HOPS.into())?;
    // Our own advertiser is not asked.
    socket.set_multicast_loop_v6(false)?;
    let to = SocketAddrV6::new(ALL_ROUTERS, 0, 0, index).into();
    let mut sent = Ok(());
    let end = Instant::now() + time;
    for _ in 0..SOLICITATIONS {
        // The kernel writes the checksum. A link-local address takes a second to become usable.
        match socket.send_to(&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &to) {
            Ok(_) => sent = Ok(()),
            Err(error) => sent = Err(error),
        }
        let next = Instant::now() + PAUSE;
        if next >= end {
            break;
        }
        sleep_until(next).await;
    }
    sent
}

/// What it means depends on who is to give the addresses, and on whether the plan has any of IPv6.
fn judge(interface: &ServedInterface, heard: &BTreeMap<Ipv6Addr, Router>, listened: bool) -> Vec<Finding> {
    let finding = |severity, found: String, action: String| {
        Finding::new("other-router", severity, found, action).on(interface)
    };
    let serves = interface.network.mode == DhcpMode::Serve;
    let planned = interface.network.prefix6;
    let each = |(from, router): (&Ipv6Addr, &Router)| {
        // As our own advertisement has it.
        let as_planned = router.lifetime == 0
            && router.prefixes.iter().all(|p| !p.autonomous && planned.is_some_and(|planned| p.is(planned)))
            && (planned.is_some() || !router.managed && !router.other);
        if !serves || as_planned {
            let found = format!("a router, {from}, advertises {router}");
            return finding(Severity::Good, found, String::new());
        }
        let action = match planned {
            Some(Ipv6Prefix { address, len }) => format!(
                "switch its advertisements off on this network; if it is to be the network's IPv6 router, let it advertise \
                 {address}/{len} with flag M and without flag A, or hosts get addresses that the plan does not know"
            ),
            None => "switch its advertisements off on this network, unless hosts shall have addresses and routes there that \
                     the plan does not know"
                .to_owned(),
        };
        finding(Severity::Warning, format!("another router, {from}, advertises {router}"), action)
    };
    let mut findings: Vec<Finding> = heard.iter().map(each).collect();
    if findings.is_empty() && listened && serves && planned.is_some() {
        findings.push(finding(Severity::Good, "no other router advertises itself".to_owned(), String::new()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::interface;
    use dayzero_model::site::NetworkRole;
    use proptest::prelude::*;

    const THEM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
    const PLANNED: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);
    const FOREIGN: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0);

    fn prefix(len: u8, flags: u8, valid: u32, address: Ipv6Addr) -> Vec<u8> {
        let valid = valid.to_be_bytes();
        [&[3, 4, len, flags], &valid[..], &valid, &[0; 4], &address.octets()].concat()
    }

    fn packet(flags: u8, lifetime: u16, options: &[u8]) -> Vec<u8> {
        let message = [&[134, 0, 0, 0, 64, flags], &lifetime.to_be_bytes()[..], &[0; 8], options].concat();
        let length = (message.len() as u16).to_be_bytes();
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let head = [&[0x60, 0, 0, 0], &length[..], &[58, 255], &THEM.octets(), &all_nodes.octets()];
        // An Ethernet frame may be longer than its packet.
        [&head.concat()[..], &message, b"padding"].concat()
    }

    #[test]
    fn what_a_router_says_is_read_and_shown() {
        let options = [
            &[1, 1, 2, 0, 0, 0, 0, 9][..],
            &prefix(64, 0xc0, 3600, FOREIGN),
            &prefix(64, 0x80, 3600, PLANNED),
            &prefix(48, 0xc0, 0, THEM),
        ];
        let (from, router) = advertised(&packet(0xc0, 1800, &options.concat())).unwrap();
        assert_eq!(from, THEM);
        let want = "prefix fd66::/64 (hosts make addresses of their own there, flag A), prefix fd77::/64, flags M and O, \
                    itself as default route for 1800 s";
        assert_eq!(router.to_string(), want, "the withdrawn prefix is none");
        let (_, nothing) = advertised(&packet(0, 0, &[])).unwrap();
        assert_eq!(nothing.to_string(), "no prefix, neither flag M nor O, no default route");
        let many = advertised(&packet(0, 0, &prefix(64, 0, 1, PLANNED).repeat(40))).unwrap().1;
        assert_eq!(many.prefixes.len(), MOST_PREFIXES);
    }

    #[test]
    fn what_is_no_advertisement_of_this_link_is_passed_over() {
        let good = packet(0x80, 0, &prefix(64, 0x80, 3600, PLANNED));
        assert!(advertised(&good).is_some());
        for (what, at, value) in [
            ("IPv4", 0, 0x45),
            ("UDP", 6, 17),
            ("it came through a router", 7, 254),
            ("a sender beyond the link", 8, 0x20),
            ("a solicitation", 40, 133),
            ("a code", 41, 1),
            ("an option without length", 57, 0),
            ("a prefix option that is too short", 57, 3),
            ("an option that is longer than the rest", 57, 5),
            ("a prefix of 129 bits", 58, 129),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(advertised(&bad), None, "{what}");
        }
        for length in 0..good.len() - b"padding".len() {
            assert_eq!(advertised(&good[..length]), None, "{length} octets");
        }
    }

    proptest! {
        #[test]
        fn any_options_are_survived(options in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some((_, router)) = advertised(&packet(0, 0, &options)) {
                prop_assert!(router.prefixes.iter().all(|p| p.len <= 128));
            }
        }
    }

    #[test]
    fn another_router_is_what_the_plan_makes_of_it() {
        let own = prefix(64, 0x80, 3600, PLANNED);
        let autonomous = prefix(64, 0xc0, 3600, PLANNED);
        let foreign = prefix(64, 0x80, 3600, FOREIGN);
        use DhcpMode::{Proxy, Serve};
        use Severity::{Good, Warning};
        let planned = Some(Ipv6Prefix { address: PLANNED, len: 64 });
        let none: &[u8] = &[];
        for (what, mode, prefix6, packet, want) in [
            ("as ours", Serve, planned, packet(0xc0, 0, &own), Good),
            ("addresses of one's own", Serve, planned, packet(0xc0, 0, &autonomous), Warning),
            ("another prefix", Serve, planned, packet(0xc0, 0, &foreign), Warning),
            ("a default route", Serve, planned, packet(0xc0, 1800, &own), Warning),
            ("nothing", Serve, None, packet(0, 0, none), Good),
            ("an unplanned prefix", Serve, None, packet(0, 0, &foreign), Warning),
            ("unplanned DHCPv6", Serve, None, packet(0x80, 0, none), Warning),
            ("somebody else's network", Proxy, planned, packet(0xc0, 1800, &foreign), Good),
        ] {
            let mut interface = interface(NetworkRole::Management);
            (interface.network.mode, interface.network.prefix6) = (mode, prefix6);
            let [finding] = &judge(&interface, &advertised(&packet).into_iter().collect(), true)[..] else {
                panic!("{what}")
            };
            assert_eq!(finding.severity, want, "{what}: {finding:?}");
            assert!(finding.found.contains("fe80::66") && finding.check == "other-router", "{finding:?}");
            assert_eq!(finding.action.is_empty(), want == Good, "{finding:?}");
        }
        let mut interface = interface(NetworkRole::Management);
        assert_eq!(judge(&interface, &BTreeMap::new(), true), [], "nothing of IPv6 is planned");
        interface.network.prefix6 = planned;
        assert_eq!(judge(&interface, &BTreeMap::new(), false), [], "nobody listened");
        assert_eq!(judge(&interface, &BTreeMap::new(), true)[0].severity, Good);
    }
}
