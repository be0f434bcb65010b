//! Other DHCPv6 servers on an interface's network.
//!
//! Invariants: what it sends are a SOLICIT and an INFORMATION-REQUEST of one made-up client, once a second, by the
//! device's link-local address and not to ourselves; it takes no address. Answers go to who asked, so nothing is overheard.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::site::DhcpMode;
use nix::ifaddrs::InterfaceAddress;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::servers::{PAUSE, made_up};
use super::{DHCP6, Examination, Finding, Severity, routers};
use crate::config::ServedInterface;
use crate::dhcp6::core::ALL_AGENTS;
use crate::dhcp6::wire::{Kind, MAX_DATAGRAM, Message, Options, ask, option};
use crate::net::device_index;
use crate::overhear::MOST;

const CLIENT_PORT: u16 = 546;

/// What others do by IPv6 on a device with a link-local address: without one nothing is to be heard there.
pub(super) async fn others(
    interface: &ServedInterface,
    addresses: &[InterfaceAddress],
    how: &Examination,
) -> Vec<Finding> {
    let six = |a: &InterfaceAddress| a.address.as_ref().and_then(|a| a.as_sockaddr_in6()).map(|a| a.ip());
    let on_device = addresses.iter().filter(|a| a.interface_name == interface.device);
    let Some(link_local) = on_device.filter_map(six).find(Ipv6Addr::is_unicast_link_local) else {
        return Vec::new();
    };
    let own: BTreeSet<Ipv6Addr> = addresses.iter().filter_map(six).collect();
    let asked = async {
        if !how.ask {
            return Vec::new();
        }
        match servers(&interface.device, link_local, how.listen).await {
            Ok(mut seen) => {
                seen.retain(|server, _| !own.contains(server));
                judge(interface, &seen)
            }
            Err(error) => {
                let found = format!("cannot look for other DHCPv6 servers: {error}");
                let action = "stop the DHCPv6 client on it, and run this as root";
                vec![Finding::new("other-dhcp6", Severity::Warning, found, action).on(interface)]
            }
        }
    };
    let (mut findings, routers) = tokio::join!(asked, routers::others(interface, &own, how.ask, how.listen));
    findings.extend(routers);
    findings
}

/// What the made-up client asks.
struct Questions {
    client: Vec<u8>,
    solicit: [u8; 3],
    inform: [u8; 3],
}

impl Questions {
    fn new(mac: MacAddr, xid: [u8; 4]) -> Self {
        let [a, b, c, _] = xid;
        // DUID-LL (RFC 8415 section 11.4).
        let client = [&[0, 3, 0, 1], &mac.0[..]].concat();
        Self { client, solicit: [a, b, c], inform: [a.wrapping_add(1), b, c] }
    }

    fn datagrams(&self) -> [Vec<u8>; 2] {
        let common = || {
            let mut options = Options::default();
            options.raw(option::ELAPSED, &[0; 2]).raw(option::REQUESTED, &option::BOOT_FILE.to_be_bytes());
            options
        };
        let mut solicit = common();
        solicit.association([0, 0, 0, 1], 0, &[]);
        [
            ask(Kind::Solicit, self.solicit, &self.client, &solicit),
            ask(Kind::Inform, self.inform, &self.client, &common()),
        ]
    }

    /// A server's answer to one of them, with the address that it offers, if any.
    fn answer(&self, datagram: &[u8]) -> Option<Option<Ipv6Addr>> {
        let answer = Message::parse_answer(datagram).ok()?;
        let asked = match answer.kind {
            Kind::Advertise => self.solicit,
            _ => self.inform,
        };
        let ours = answer.xid == asked && answer.client == self.client && answer.server.is_some();
        let mut addresses = answer.associations.iter().flat_map(|one| &one.addresses);
        ours.then(|| addresses.next().copied())
    }
}

