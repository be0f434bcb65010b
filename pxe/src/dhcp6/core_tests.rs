use std::net::Ipv4Addr;
use std::sync::Mutex;

use dayzero_model::boot::{BootAction, BootWindow};
use dayzero_model::site::NetworkRole;
use dayzero_model::{BootId, HostName};

use super::super::wire::tests::{LINK_LOCAL, MAC, message, relayed};
use super::*;
use crate::config::tests::{config, interface};
use crate::config::{Ipv4Prefix, Ipv6Prefix};
use crate::director::{RelayPort, ScriptQuery};

struct Fixed(Mutex<Client>);

impl BootDirector for Fixed {
    fn client(&self, _: &SeenClient) -> Client {
        self.0.lock().unwrap().clone()
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn event(&self, _: PxeEvent) {}
}

const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 2];
const CLIENT: &[u8] = &[0, 4, 0x00, 0x11, 0x22, 0x33, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn prefix(third: u16) -> Option<Ipv6Prefix> {
    Some(Ipv6Prefix { address: Ipv6Addr::new(0xfd77, 0, third, 0, 0, 0, 0, 0), len: 64 })
}

/// fd77::10.77.0.11
const A6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, 11);

fn host(window: bool) -> Client {
    let host: HostName = "host1".parse().unwrap();
    let window = window.then(|| BootWindow { boot: BootId(7), host: host.clone() });
    Client::Host {
        host,
        address: Ipv4Addr::new(10, 77, 0, 11),
        window,
        uuid: None,
        chain: dayzero_model::boot::Chain::Ipxe,
    }
}

fn core(client: Client) -> Core {
    core_with(client, |_, _| ())
}

/// With the management network, and the one behind a relay, as a plan would have them.
fn core_with(client: Client, tune: impl FnOnce(&mut ServedNetwork, &mut ServedNetwork)) -> Core {
    core_of(Arc::new(Fixed(Mutex::new(client))), tune)
}

fn core_of(
    director: Arc<dyn BootDirector>,
    tune: impl FnOnce(&mut ServedNetwork, &mut ServedNetwork),
) -> Core {
    let mut mgmt = interface(NetworkRole::Management);
    mgmt.network.prefix6 = prefix(0);
    let far = Ipv4Prefix { address: Ipv4Addr::new(10, 88, 0, 0), len: 24 };
    let mut far = ServedNetwork::new("far".parse().unwrap(), NetworkRole::Management, far);
    far.prefix6 = prefix(8);
    far.relays = vec![Ipv4Addr::new(10, 88, 0, 1)];
    tune(&mut mgmt.network, &mut far);
    let mut config = PxeConfig { interfaces: vec![mgmt.clone()], relayed: vec![far], ..config() };
    config.names.domain = "lab.example".into();
    let networks = Arc::new(Networks::new(&config, &[]));
    let told = Told::on(
        &mgmt,
        &config,
        &mgmt.address6().map(|six| (mgmt.device.clone(), six)).into_iter().collect(),
    );
    Core::new(&mgmt, &config, networks, SERVER.to_vec(), told, director, Sessions::default())
}

fn ask(core: &Core, kind: u8, options: &[(u16, &[u8])]) -> Handled {
    let message = Message::parse(&message(kind, options)).unwrap();
    core.handle(&message, Came { from: LINK_LOCAL, to: ALL_AGENTS }, Timestamp(1_000_000))
}

fn association(addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];
    for address in addresses {
        out.extend_from_slice(&[0, 5, 0, 24]);
        out.extend_from_slice(&address.octets());
        out.extend_from_slice(&[0; 8]);
    }
    out
}

/// The answer's kind, the addresses with their lifetimes, and the boot file.
fn read(handled: &Handled) -> (u8, Vec<(Ipv6Addr, u32)>, Option<String>) {
    use dhcproto::v6::{DhcpOption, Message, OptionCode};
    use dhcproto::{Decodable, Decoder};
    let bytes = handled.reply.as_ref().unwrap_or_else(|| panic!("an answer: {handled:?}"));
    let message = Message::decode(&mut Decoder::new(bytes)).unwrap();
    let mut addresses = Vec::new();
    for option in message.opts().get_all(OptionCode::IANA).into_iter().flatten() {
        let DhcpOption::IANA(one) = option else { continue };
        for inner in one.opts.get_all(OptionCode::IAAddr).into_iter().flatten() {
            if let DhcpOption::IAAddr(address) = inner {
                addresses.push((address.addr, address.valid_life));
            }
        }
    }
    let at = bytes.windows(2).position(|w| w == [0, 59]);
    let file = at.map(|at| {
        let len = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        String::from_utf8(bytes[at + 4..at + 4 + len].to_vec()).unwrap()
    });
    (bytes[0], addresses, file)
}

