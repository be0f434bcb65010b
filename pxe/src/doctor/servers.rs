//! Other DHCP servers on an interface's network: those that give addresses, and those that say what to boot (proxyDHCP).
//!
//! Invariants: what it sends are DISCOVERs of one made-up client, once a second, plain and as firmware sends them, since
//! some servers answer firmware alone; they leave by a packet socket, as a client's do that has no address, so that our
//! own services do not hear of a machine that is none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dayzero_model::MacAddr;
use dayzero_model::site::DhcpMode;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::{Examination, Finding, Severity, bound};
use crate::config::{PxeConfig, ServedInterface};
use crate::dhcp::wire::{COOKIE, FIXED, option};
use crate::net::DirectSender;
use crate::overhear::{Gives, MOST, Naming, overhear};

const CLIENT_PORT: u16 = 68;
const EVERYBODY: MacAddr = MacAddr([0xff; 6]);
/// Client network interface identifier (RFC 4578 section 2.2).
const UNDI: u8 = 94;
const REQUESTED: u8 = 55;
/// Between two askings.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
const ELSEWHERE: &str = "switch it off on this network, move this network to a VLAN of its own, or write `dhcp: proxy` in the plan";
const NO_PXE: &str = "switch its PXE service off on this network (dnsmasq: `dhcp-range=…,proxy` and `pxe-service`; WDS: its PXE response), \
                      or move this network to a VLAN of its own; `dhcp: proxy` in the plan does not help, since it gives no addresses";

/// How a kind of firmware asks.
struct Firmware {
    name: &'static str,
    class: &'static [u8],
    arch: [u8; 2],
    undi: [u8; 3],
}

/// Who asks.
const CLIENTS: [Option<Firmware>; 4] = [
    None,
    Some(Firmware {
        name: "PXE by BIOS",
        class: b"PXEClient:Arch:00000:UNDI:002001",
        arch: [0, 0],
        undi: [1, 2, 1],
    }),
    Some(Firmware {
        name: "PXE by UEFI",
        class: b"PXEClient:Arch:00007:UNDI:003016",
        arch: [0, 7],
        undi: [1, 3, 16],
    }),
    Some(Firmware {
        name: "HTTP boot",
        class: b"HTTPClient:Arch:00016:UNDI:003001",
        arch: [0, 16],
        undi: [1, 3, 1],
    }),
];

/// Servers, with what tells of each.
type Seen = BTreeMap<(Ipv4Addr, Gives), String>;

/// Asks, if it may, and listens.
pub(super) async fn others(
    config: &PxeConfig,
    interface: &ServedInterface,
    how: &Examination,
) -> Vec<Finding> {
    let asked =
        async { if how.ask { servers(config, interface, how.listen).await } else { Ok(Seen::new()) } };
    let (asked, heard) = tokio::join!(asked, overhear(&interface.device, how.listen));
    let mut findings = Vec::new();
    for error in [asked.as_ref().err(), heard.as_ref().err()].into_iter().flatten() {
        let found = format!("cannot look for other DHCP servers: {error}");
        let action = "stop the DHCP client on it, and run this as root";
        findings.push(Finding::new("other-dhcp", Severity::Warning, found, action).on(interface));
    }
    let mut seen: Seen =
        heard.unwrap_or_default().into_iter().map(|(who, how)| (who, how.to_owned())).collect();
    seen.extend(asked.unwrap_or_default());
    seen.retain(|(server, _), _| *server != interface.address);
    findings.extend(judge(interface, &seen, how.ask && findings.is_empty()));
    findings
}

/// What other servers mean depends on who is to give the addresses, and on whether hosts boot here.
fn judge(interface: &ServedInterface, seen: &Seen, asked: bool) -> Vec<Finding> {
    let of = |gives| {
        seen.iter().filter(move |((_, one), _)| *one == gives).map(|((server, _), how)| (server, how))
    };
    let mut findings: Vec<Finding> =
        of(Gives::Addresses).map(|(server, how)| addresses(interface, *server, how)).collect();
    if findings.is_empty() {
        findings.push(nobody(interface, asked));
    }
    findings.extend(of(Gives::Boot).map(|(server, how)| proxy(interface, *server, how)));
    findings
}

/// No server that gives addresses.
fn nobody(interface: &ServedInterface, asked: bool) -> Finding {
    let (severity, found, action) = match (interface.network.mode == DhcpMode::Serve, asked) {
        (_, false) => (Severity::Good, "no other DHCP server was heard of", ""),
        (true, true) => (Severity::Good, "no other DHCP server answered", ""),
        (false, true) => (
            Severity::Fault,
            "no DHCP server answers, and the plan leaves this network's addresses to another one",
            "start it, or write `dhcp: serve` in the plan",
        ),
    };
    Finding::new("other-dhcp", severity, found, action).on(interface)
}

fn addresses(interface: &ServedInterface, server: Ipv4Addr, how: &str) -> Finding {
    let (severity, found, action) = if interface.network.mode == DhcpMode::Serve {
        (Severity::Fault, format!("another DHCP server, {server}, {how}"), ELSEWHERE)
    } else {
        (Severity::Good, format!("the network's DHCP server, {server}, {how}"), "")
    };
    Finding::new("other-dhcp", severity, found, action).on(interface)
}