/// Servers that answer a client that does not exist, with the address that each offers.
async fn servers(
    device: &str,
    from: Ipv6Addr,
    listen: Duration,
) -> io::Result<BTreeMap<Ipv6Addr, Option<Ipv6Addr>>> {
    let index = u32::try_from(device_index(device)?).unwrap_or_default();
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    // An address that was set a moment ago is on trial, and cannot be bound otherwise.
    socket.set_freebind_v6(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_loop_v6(false)?;
    socket.bind(&SocketAddrV6::new(from, CLIENT_PORT, 0, index).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let (mac, xid) = made_up();
    let questions = Questions::new(mac, xid);
    let to = SocketAddrV6::new(ALL_AGENTS, DHCP6, 0, index);
    let end = Instant::now() + listen;
    let mut next = Instant::now();
    let mut seen = BTreeMap::new();
    let mut sent = Ok(());
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    while Instant::now() < end {
        if Instant::now() >= next {
            for datagram in questions.datagrams() {
                sent = socket.send_to(&datagram, to).await.map(drop);
            }
            next = Instant::now() + PAUSE;
        }
        let Ok(got) = timeout_at(next.min(end), socket.recv_from(&mut buffer)).await else { continue };
        let (length, SocketAddr::V6(server)) = got? else { continue };
        let Some(offered) = buffer.get(..length).and_then(|datagram| questions.answer(datagram)) else {
            continue;
        };
        let server = *server.ip();
        if seen.len() < MOST || seen.contains_key(&server) {
            let known: &mut Option<Ipv6Addr> = seen.entry(server).or_default();
            *known = offered.or(*known);
        }
    }
    if seen.is_empty() { sent.map(|()| seen) } else { Ok(seen) }
}

/// What another server means depends on who is to give the addresses, and on whether the plan has any of IPv6.
fn judge(interface: &ServedInterface, seen: &BTreeMap<Ipv6Addr, Option<Ipv6Addr>>) -> Vec<Finding> {
    let finding = |severity, found: String, action: &str| {
        Finding::new("other-dhcp6", severity, found, action).on(interface)
    };
    let serves = interface.network.mode == DhcpMode::Serve;
    let planned = interface.network.prefix6.is_some();
    let each = |(server, offered): (&Ipv6Addr, &Option<Ipv6Addr>)| {
        let how = match offered {
            Some(offered) => format!("offers {offered} to a made-up client"),
            None => "answers a made-up client".to_owned(),
        };
        match (serves, planned) {
            (true, true) => {
                let action = "switch it off on this network, or move this network to a VLAN of its own";
                finding(Severity::Fault, format!("another DHCPv6 server, {server}, {how}"), action)
            }
            (true, false) => {
                let action = "switch it off on this network, unless hosts shall have addresses there that the plan does not know";
                let found =
                    format!("a DHCPv6 server, {server}, {how}, and the plan has no IPv6 on this network");
                finding(Severity::Warning, found, action)
            }
            (false, _) => {
                finding(Severity::Good, format!("the network's DHCPv6 server, {server}, {how}"), "")
            }
        }
    };
    let mut findings: Vec<Finding> = seen.iter().map(each).collect();
    if findings.is_empty() && serves && planned {
        findings.push(finding(Severity::Good, "no other DHCPv6 server answered".to_owned(), ""));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ipv6Prefix;
    use crate::config::tests::interface;
    use crate::dhcp6::wire::encode;
    use dayzero_model::site::NetworkRole;

    const MAC: MacAddr = MacAddr([2, 0xda, 0, 0, 0, 1]);
    const THEM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
    const OFFERED: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 1, 0);
    const DUID: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 0x66];

    #[test]
    fn it_asks_for_an_address_and_for_all_else_and_reads_answers_of_its_own_alone() {
        let questions = Questions::new(MAC, [1, 2, 3, 4]);
        let [solicit, inform] = questions.datagrams().map(|datagram| Message::parse(&datagram).unwrap());
        assert_eq!((solicit.kind, inform.kind), (Kind::Solicit, Kind::Inform));
        assert_eq!((solicit.associations.len(), inform.associations.len()), (1, 0));
        assert_eq!(solicit.mac(THEM), Some(MAC));
        assert_eq!(solicit.server, None, "all servers are asked");

        let mut address = Options::default();
        address.association([0, 0, 0, 1], 3600, &[(OFFERED, 3600)]);
        let mut none = Options::default();
        none.refused([0, 0, 0, 1], 2);
        let advertise = encode(Kind::Advertise, &solicit, DUID, &address);
        assert_eq!(questions.answer(&advertise), Some(Some(OFFERED)));
        assert_eq!(questions.answer(&encode(Kind::Advertise, &solicit, DUID, &none)), Some(None));
        assert_eq!(questions.answer(&encode(Kind::Reply, &inform, DUID, &Options::default())), Some(None));
        let other = Questions::new(MacAddr([2, 0xda, 0, 0, 0, 2]), [1, 2, 3, 4]);
        for (what, asker, datagram) in [
            ("another transaction", &Questions::new(MAC, [9; 4]), advertise.clone()),
            ("another client", &other, advertise.clone()),
            ("a REPLY to the SOLICIT", &questions, encode(Kind::Reply, &solicit, DUID, &address)),
            ("no server", &questions, encode(Kind::Advertise, &solicit, &[], &address)),
            ("a client's message", &questions, encode(Kind::Request, &solicit, DUID, &address)),
        ] {
            assert_eq!(asker.answer(&datagram), None, "{what}");
        }
        for length in 0..advertise.len() {
            // Whole options are left over at the ends of them alone; the association comes last.
            assert_ne!(questions.answer(&advertise[..length]), Some(Some(OFFERED)), "{length} octets");
        }
    }

    #[test]
    fn another_server_is_a_fault_where_we_serve_ipv6() {
        let one = BTreeMap::from([(THEM, Some(OFFERED))]);
        let prefix = Some(Ipv6Prefix { address: "fd77::".parse().unwrap(), len: 64 });
        use DhcpMode::{Off, Proxy, Serve};
        use Severity::{Fault, Good, Warning};
        for (mode, prefix6, seen, want) in [
            (Serve, prefix, &one, vec![Fault]),
            (Serve, None, &one, vec![Warning]),
            (Proxy, prefix, &one, vec![Good]),
            (Off, None, &one, vec![Good]),
            (Serve, prefix, &BTreeMap::new(), vec![Good]),
            (Serve, None, &BTreeMap::new(), vec![]),
        ] {
            let mut interface = interface(NetworkRole::Management);
            (interface.network.mode, interface.network.prefix6) = (mode, prefix6);
            let findings = judge(&interface, seen);
            assert_eq!(
                findings.iter().map(|f| f.severity).collect::<Vec<_>>(),
                want,
                "{mode:?} {findings:?}"
            );
            for finding in findings {
                assert_eq!(finding.action.is_empty(), finding.severity == Good, "{finding:?}");
                let named = finding.found.contains("fe80::66, offers fd66::1:0 to a made-up client");
                assert_eq!(named, !seen.is_empty(), "{finding:?}");
            }
        }
    }
}