#[test]
fn a_planned_machine_gets_the_address_that_follows_from_the_plan() {
    let core = core(host(false));
    let ia = association(&[]);
    let valid = 24 * 3600;
    assert_eq!(read(&ask(&core, 1, &[(1, CLIENT), (3, &ia)])), (2, vec![(A6, valid)], None));
    assert_eq!(read(&ask(&core, 1, &[(1, CLIENT), (3, &ia), (14, &[])])).0, 7, "rapid commit");
    let own = association(&[A6]);
    for kind in [3, 5] {
        let got = read(&ask(&core, kind, &[(1, CLIENT), (2, SERVER), (3, &own)]));
        assert_eq!(got, (7, vec![(A6, valid)], None), "{kind}");
    }
    let old = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 99);
    let got = read(&ask(&core, 6, &[(1, CLIENT), (3, &association(&[old]))]));
    assert_eq!(got, (7, vec![(A6, valid), (old, 0)], None), "its old address is over");
    let status = |address| {
        let got = ask(&core, 4, &[(1, CLIENT), (3, &association(&[address]))]);
        let bytes = got.reply.unwrap();
        let at = bytes.windows(4).position(|w| w == [0, 13, 0, 2]).unwrap();
        bytes[at + 5]
    };
    assert_eq!((status(A6), status(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1))), (0, 4), "CONFIRM");
    let two = ask(&core, 1, &[(1, CLIENT), (3, &ia), (3, &ia)]);
    assert_eq!(read(&two).1.len(), 1, "one address a machine");
    let declined = ask(&core, 9, &[(1, CLIENT), (2, SERVER), (3, &own)]);
    assert_eq!(read(&declined).0, 7);
    let told = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("declines fd77::"));
    assert!(declined.events.iter().any(told), "{:?}", declined.events);
    assert_eq!(read(&ask(&core, 8, &[(1, CLIENT), (2, SERVER), (3, &own)])).0, 7, "RELEASE");
    assert_eq!(read(&ask(&core, 11, &[(1, CLIENT)])), (7, vec![], None), "INFORMATION-REQUEST");
}

#[test]
fn what_is_not_for_us_or_not_planned_is_not_answered() {
    let other = &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9][..];
    let own = association(&[A6]);
    let planned = core(host(false));
    for (what, kind, options) in [
        ("a REQUEST of another server", 3, vec![(1, CLIENT), (2, other), (3, &own[..])]),
        ("a REQUEST of nobody", 3, vec![(1, CLIENT), (3, &own)]),
        ("a SOLICIT to a server", 1, vec![(1, CLIENT), (2, SERVER), (3, &own)]),
        ("a REBIND to a server", 6, vec![(1, CLIENT), (2, SERVER), (3, &own)]),
        ("a CONFIRM of nothing", 4, vec![(1, CLIENT)]),
    ] {
        assert!(ask(&planned, kind, &options).reply.is_none(), "{what}");
    }
    let unknown = ask(&core(Client::Unknown), 1, &[(1, CLIENT), (3, &own)]);
    let pending =
        |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("pending"));
    assert!(unknown.reply.is_none() && unknown.events.iter().any(pending), "{unknown:?}");
}