/// A proxyDHCP server: firmware that hears it beside us takes whichever it prefers.
fn proxy(interface: &ServedInterface, server: Ipv4Addr, how: &str) -> Finding {
    let found = format!("a proxyDHCP server, {server}, {how}");
    let (severity, rest, action) = match (interface.boots(), interface.network.mode) {
        (true, DhcpMode::Serve | DhcpMode::Proxy) => {
            (Severity::Fault, "hosts may boot that instead of what we tell them", NO_PXE)
        }
        (true, DhcpMode::Off) => (Severity::Warning, "hosts that boot from the network boot that", NO_PXE),
        (false, _) => (Severity::Good, "the plan boots nothing on this network", ""),
    };
    Finding::new("other-proxy-dhcp", severity, format!("{found}: {rest}"), action).on(interface)
}

/// Servers that answer a DISCOVER of a client that does not exist.
async fn servers(config: &PxeConfig, interface: &ServedInterface, listen: Duration) -> io::Result<Seen> {
    let socket =
        UdpSocket::from_std(bound(interface, Ipv4Addr::UNSPECIFIED.into(), CLIENT_PORT, true)?.into())?;
    let sender = DirectSender::new(&interface.device)?;
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, config.ports.dhcp);
    let (mac, [first, xid @ ..]) = made_up();
    let xids: Vec<[u8; 4]> =
        (0..CLIENTS.len()).map(|n| [first.wrapping_add(n as u8), xid[0], xid[1], xid[2]]).collect();
    let end = Instant::now() + listen;
    let mut next = Instant::now();
    let (mut offers, mut boots) = (BTreeMap::new(), BTreeMap::<Ipv4Addr, BTreeSet<&str>>::new());
    let mut buffer = vec![0; 2048];
    while Instant::now() < end {
        if Instant::now() >= next {
            for (xid, client) in xids.iter().zip(&CLIENTS) {
                sender.send(EVERYBODY, from, to, &discover(*xid, mac, client.as_ref()))?;
            }
            next = Instant::now() + PAUSE;
        }
        let Ok(got) = timeout_at(next.min(end), socket.recv(&mut buffer)).await else { continue };
        let Some(answer) = buffer.get(..got?).and_then(Naming::parse) else { continue };
        let asker = xids.iter().position(|xid| *xid == answer.xid).and_then(|at| CLIENTS.get(at));
        let (Some(asker), Some(gives)) = (asker, answer.offers()) else { continue };
        if offers.len() + boots.len() >= MOST {
            continue;
        }
        match gives {
            Gives::Addresses => drop(offers.insert(answer.server, answer.address)),
            Gives::Boot => {
                let name = asker.as_ref().map_or("anybody", |firmware| firmware.name);
                boots.entry(answer.server).or_default().insert(name);
            }
        }
    }
    let offers = offers.into_iter().map(|(server, offered)| {
        ((server, Gives::Addresses), format!("offers {offered} to a made-up client"))
    });
    let boots = boots.into_iter().map(|(server, names)| {
        let names: Vec<&str> = names.into_iter().collect();
        ((server, Gives::Boot), format!("tells a made-up client what to boot ({})", names.join(", ")))
    });
    Ok(offers.chain(boots).collect())
}

/// A client that does not exist, and where its transactions begin.
pub(super) fn made_up() -> (MacAddr, [u8; 4]) {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let [.., a, b, c, d] = (nanos as u64 ^ u64::from(std::process::id()) << 20).to_be_bytes();
    (MacAddr([0x02, 0xda, a, b, c, d]), [d, c, b, a])
}