/// A client's choice is in its REQUEST alone, and is no news where another server is meant to give the addresses.
#[test]
fn a_client_that_takes_another_servers_offer_is_told() {
    let other = &[0, 1, 0, 1, 9, 9, 9, 9, 2, 0, 0, 0, 0, 0x66][..];
    let own = association(&[A6]);
    let chosen = |core: &Core, kind: u8, server: &[u8]| {
        let got = ask(core, kind, &[(1, CLIENT), (2, server), (3, &own)]);
        let told = got.events.iter().find_map(|event| match &event.what {
            What::DhcpIgnored { why: Ignored::OtherServer6 { duid, mac }, .. } => Some((duid.clone(), *mac)),
            _ => None,
        });
        assert!(told.is_none() || got.reply.is_none(), "{got:?}");
        told
    };
    for client in [host(true), Client::Unknown] {
        let core = core(client);
        let duid = "00:01:00:01:09:09:09:09:02:00:00:00:00:66".to_owned();
        assert_eq!(chosen(&core, 3, other), Some((duid, Some(MacAddr([2, 0, 0, 0, 0, 0x66])))));
        assert_eq!(chosen(&core, 3, SERVER), None, "ours");
        assert_eq!(chosen(&core, 3, CLIENT).map(|(_, mac)| mac), Some(None), "a DUID of no MAC");
        for kind in [5, 8, 9, 11] {
            assert_eq!(chosen(&core, kind, other), None, "{kind}");
        }
    }
    let beside = core_with(host(true), |mgmt, _| mgmt.mode = DhcpMode::Proxy);
    assert_eq!(chosen(&beside, 3, other), None);
}

#[test]
fn a_message_that_breaks_the_rules_is_told_as_its_hosts() {
    let core = core(host(true));
    let bytes = message(1, &[(1, CLIENT), (61, &[0])]);
    let error = Message::parse(&bytes).unwrap_err();
    let read = Message::broken(&bytes).unwrap();
    let got = core.broken(&read, Came { from: LINK_LOCAL, to: ALL_AGENTS }, &error);
    assert_eq!((got.reply.is_none(), got.client()), (true, (Some(MAC), true)));
    let [asked, ignored] = got.events.as_slice() else { panic!("{got:?}") };
    assert!(matches!(&asked.what, What::DhcpIn { kind, .. } if kind == "SOLICIT"), "{asked:?}");
    let said = |what: &What| matches!(what, What::DhcpIgnored { why: Ignored::Malformed, reason } if reason.contains("option 61 has 1 bytes"));
    assert!(said(&ignored.what), "{ignored:?}");
}

/// The message, with the class that EDK2 sends: Intel's enterprise number, a length, the text.
fn class(text: &[u8]) -> Vec<u8> {
    [&[0, 0, 1, 0x57][..], &(text.len() as u16).to_be_bytes(), text].concat()
}

const PXE: &[u8] = b"PXEClient:Arch:00007:UNDI:003016";
const HTTP: &[u8] = b"HTTPClient:Arch:00016:UNDI:003016";
/// User class of iPXE.
const IPXE: &[u8] = b"\0\x04iPXE";

#[test]
fn each_firmware_is_told_its_loader_by_its_architecture() {
    let core = core(host(true));
    let ia = association(&[]);
    for (text, arch, want) in [
        (PXE, 7, Some("tftp://[fd77::a4d:2]/snponly.efi")),
        (PXE, 9, Some("tftp://[fd77::a4d:2]/snponly.efi")),
        (HTTP, 16, Some("http://[fd77::a4d:2]:8080/boot/file/snponly.efi")),
        (PXE, 0, Some("tftp://[fd77::a4d:2]/undionly.kpxe")),
        (PXE, 6, None),
        (HTTP, 15, None),
        (PXE, 27, None),
    ] {
        let got = ask(&core, 1, &[(1, CLIENT), (3, &ia), (16, &class(text)), (61, &[0, arch])]);
        assert_eq!(read(&got).2.as_deref(), want, "{arch}");
        let said = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("no loader"));
        assert_eq!(got.events.iter().any(said), want.is_none(), "{arch}: {:?}", got.events);
        let named = got.reply.as_ref().unwrap().windows(10).any(|w| w == b"HTTPClient");
        assert_eq!(named, text == HTTP && want.is_some(), "EDK2 takes no offer without it");
        let uuid = |e: &PxeEvent| matches!(&e.what, What::DhcpIn { uuid: Some(uuid), .. } if uuid == "00112233-0405-0607-0809-0a0b0c0d0e0f");
        assert!(got.events.iter().any(uuid), "{:?}", got.events);
    }
    let plain = ask(&core, 1, &[(1, CLIENT), (3, &ia)]);
    assert_eq!(read(&plain).2, None, "an installed host is told its address alone");
}