/// A DISCOVER of a plain client, or of firmware: with what RFC 4578 wants of it.
fn discover(xid: [u8; 4], mac: MacAddr, firmware: Option<&Firmware>) -> Vec<u8> {
    let mut out = vec![0; FIXED];
    out[..3].copy_from_slice(&[1, 1, 6]);
    out[4..8].copy_from_slice(&xid);
    // Answers by broadcast.
    out[10] = 0x80;
    out[28..34].copy_from_slice(&mac.0);
    out.extend_from_slice(&COOKIE);
    let mut add = |code: u8, value: &[u8]| {
        out.extend_from_slice(&[code, value.len() as u8]);
        out.extend_from_slice(value);
    };
    add(option::MESSAGE_TYPE, &[1]);
    match firmware {
        None => add(REQUESTED, &[option::SUBNET_MASK, option::ROUTER, option::SERVER_ID]),
        Some(firmware) => {
            let asked = [1, 2, 3, 6, 12, 13, 15, 17, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97, 128, 129, 130];
            add(option::MOST_BYTES, &1472_u16.to_be_bytes());
            add(REQUESTED, &asked);
            add(option::CLIENT_UUID, &[&[0; 11], &mac.0[..]].concat());
            add(UNDI, &firmware.undi);
            add(option::CLIENT_ARCH, &firmware.arch);
            add(option::VENDOR_CLASS, firmware.class);
        }
    }
    out.push(255);
    out.resize(out.len().max(300), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::interface;
    use crate::dhcp::reply::{Options, Reply};
    use crate::dhcp::wire::{Kind, Request};
    use dayzero_model::boot::Arch;
    use dayzero_model::site::NetworkRole;

    const MAC: MacAddr = MacAddr([2, 0xda, 0, 0, 0, 1]);
    const THEM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);

    #[test]
    fn it_asks_as_each_kind_of_client_does() {
        let asked: Vec<Request> = CLIENTS
            .iter()
            .map(|client| Request::parse(&discover([1, 2, 3, 4], MAC, client.as_ref())).unwrap())
            .collect();
        for asked in &asked {
            assert_eq!((asked.kind, asked.broadcast, asked.mac), (Kind::Discover, true, MAC));
        }
        let kinds: Vec<_> = asked.iter().map(|a| (a.wants_boot(), a.is_http(), a.arch())).collect();
        let want = [
            (false, false, None),
            (true, false, Some(Arch::Bios)),
            (true, false, Some(Arch::UefiX64)),
            (true, true, Some(Arch::UefiX64Http)),
        ];
        assert_eq!(kinds, want);
        for firmware in &asked[1..] {
            assert_eq!(firmware.uuid().unwrap(), "00000000-0000-0000-0000-02da00000001");
            assert_eq!(firmware.raw(UNDI).map(<[u8]>::len), Some(3));
        }
    }

    #[test]
    fn it_reads_offers_and_tells_proxies_from_servers() {
        let asked = Request::parse(&discover([1, 2, 3, 4], MAC, CLIENTS[2].as_ref())).unwrap();
        let none = Ipv4Addr::UNSPECIFIED;
        let answer = |kind, yiaddr, class: &str| {
            let mut options = Options::default();
            options.text(option::VENDOR_CLASS, class);
            Naming::parse(
                &Reply { kind, yiaddr, siaddr: none, server: THEM, file: None, options }.encode(&asked),
            )
        };
        let offered = Ipv4Addr::new(10, 77, 0, 99);
        for (kind, yiaddr, class, want) in [
            (Kind::Offer, offered, "", Some(Gives::Addresses)),
            (Kind::Offer, offered, "PXEClient", Some(Gives::Addresses)),
            (Kind::Offer, none, "PXEClient", Some(Gives::Boot)),
            (Kind::Offer, none, "HTTPClient", Some(Gives::Boot)),
            (Kind::Offer, none, "", None),
            (Kind::Nak, none, "PXEClient", None),
            (Kind::Ack, offered, "", None),
        ] {
            let answer = answer(kind, yiaddr, class).unwrap();
            assert_eq!((answer.xid, answer.server, answer.address), ([1, 2, 3, 4], THEM, yiaddr));
            assert_eq!(answer.offers(), want, "{kind:?} {yiaddr} {class}");
        }
        assert_eq!(Naming::parse(b"short"), None);
    }

    #[test]
    fn another_server_is_a_fault_or_what_the_plan_says() {
        let server = ((THEM, Gives::Addresses), "offered an address".to_owned());
        let proxy = ((THEM, Gives::Boot), "told a client what to boot".to_owned());
        let [none, one, boot, both] =
            [vec![], vec![server.clone()], vec![proxy.clone()], vec![server, proxy]];
        use DhcpMode::{Off, Proxy, Serve};
        use NetworkRole::{Bmc, Management};
        use Severity::{Fault, Good, Warning};
        let rows = [
            (Management, Serve, &none, true, vec![Good]),
            (Management, Serve, &one, true, vec![Fault]),
            (Management, Proxy, &one, true, vec![Good]),
            (Management, Proxy, &none, true, vec![Fault]),
            (Management, Proxy, &none, false, vec![Good]),
            (Management, Off, &one, false, vec![Good]),
            (Management, Serve, &boot, true, vec![Good, Fault]),
            // A proxy gives no addresses: it is not the server that the plan relies on.
            (Management, Proxy, &boot, true, vec![Fault, Fault]),
            (Management, Proxy, &both, true, vec![Good, Fault]),
            (Management, Off, &both, false, vec![Good, Warning]),
            (Bmc, Serve, &boot, true, vec![Good, Good]),
        ];
        for (role, mode, seen, asked, want) in rows {
            let mut interface = interface(role);
            interface.network.mode = mode;
            let seen: Seen = seen.iter().cloned().collect();
            let findings = judge(&interface, &seen, asked);
            let severities: Vec<Severity> = findings.iter().map(|f| f.severity).collect();
            assert_eq!(severities, want, "{role:?} {mode:?} {findings:?}");
            for finding in &findings {
                assert_eq!(finding.action.is_empty(), finding.severity == Good, "{finding:?}");
            }
            let proxies = findings.iter().filter(|f| f.check == "other-proxy-dhcp");
            assert!(proxies.clone().all(|f| f.found.contains("proxyDHCP") && f.action != ELSEWHERE));
            assert_eq!(proxies.count(), seen.keys().filter(|(_, gives)| *gives == Gives::Boot).count());
        }
    }
}