/// Another server gives the addresses there, by IPv6 too: nothing is missing, and nothing of it is a fault.
#[test]
fn beside_another_server_nobody_is_answered_and_nothing_is_held_against_a_planned_host() {
    let (ia, pxe) = (association(&[]), class(PXE));
    for window in [true, false] {
        let core = core_with(host(window), |mgmt, _| mgmt.mode = DhcpMode::Proxy);
        for options in [
            vec![(1, CLIENT), (3, &ia[..])],
            vec![(1, CLIENT), (3, &ia), (16, &pxe), (61, &[0, 7][..])],
            vec![(1, CLIENT), (3, &ia), (15, IPXE), (61, &[0, 7])],
        ] {
            let got = ask(&core, 1, &options);
            assert!(got.reply.is_none(), "{got:?}");
            let fault = |e: &PxeEvent| matches!(e.what, What::DhcpIgnored { .. });
            assert!(!got.events.iter().any(fault), "{:?}", got.events);
        }
    }
}

#[test]
fn our_ipxe_is_told_its_script_and_another_one_ours() {
    let core = core(host(true));
    let ia = association(&[]);
    let file = |kind, options: &[(u16, &[u8])]| read(&ask(&core, kind, options)).2;
    let loader = Some("tftp://[fd77::a4d:2]/snponly.efi".to_owned());
    let firmware = [(1, CLIENT), (3, &ia[..]), (16, &class(PXE)), (61, &[0, 7])];
    let ipxe = [(1, CLIENT), (3, &ia[..]), (15, IPXE), (61, &[0, 7])];
    assert_eq!(file(1, &ipxe), loader, "the NIC's own");
    assert_eq!(file(1, &firmware), loader);
    let who = core.sessions.who(IpAddr::V6(A6));
    assert_eq!(who.mac, None, "offered, and not yet its own");
    let taken = [(1, CLIENT), (2, SERVER), (3, &ia), (16, &class(PXE)), (61, &[0, 7])];
    assert_eq!(file(3, &taken), loader);
    let who = core.sessions.who(IpAddr::V6(A6));
    assert_eq!(
        (who.mac, who.host.map(|h| h.to_string()), who.boot),
        (Some(MAC), Some("host1".into()), Some(BootId(7)))
    );
    core.sessions.loader_fetched(A6, Timestamp(1_000_000));
    let script = format!("http://[fd77::a4d:2]:8080/boot/script?mac={MAC}");
    assert_eq!(file(1, &ipxe), Some(script.clone()));
    assert_eq!(file(3, &[(1, CLIENT), (2, SERVER), (3, &ia), (15, IPXE), (61, &[0, 7])]), Some(script));
    core.sessions.script_fetched(MAC);
    assert_eq!(file(1, &ipxe), loader, "the next boot begins anew");
}

#[test]
fn under_secure_boot_the_signed_image_is_offered_and_shim_before_grub_is_left_to_ipv4() {
    let mut core = core(host(true));
    core.loaders.secure.uki = Some("discovery.efi".into());
    core.loaders.secure.shim = Some("shim.efi".into());
    let mut by = |chain| {
        let Client::Host { host, address, window, uuid, .. } = host(true) else { panic!() };
        core.director = Arc::new(Fixed(Mutex::new(Client::Host { host, address, window, uuid, chain })));
        let ia = association(&[]);
        ask(&core, 1, &[(1, CLIENT), (3, &ia), (16, &class(PXE)), (61, &[0, 7])])
    };
    assert_eq!(read(&by(Chain::Uki)).2.as_deref(), Some("tftp://[fd77::a4d:2]/discovery.efi"));
    let shim = by(Chain::Shim);
    let said =
        |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("PXE for IPv4"));
    assert!(read(&shim).2.is_none() && shim.events.iter().any(said), "{shim:?}");
}

#[test]
fn where_we_have_no_ipv6_address_an_address_is_given_and_no_file() {
    let mut core = core(host(true));
    core.told = Told::default();
    let got = ask(&core, 1, &[(1, CLIENT), (3, &association(&[])), (16, &class(PXE)), (61, &[0, 7])]);
    let (_, addresses, file) = read(&got);
    assert_eq!((addresses.len(), file), (1, None));
}

/// The name servers and domains that an answer tells.
fn dns(handled: &Handled) -> (Vec<Ipv6Addr>, Vec<String>) {
    use dhcproto::v6::{DhcpOption, Message, OptionCode};
    use dhcproto::{Decodable, Decoder};
    let bytes = handled.reply.as_ref().unwrap_or_else(|| panic!("an answer: {handled:?}"));
    let message = Message::decode(&mut Decoder::new(bytes)).unwrap();
    let servers = match message.opts().get(OptionCode::DomainNameServers) {
        Some(DhcpOption::DomainNameServers(servers)) => servers.clone(),
        _ => Vec::new(),
    };
    let domains = match message.opts().get(OptionCode::DomainSearchList) {
        Some(DhcpOption::DomainSearchList(domains)) => domains.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    (servers, domains)
}

const NAMES: (u16, &[u8]) = (6, &[0, 24, 0, 23, 0, 59]);

#[test]
fn our_name_server_and_the_domain_are_told_to_whom_asks_for_them() {
    let (us, other) = (Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3));
    let own = association(&[A6]);
    let core = core_with(host(true), |mgmt, _| mgmt.dns = vec![other, us]);
    let both = (vec![TO_US], vec!["lab.example".to_owned()]);
    for (kind, server) in [(1, false), (3, true), (5, true), (6, false), (11, false)] {
        let mut options = vec![(1, CLIENT), (3, &own[..]), NAMES];
        options.extend(server.then_some((2, SERVER)));
        let (servers, domains) = dns(&ask(&core, kind, &options));
        let domains = domains.iter().map(|domain| domain.trim_end_matches('.').to_owned()).collect();
        assert_eq!((servers, domains), both, "{kind}");
        options[2] = (6, &[0, 23]);
        assert_eq!(dns(&ask(&core, kind, &options)), (vec![TO_US], vec![]), "{kind}");
        options[2] = (6, &[0, 59]);
        assert_eq!(dns(&ask(&core, kind, &options)), (vec![], vec![]), "{kind}: it did not ask");
        options.remove(2);
        assert_eq!(dns(&ask(&core, kind, &options)), (vec![], vec![]), "{kind}: it asked for nothing");
    }
    for (kind, server) in [(4, false), (8, true), (9, true)] {
        let mut options = vec![(1, CLIENT), (3, &own[..]), NAMES];
        options.extend(server.then_some((2, SERVER)));
        assert_eq!(
            dns(&ask(&core, kind, &options)),
            (vec![], vec![]),
            "{kind} tells nothing but how it went"
        );
    }
}

#[test]
fn a_name_server_by_ipv6_is_told_where_the_plan_has_ours_and_it_listens() {
    let (us, other) = (Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3));
    let ia = association(&[]);
    let told = |core: &Core| dns(&ask(core, 1, &[(1, CLIENT), (3, &ia), NAMES]));
    let another = core_with(host(true), |mgmt, _| mgmt.dns = vec![other]);
    assert_eq!(told(&another), (vec![], vec![]), "the plan has another name server alone");
    let mut without = core_with(host(true), |mgmt, _| mgmt.dns = vec![us]);
    without.told = Told::default();
    assert_eq!(told(&without), (vec![], vec![]), "our device does not have the address");
    let bmc = Client::Bmc { host: "host1".parse().unwrap(), address: Ipv4Addr::new(10, 77, 0, 11) };
    let bmcs = core_with(bmc.clone(), |mgmt, _| (mgmt.role, mgmt.dns) = (NetworkRole::Bmc, vec![us]));
    assert_eq!(told(&bmcs).0, [TO_US], "names, where nothing boots");
    assert_eq!(bmcs.told.boot, None);
    let guests = core_with(bmc, |mgmt, _| (mgmt.role, mgmt.dns) = (NetworkRole::Guest, vec![us]));
    assert!(guests.told.names.is_empty(), "no names are served to guests");

    // Behind a relay, by what the plan says of that network.
    for (far_dns, want) in [(vec![us], vec![TO_US]), (vec![], vec![])] {
        let core = core_with(far_host(), |mgmt, far| (mgmt.dns, far.dns) = (vec![us], far_dns));
        let inner = message(1, &[(1, CLIENT), (3, &ia), NAMES]);
        let message = Message::parse(&relayed(relay(8, 1), LINK_LOCAL, &[], &inner)).unwrap();
        let got = core.handle(&message, Came { from: relay(8, 1), to: TO_US }, Timestamp(0));
        let server = [&[0, 23, 0, 16], &TO_US.octets()[..]].concat();
        let has = got.reply.expect("an answer").windows(20).any(|w| w == server);
        assert_eq!(has, !want.is_empty(), "{want:?}");
    }
}

fn far_host() -> Client {
    let Client::Host { host, window, uuid, chain, .. } = host(false) else { panic!() };
    Client::Host { host, address: Ipv4Addr::new(10, 88, 0, 11), window, uuid, chain }
}

/// fd77:0:third::10.88.0.last
fn relay(third: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, third, 0, 0, 0, 0x0a58, last)
}

/// Our own address; all servers.
const TO_US: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, 2);
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

#[test]
fn relays_of_the_plan_bring_clients_of_their_networks() {
    let core = core(far_host());
    let inner = message(1, &[(1, CLIENT), (3, &association(&[]))]);
    let by = |link: Ipv6Addr| {
        let message = Message::parse(&relayed(link, LINK_LOCAL, &[], &inner)).unwrap();
        core.handle(&message, Came { from: link, to: TO_US }, Timestamp(0))
    };
    let good = by(relay(8, 1)).reply.expect("an answer");
    let want = relay(8, 11).octets();
    assert!(good.windows(16).any(|w| w == want), "{good:?}");
    for (link, want) in [
        (relay(8, 2), "does not list for network far"),
        (relay(9, 1), "of no network of the plan"),
        (Ipv6Addr::UNSPECIFIED, "of no network of the plan"),
    ] {
        let got = by(link);
        let said =
            |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains(want));
        assert!(got.reply.is_none() && got.events.iter().any(said), "{got:?}");
    }
    assert_eq!(Message::parse(&inner).unwrap().mac(LINK_LOCAL), Some(MAC));
}

#[test]
fn nobody_on_a_served_segment_can_pose_as_a_relay() {
    let near = Ipv4Addr::new(10, 77, 0, 88);
    let listed = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2);
    let core = core_with(far_host(), |mgmt, far| {
        far.relay_sources = vec![near.into(), listed.into()];
        // Of another network's relays, not of this one's.
        mgmt.relays = vec![Ipv4Addr::new(10, 77, 0, 89)];
    });
    let at_us = |last: u16| Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, last);
    let inner = message(1, &[(1, CLIENT), (3, &association(&[]))]);
    let first = relayed(relay(8, 1), LINK_LOCAL, &[], &inner);
    let none = Ipv6Addr::UNSPECIFIED;
    let transit = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
    let rows = [
        // Its address at the clients, at us, between routers, as the plan lists them; to us and to all servers.
        (first.clone(), relay(8, 1), TO_US, None),
        (first.clone(), at_us(88), TO_US, None),
        (first.clone(), at_us(88), ALL_SERVERS, None),
        (first.clone(), listed, TO_US, None),
        // What the plan knows nothing of, a router's, another network's relay's.
        (first.clone(), transit, TO_US, Some("`relay_sources` of network far")),
        (first.clone(), at_us(1), ALL_SERVERS, Some("somebody poses as the relay")),
        (first.clone(), at_us(89), TO_US, Some("somebody poses as the relay")),
        (first.clone(), at_us(50), TO_US, Some("somebody poses as the relay")),
        (first.clone(), relay(8, 50), TO_US, Some("somebody poses as the relay")),
        (first.clone(), LINK_LOCAL, ALL_SERVERS, Some("somebody poses as the relay")),
        (first.clone(), relay(8, 1), ALL_AGENTS, Some("clients send to")),
        // A relay behind a relay, which says from whom it has the message, and perhaps for which link.
        (relayed(none, relay(8, 1), &[], &first), at_us(88), TO_US, None),
        (relayed(at_us(88), LINK_LOCAL, &[], &first), at_us(88), TO_US, None),
        (relayed(none, relay(8, 50), &[], &first), at_us(88), TO_US, Some("no relay of the plan")),
        (relayed(at_us(50), relay(8, 1), &[], &first), at_us(88), TO_US, Some("no relay of the plan")),
        // A relay at the client's own port names no link.
        (
            relayed(relay(8, 1), LINK_LOCAL, &[], &relayed(none, LINK_LOCAL, &[], &inner)),
            at_us(88),
            TO_US,
            None,
        ),
        (relayed(none, LINK_LOCAL, &[], &inner), at_us(50), TO_US, Some("does not list")),
    ];
    for (datagram, from, to, want) in rows {
        let got = core.handle(&Message::parse(&datagram).unwrap(), Came { from, to }, Timestamp(0));
        let reasons = || {
            got.events.iter().filter_map(|e| match &e.what {
                What::DhcpIgnored { reason, .. } => Some(reason.as_str()),
                _ => None,
            })
        };
        match want {
            None => assert!(got.reply.is_some(), "{from} to {to}: {got:?}"),
            Some(want) => {
                assert!(
                    got.reply.is_none() && reasons().any(|reason| reason.contains(want)),
                    "{from}: {got:?}"
                );
            }
        }
    }
}

/// Knows who stands at a port, and nobody else.
struct ByPort(Mutex<Option<RelayPort>>);

impl BootDirector for ByPort {
    fn client(&self, seen: &SeenClient) -> Client {
        self.0.lock().unwrap().clone_from(&seen.circuit);
        let at = seen.circuit.as_ref().map(|port| (&port.id[..], port.remote.as_deref()));
        if at == Some((b"e17", Some(b"sw-a"))) { far_host() } else { Client::Unknown }
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn event(&self, _: PxeEvent) {}
}

#[test]
fn a_machine_is_known_by_the_port_of_its_relay_and_by_no_port_that_it_writes_itself() {
    let director = Arc::new(ByPort(Mutex::default()));
    let near = Ipv4Addr::new(10, 77, 0, 88);
    let core = core_of(Arc::clone(&director) as _, |_, far| {
        far.relays.push(Ipv4Addr::new(10, 88, 0, 2));
        far.relay_sources = vec![near.into()];
    });
    let inner = message(1, &[(1, CLIENT), (3, &association(&[]))]);
    let port: [(u16, &[u8]); 2] = [(18, b"e17"), (37, b"\0\0\x7a\x69sw-a")];
    let none = Ipv6Addr::UNSPECIFIED;
    let (here, second) = (relay(8, 1), relay(8, 2));
    let by_port = relayed(here, LINK_LOCAL, &port, &inner);
    let long = vec![b'x'; 300];
    let port_of = |id: &[u8], remote: Option<&[u8]>| {
        Some(RelayPort { id: id.to_vec(), remote: remote.map(<[u8]>::to_vec) })
    };
    let known = port_of(b"e17", Some(b"sw-a"));
    for (what, datagram, from, want) in [
        ("its relay's", by_port.clone(), here, known.clone()),
        (
            "a relay behind a relay, the nearest",
            relayed(second, here, &[(18, b"e1")], &by_port),
            second,
            known.clone(),
        ),
        ("no remote id", relayed(here, LINK_LOCAL, &port[..1], &inner), here, port_of(b"e17", None)),
        (
            "an empty remote id",
            relayed(here, LINK_LOCAL, &[(18, b"e17"), (37, &[0; 4])], &inner),
            here,
            port_of(b"e17", None),
        ),
        ("a remote id alone", relayed(here, LINK_LOCAL, &port[1..], &inner), here, None),
        ("longer than a plan's", relayed(here, LINK_LOCAL, &[(18, &long)], &inner), here, None),
        ("no relay of the plan", by_port.clone(), relay(8, 9), None),
        ("its own layer", relayed(none, LINK_LOCAL, &port, &inner), LINK_LOCAL, None),
        (
            "its own layer as of a switch at its port",
            relayed(here, LINK_LOCAL, &[(18, b"e1")], &relayed(none, LINK_LOCAL, &port, &inner)),
            here,
            port_of(b"e1", None),
        ),
        (
            "its own layer as of the relay",
            relayed(here, LINK_LOCAL, &[(18, b"e1")], &by_port),
            here,
            port_of(b"e1", None),
        ),
        ("none", relayed(here, LINK_LOCAL, &[], &inner), here, None),
        ("no relay", inner.clone(), LINK_LOCAL, None),
    ] {
        let message = Message::parse(&datagram).unwrap();
        let to = if datagram == inner { ALL_AGENTS } else { TO_US };
        let handled = core.handle(&message, Came { from, to }, Timestamp(0));
        assert_eq!(*director.0.lock().unwrap(), want, "{what}");
        assert_eq!(handled.reply.is_some(), want == known, "{what}: {handled:?}");
    }
    let short = relayed(here, LINK_LOCAL, &[(37, &[0, 0, 1])], &inner);
    assert_eq!(Message::parse(&short), Err(BadMessage::OptionLength { option: 37, len: 3 }));
}
