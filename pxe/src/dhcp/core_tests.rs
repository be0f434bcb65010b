use std::sync::Mutex;

use dayzero_model::boot::{BootAction, BootWindow};
use dayzero_model::site::{AddressRange, DhcpMode, NetworkRole};
use dhcproto::v4::{DhcpOption, Message, OptionCode};
use dhcproto::{Decodable, Decoder};

use super::super::lease::Lease;
use super::super::wire::tests::{IPXE_12, IPXE_13, MAC, datagram};
use super::*;
use crate::config::tests::{config, interface};
use crate::config::{Ipv4Prefix, LeasePool, ServedNetwork};
use crate::director::ScriptQuery;

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

const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const US: [u8; 4] = [10, 77, 0, 2];
const NOW: Timestamp = Timestamp(1_000_000);

fn host(window: bool) -> Client {
    let host: HostName = "host1".parse().unwrap();
    let window = window.then(|| BootWindow { boot: BootId(7), host: host.clone() });
    Client::Host { host, address: A, window, uuid: None, chain: dayzero_model::boot::Chain::Ipxe }
}

fn core_with(
    client: Client,
    interface: &ServedInterface,
    relayed: Vec<ServedNetwork>,
    leases: &[Lease],
) -> (DhcpCore, Arc<Fixed>, Sessions) {
    let director = Arc::new(Fixed(Mutex::new(client)));
    let sessions = Sessions::default();
    let config = PxeConfig { interfaces: vec![interface.clone()], relayed, ..config() };
    let networks = Arc::new(Networks::new(&config, leases));
    let core = DhcpCore::new(interface, &config, networks, Arc::clone(&director) as _, sessions.clone());
    (core, director, sessions)
}

fn core(client: Client, interface: &ServedInterface) -> (DhcpCore, Arc<Fixed>, Sessions) {
    core_with(client, interface, vec![], &[])
}

fn came(from: Ipv4Addr) -> Came {
    Came { from: SocketAddrV4::new(from, 68), to: Ipv4Addr::BROADCAST, boot_server: false }
}

/// To us alone, from a relay's port.
fn by_relay(from: Ipv4Addr) -> Came {
    Came { from: SocketAddrV4::new(from, 67), to: US.into(), boot_server: false }
}

fn handle(core: &DhcpCore, packet: &[u8]) -> Handled {
    let request = Request::parse(packet).unwrap();
    let came = if request.giaddr.is_unspecified() { came(request.ciaddr) } else { by_relay(request.giaddr) };
    core.handle(&request, came, NOW)
}

fn ask(core: &DhcpCore, options: &[(u8, &[u8])]) -> Handled {
    handle(core, &datagram(options))
}

fn ask_from(core: &DhcpCore, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Handled {
    let mut packet = datagram(options);
    packet[12..16].copy_from_slice(&ciaddr.octets());
    handle(core, &packet)
}

fn message(handled: &Handled) -> (Message, Destination) {
    let (bytes, to) = handled.reply.as_ref().expect("an answer");
    assert!(bytes.len() <= 548, "{} bytes: more than a client must accept", bytes.len());
    (Message::decode(&mut Decoder::new(bytes)).unwrap(), *to)
}

fn file(handled: &Handled) -> Option<String> {
    let (message, _) = message(handled);
    match message.opts().get(OptionCode::BootfileName) {
        Some(DhcpOption::BootfileName(name)) => Some(String::from_utf8(name.clone()).unwrap()),
        _ => None,
    }
}

fn kind(handled: &Handled) -> Option<String> {
    handled.reply.as_ref().map(|_| format!("{:?}", message(handled).0.opts().msg_type().unwrap()))
}

fn ignored(handled: &Handled) -> String {
    assert!(handled.reply.is_none(), "answered: {handled:?}");
    let mut reasons = handled.events.iter().filter_map(|e| match &e.what {
        What::DhcpIgnored { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    reasons.next().expect("a reason")
}

const PXE: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");
const UEFI: (u8, &[u8]) = (93, &[0, 7]);
const BIOS: (u8, &[u8]) = (93, &[0, 0]);
const IPXE: (u8, &[u8]) = (77, b"iPXE");
const DISCOVER: (u8, &[u8]) = (53, &[1]);
const REQUEST: (u8, &[u8]) = (53, &[3]);

#[test]
fn a_rom_ipxe_gets_our_loader_then_the_script_then_the_loader_again() {
    let (core, _, sessions) = core(host(true), &interface(NetworkRole::Management));
    let rom = ask(&core, &[DISCOVER, PXE, BIOS, IPXE]);
    assert_eq!(file(&rom).as_deref(), Some("undionly.kpxe"));
    let ack = ask(&core, &[REQUEST, PXE, BIOS, IPXE, (54, &US), (50, &A.octets())]);
    assert_eq!((kind(&ack).as_deref(), file(&ack).as_deref()), (Some("Ack"), Some("undionly.kpxe")));
    sessions.loader_fetched(A, NOW);
    for message in [
        ask(&core, &[DISCOVER, PXE, BIOS, IPXE]),
        ask(&core, &[REQUEST, PXE, BIOS, IPXE, (54, &US), (50, &A.octets())]),
    ] {
        assert_eq!(
            file(&message).as_deref(),
            Some("http://10.77.0.2:8080/boot/script?mac=52:54:00:77:00:01")
        );
    }
    sessions.script_fetched(MAC);
    assert_eq!(file(&ask(&core, &[DISCOVER, PXE, BIOS, IPXE])).as_deref(), Some("undionly.kpxe"));
}

#[test]
fn firmware_gets_what_it_needs_to_go_on_at_once() {
    let (core, _, _) = core(host(true), &interface(NetworkRole::Management));
    let mut uuid = [0; 17];
    uuid[1..].copy_from_slice(&[0xab; 16]);
    let offer = ask(&core, &[DISCOVER, PXE, UEFI, (97, &uuid), (61, b"\x01id")]);
    let (message, to) = message(&offer);
    assert_eq!(to, Destination::Direct(MAC, SocketAddrV4::new(A, 68)));
    assert_eq!((message.yiaddr(), message.siaddr().octets()), (A, US));
    assert_eq!(message.fname(), Some(&b"snponly.efi\0"[..]));
    let opts = message.opts();
    assert_eq!(opts.get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(US.into())));
    assert_eq!(opts.get(OptionCode::SubnetMask), Some(&DhcpOption::SubnetMask([255, 255, 255, 0].into())));
    assert_eq!(
        opts.get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
    );
    assert_eq!(
        opts.get(OptionCode::ClientIdentifier),
        Some(&DhcpOption::ClientIdentifier(b"\x01id".to_vec()))
    );

    let ipxe = ask(&core, &[DISCOVER, PXE, UEFI, IPXE]);
    let bytes = &ipxe.reply.as_ref().unwrap().0;
    assert!(bytes.windows(5).any(|w| w == [175, 3, 176, 1, 1]), "iPXE is told not to wait for proxyDHCP");
}

#[test]
fn replies_go_where_the_client_can_hear_them() {
    let (core, _, _) = core(host(false), &interface(NetworkRole::Management));
    let mut packet = datagram(&[DISCOVER]);
    packet[10] = 0x80;
    let broadcast = handle(&core, &packet);
    assert_eq!(message(&broadcast).1, Destination::Broadcast);
    let renew = ask_from(&core, A, &[REQUEST]);
    assert_eq!(
        (kind(&renew).as_deref(), message(&renew).1),
        (Some("Ack"), Destination::Direct(MAC, SocketAddrV4::new(A, 68)))
    );
    let inform = ask_from(&core, A, &[(53, &[8])]);
    assert_eq!(kind(&inform).as_deref(), Some("Ack"));
    let (message, _) = message(&inform);
    assert!(message.yiaddr().is_unspecified() && message.opts().get(OptionCode::AddressLeaseTime).is_none());
    let elsewhere = ask_from(&core, Ipv4Addr::new(192, 0, 2, 1), &[(53, &[8])]);
    assert!(ignored(&elsewhere).contains("192.0.2.1"), "nobody is made a reflector's victim");
}

#[test]
fn wrong_requests_are_refused_and_others_left_alone() {
    let (core, director, _) = core(host(false), &interface(NetworkRole::Management));
    let wrong = ask(&core, &[REQUEST, (50, &[10, 77, 0, 99])]);
    assert_eq!((kind(&wrong).as_deref(), message(&wrong).1), (Some("Nak"), Destination::Broadcast));
    let other = ask(&core, &[REQUEST, (50, &A.octets()), (54, &[10, 77, 0, 66])]);
    assert!(ignored(&other).contains("10.77.0.66"));
    let mut relayed = datagram(&[DISCOVER]);
    relayed[24..28].copy_from_slice(&[10, 9, 9, 1]);
    assert!(ignored(&handle(&core, &relayed)).contains("relay 10.9.9.1"));
    let declined = ask(&core, &[(53, &[4]), (54, &US), (50, &A.octets()), (56, b"no\n")]);
    assert!(ignored(&declined).contains("declines 10.77.0.11 (\"no.\")"));

    *director.0.lock().unwrap() = Client::Unknown;
    assert!(ignored(&ask(&core, &[DISCOVER, PXE, BIOS])).contains("pending"));
    let stray = Client::Bmc { host: "host1".parse().unwrap(), address: Ipv4Addr::new(10, 99, 0, 1) };
    let (bmc, ..) = self::core(stray, &interface(NetworkRole::Bmc));
    assert!(ignored(&ask(&bmc, &[DISCOVER])).contains("10.99.0.1 is not of the network"));
}

#[test]
fn a_client_without_a_loader_still_gets_its_address() {
    let (core, ..) = core(host(true), &interface(NetworkRole::Management));
    let got = ask(&core, &[DISCOVER, (60, b"PXEClient:Arch:00011"), (93, &[0, 11])]);
    assert_eq!((kind(&got).as_deref(), file(&got)), (Some("Offer"), None));
    let told = got.events.iter().any(
        |e| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("no loader") && reason.contains("arm64")),
    );
    assert!(told, "{:?}", got.events);
}

#[test]
fn uefi_http_boot_is_answered_with_a_url() {
    let (core, ..) = core(host(true), &interface(NetworkRole::Management));
    let got = ask(&core, &[DISCOVER, (60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, &[0, 16])]);
    assert_eq!(file(&got).as_deref(), Some("http://10.77.0.2:8080/boot/file/snponly.efi"));
    let opts = message(&got).0;
    assert_eq!(
        opts.opts().get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()))
    );
}

/// Everybody is this client, whose firmware holds our authority, or does not.
struct Firmware(Client, bool);

impl BootDirector for Firmware {
    fn client(&self, _: &SeenClient) -> Client {
        self.0.clone()
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn trusts(&self, _: MacAddr) -> bool {
        self.1
    }
    fn event(&self, _: PxeEvent) {}
}

fn https_core(trusts: bool) -> (DhcpCore, Sessions) {
    let (mut core, _, sessions) = core(host(true), &interface(NetworkRole::Management));
    core.trust = Some(Sha256([7; 32]));
    core.director = Arc::new(Firmware(host(true), trusts));
    (core, sessions)
}

fn settings(handled: &Handled) -> Vec<u8> {
    match message(handled).0.opts().get(OptionCode::from(option::IPXE)) {
        Some(DhcpOption::Unknown(raw)) => raw.data().to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn firmware_is_told_whom_our_loader_is_to_trust_and_a_loader_with_https_uses_it() {
    let told = [&[90, 32][..], &[7; 32]].concat();
    for (rom, features, want) in [
        (false, Some(IPXE_13), true),
        (true, Some(IPXE_13), true),
        (false, Some(IPXE_12), false),
        (false, None, false),
    ] {
        let (core, sessions) = https_core(false);
        let mut asked = vec![PXE, BIOS];
        asked.extend(rom.then_some(IPXE));
        let with = |kind, more: &[(u8, &'static [u8])]| [&[kind], &asked[..], more].concat();
        let offer = ask(&core, &with(DISCOVER, &[]));
        let ack = ask(&core, &with(REQUEST, &[(54, &US), (50, &[10, 77, 0, 11])]));
        for answer in [&offer, &ack] {
            let no_proxy: &[u8] = if rom { &[176, 1, 1] } else { &[] };
            assert_eq!(settings(answer), [&told[..], no_proxy].concat(), "ROM {rom}");
        }
        sessions.loader_fetched(A, NOW);
        let features = features.map(|features| (175, features));
        let ours: Vec<_> = [DISCOVER, PXE, BIOS, IPXE].into_iter().chain(features).collect();
        let script = ask(&core, &ours);
        assert_eq!(settings(&script), [176, 1, 1], "it would come too late");
        assert_eq!(sessions.fetches_https(MAC), want, "ROM {rom}, {features:x?}");
    }
    let (plain, ..) = core(host(true), &interface(NetworkRole::Management));
    assert!(settings(&ask(&plain, &[DISCOVER, PXE, BIOS])).is_empty(), "HTTPS is not served");
}

#[test]
fn firmware_gets_an_https_url_where_it_trusts_us_until_that_did_not_work() {
    const HTTP: [(u8, &[u8]); 2] = [(60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, &[0, 16])];
    let (secure, plain) =
        ("https://10.77.0.2:8445/boot/file/snponly.efi", "http://10.77.0.2:8080/boot/file/snponly.efi");
    let (core, _) = https_core(false);
    assert_eq!(file(&ask(&core, &[DISCOVER, HTTP[0], HTTP[1]])).as_deref(), Some(plain));
    let (core, sessions) = https_core(true);
    let starts = || {
        let offer = ask(&core, &[DISCOVER, HTTP[0], HTTP[1]]);
        let ack = ask(&core, &[REQUEST, HTTP[0], HTTP[1], (54, &US), (50, &A.octets())]);
        assert_eq!(file(&offer), file(&ack), "as its DISCOVER was");
        file(&ack).unwrap()
    };
    assert_eq!(starts(), secure);
    sessions.loader_fetched(A, NOW);
    assert_eq!(starts(), secure, "it was fetched");
    assert_eq!(starts(), plain, "it was not");
    assert_eq!(starts(), plain, "for this boot");
}

#[test]
fn a_guest_lease_comes_with_the_change_that_must_be_durable_first() {
    let mut guest = interface(NetworkRole::Guest);
    let range = AddressRange { first: Ipv4Addr::new(10, 77, 0, 50), last: Ipv4Addr::new(10, 77, 0, 51) };
    guest.network.pool = Some(LeasePool { range, open: true });
    let (core, ..) = core(Client::Unknown, &guest);
    let offer = ask(&core, &[DISCOVER]);
    let offered = message(&offer).0.yiaddr();
    assert_eq!((offered, offer.change), (range.first, None));
    let ack = ask(&core, &[REQUEST, (54, &US), (50, &offered.octets())]);
    assert_eq!(kind(&ack).as_deref(), Some("Ack"));
    let Some(LeaseChange::Put(lease)) = &ack.change else { panic!("{ack:?}") };
    assert_eq!((lease.address, lease.mac, lease.expires), (offered, MAC, Timestamp(NOW.0 + 3_600_000)));
    let renewed = ask_from(&core, offered, &[REQUEST]);
    assert!(matches!(renewed.change, Some(LeaseChange::Put(_))));
    let released = ask_from(&core, offered, &[(53, &[7]), (54, &US)]);
    assert!(matches!(released.change, Some(LeaseChange::Remove { .. })) && released.reply.is_none());
    let foreign = ask(&core, &[REQUEST, (50, &[192, 168, 0, 7])]);
    assert_eq!(kind(&foreign).as_deref(), Some("Nak"), "an address of another network");
}

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 11);

/// A network behind relays, with an open pool.
fn far(role: NetworkRole) -> ServedNetwork {
    let prefix = Ipv4Prefix { address: Ipv4Addr::new(10, 88, 0, 0), len: 24 };
    let range = AddressRange { first: Ipv4Addr::new(10, 88, 0, 50), last: Ipv4Addr::new(10, 88, 0, 59) };
    ServedNetwork {
        relays: vec![RELAY, Ipv4Addr::new(10, 99, 0, 1)],
        gateway: Some(RELAY),
        pool: Some(LeasePool { range, open: true }),
        ..ServedNetwork::new("far".parse().unwrap(), role, prefix)
    }
}

fn relayed(giaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = datagram(options);
    packet[3] = 1;
    packet[24..28].copy_from_slice(&giaddr.octets());
    packet
}

fn at_relay(address: Ipv4Addr) -> Destination {
    Destination::Relay(SocketAddrV4::new(address, 67))
}

#[test]
fn relays_bring_clients_of_networks_that_the_plan_gives_them() {
    let mgmt = interface(NetworkRole::Management);
    let far_host = Client::Host {
        host: "host2".parse().unwrap(),
        address: FAR,
        window: None,
        uuid: None,
        chain: dayzero_model::boot::Chain::Ipxe,
    };
    let (core, director, _) = core_with(far_host, &mgmt, vec![far(NetworkRole::Management)], &[]);
    let circuit: (u8, &[u8]) = (82, b"\x01\x03e17");
    let offer = handle(&core, &relayed(RELAY, &[DISCOVER, PXE, BIOS, circuit]));
    let (message, to) = self::message(&offer);
    assert_eq!((to, message.yiaddr(), message.giaddr()), (at_relay(RELAY), FAR, RELAY));
    assert_eq!(message.siaddr().octets(), US, "it boots from the address that the relay sent to");
    let bytes = &offer.reply.as_ref().unwrap().0;
    let end = bytes.iter().rposition(|b| *b == 255).unwrap();
    assert_eq!(bytes[end - 7..end], *b"\x52\x05\x01\x03e17", "option 82 goes back, last");
    assert_eq!(
        message.opts().get(OptionCode::Router),
        Some(&DhcpOption::Router(vec![RELAY])),
        "of its own network"
    );
    assert_eq!(offer.probe, None, "nobody can be asked by ARP there");

    // The relay's own address is elsewhere; link selection says whom it stands for.
    let elsewhere = Ipv4Addr::new(10, 99, 0, 1);
    let link: (u8, &[u8]) = (82, &[5, 4, 10, 88, 0, 0]);
    let offer = handle(&core, &relayed(elsewhere, &[DISCOVER, link]));
    assert_eq!((self::message(&offer).1, self::message(&offer).0.yiaddr()), (at_relay(elsewhere), FAR));
    // It wants to see renewals too.
    let over: (u8, &[u8]) = (82, &[11, 4, 10, 88, 0, 1]);
    let offer = handle(&core, &relayed(RELAY, &[DISCOVER, over]));
    let id = self::message(&offer).0.opts().get(OptionCode::ServerIdentifier).cloned();
    assert_eq!(id, Some(DhcpOption::ServerIdentifier(RELAY)));
    let ack = handle(&core, &relayed(RELAY, &[REQUEST, (54, &RELAY.octets()), (50, &FAR.octets()), over]));
    assert_eq!(kind(&ack).as_deref(), Some("Ack"));

    for (giaddr, options, want) in [
        (Ipv4Addr::new(10, 88, 0, 2), vec![DISCOVER], "does not list for network far"),
        (Ipv4Addr::new(10, 66, 0, 1), vec![DISCOVER], "of no network of the plan"),
        (elsewhere, vec![DISCOVER], "of no network of the plan"),
        (RELAY, vec![DISCOVER, (82, &[5, 4, 10, 77, 0, 0])], "does not list for network mgmt"),
    ] {
        assert!(ignored(&handle(&core, &relayed(giaddr, &options))).contains(want), "{giaddr}");
    }
    let mut circle = relayed(RELAY, &[DISCOVER]);
    circle[3] = 17;
    assert!(ignored(&handle(&core, &circle)).contains("circle"));

    let nak = handle(&core, &relayed(RELAY, &[REQUEST, (50, &A.octets())]));
    let (message, to) = self::message(&nak);
    assert_eq!((kind(&nak).as_deref(), to), (Some("Nak"), at_relay(RELAY)));
    assert!(message.flags().broadcast(), "the relay must broadcast it");
    // It renews without the relay, by routing, with the address that it has.
    let renewed = ask_from(&core, FAR, &[REQUEST]);
    assert_eq!(self::message(&renewed).1, Destination::Routed(SocketAddrV4::new(FAR, 68)));
    assert_eq!(kind(&renewed).as_deref(), Some("Ack"));
    assert_eq!(renewed.from, Some(US.into()));

    *director.0.lock().unwrap() = Client::Unknown;
    let offer = handle(&core, &relayed(RELAY, &[DISCOVER]));
    let pooled = self::message(&offer).0.yiaddr();
    assert_eq!(pooled, Ipv4Addr::new(10, 88, 0, 50));
    let ack = handle(&core, &relayed(RELAY, &[REQUEST, (54, &US), (50, &pooled.octets())]));
    let Some(LeaseChange::Put(lease)) = &ack.change else { panic!("{ack:?}") };
    assert_eq!((lease.network.as_str(), lease.address), ("far", pooled));
    let renewed = ask_from(&core, pooled, &[REQUEST]);
    assert!(matches!(&renewed.change, Some(LeaseChange::Put(lease)) if lease.address == pooled));
}

/// Two gateways of one network, each with its own address for our identifier: the client's REQUEST comes by both.
#[test]
fn of_two_relays_that_stand_for_us_the_chosen_one_is_answered_and_no_other_server_is_blamed() {
    const SECOND: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
    let mgmt = interface(NetworkRole::Management);
    let mut far = far(NetworkRole::Management);
    far.relays = vec![RELAY, SECOND];
    let pdu = Client::Fixed { name: "pdu1".parse().unwrap(), address: FAR };
    for client in [pdu, Client::Unknown] {
        let (core, ..) = core_with(client, &mgmt, vec![far.clone()], &[]);
        let by = |relay: Ipv4Addr, kind: (u8, &[u8]), id: Option<Ipv4Addr>, address: Ipv4Addr, over: bool| {
            let over = if over { [&[11, 4][..], &relay.octets()].concat() } else { b"\x01\x03e17".to_vec() };
            let (id, address) = (id.map(|id| id.octets()), address.octets());
            let mut options = vec![kind, (50, &address[..]), (82, &over)];
            options.extend(id.as_ref().map(|id| (54, &id[..])));
            handle(&core, &relayed(relay, &options))
        };
        let offers = [RELAY, SECOND].map(|relay| by(relay, DISCOVER, None, FAR, true));
        let ids =
            offers.each_ref().map(|offer| message(offer).0.opts().get(OptionCode::ServerIdentifier).cloned());
        assert_eq!(ids, [RELAY, SECOND].map(|relay| Some(DhcpOption::ServerIdentifier(relay))));
        let address = message(&offers[0]).0.yiaddr();
        let ack = by(RELAY, REQUEST, Some(RELAY), address, true);
        assert_eq!((kind(&ack).as_deref(), message(&ack).1), (Some("Ack"), at_relay(RELAY)));
        let other = by(SECOND, REQUEST, Some(RELAY), address, true);
        assert!(other.reply.is_none() && other.change.is_none() && other.events.len() == 1, "{other:?}");
        // A router that stands for nobody, or an address that is none of the relays', is another server.
        for (id, over) in [(RELAY, false), (Ipv4Addr::new(10, 88, 0, 3), true)] {
            assert!(ignored(&by(SECOND, REQUEST, Some(id), address, over)).contains("is not ours"));
        }
    }
}

#[test]
fn nobody_on_a_served_segment_can_pose_as_a_relay() {
    let mut mgmt = interface(NetworkRole::Management);
    let (near, transit) = (Ipv4Addr::new(10, 77, 0, 88), Ipv4Addr::new(172, 20, 0, 2));
    let another = Ipv4Addr::new(10, 77, 0, 89);
    mgmt.network.relays = vec![another];
    let gateway = mgmt.network.gateway.unwrap();
    let far = ServedNetwork { relay_sources: vec![near.into(), transit.into()], ..far(NetworkRole::Bmc) };
    let (core, ..) = core_with(Client::Unknown, &mgmt, vec![far], &[]);
    let ask = |hops: u8, came: Came| {
        let mut packet = relayed(RELAY, &[DISCOVER]);
        packet[3] = hops;
        core.handle(&Request::parse(&packet).unwrap(), came, NOW)
    };
    let machine = Ipv4Addr::new(10, 77, 0, 50);
    let neighbour = Ipv4Addr::new(10, 88, 0, 50);
    let broadcast = |from| Came { to: Ipv4Addr::BROADCAST, ..by_relay(from) };
    let subnet = |from| Came { to: Ipv4Addr::new(10, 77, 0, 255), ..by_relay(from) };
    for (hops, came, want) in [
        (1, by_relay(machine), "somebody poses as the relay"),
        (1, by_relay(neighbour), "somebody poses as the relay"),
        (1, by_relay(Ipv4Addr::UNSPECIFIED), "somebody poses as the relay"),
        // An address that no network of the plan has, which any machine can give its NIC.
        (1, by_relay(Ipv4Addr::new(172, 20, 0, 1)), "172.20.0.1"),
        (1, by_relay(Ipv4Addr::new(172, 20, 0, 1)), "`relay_sources` of network far"),
        // The router's, another network's relay's, another relay's of this network: not this one's.
        (1, by_relay(gateway), "somebody poses as the relay"),
        (1, by_relay(another), "somebody poses as the relay"),
        (1, by_relay(Ipv4Addr::new(10, 99, 0, 1)), "somebody poses as the relay"),
        (1, broadcast(RELAY), "a relay sends to our address"),
        (1, subnet(RELAY), "let it send to 10.77.0.2"),
        (0, by_relay(near), "hops is 0"),
    ] {
        let got = ask(hops, came);
        assert!(ignored(&got).contains(want), "{came:?}: {}", ignored(&got));
        let by = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { why: Ignored::UnknownRelay { relay }, .. } if *relay == RELAY);
        assert!(got.events.iter().any(by), "{:?}", got.events);
    }
    // Its address at the clients; at us and between routers, as the plan lists them.
    for from in [RELAY, near, transit] {
        assert_eq!(kind(&ask(1, by_relay(from))).as_deref(), Some("Offer"), "{from}");
    }
    assert_eq!(kind(&ask(0, by_relay(RELAY))).as_deref(), Some("Offer"), "one that does not count itself");
}

#[test]
fn the_boot_servers_port_takes_no_address_back() {
    let mut guest = interface(NetworkRole::Guest);
    let range = AddressRange { first: Ipv4Addr::new(10, 77, 0, 50), last: Ipv4Addr::new(10, 77, 0, 59) };
    guest.network.pool = Some(LeasePool { range, open: true });
    let lease = Lease {
        network: "mgmt".parse().unwrap(),
        address: range.first,
        mac: MAC,
        expires: NOW.plus(dayzero_model::Millis(60_000)),
        declined: false,
    };
    let (core, ..) = core_with(Client::Unknown, &guest, vec![], &[lease]);
    let at = |kind: u8, boot_server: bool| {
        let mut packet = datagram(&[(53, &[kind]), (54, &US), (50, &range.first.octets())]);
        packet[12..16].copy_from_slice(&range.first.octets());
        let request = Request::parse(&packet).unwrap();
        core.handle(&request, Came { boot_server, ..by_relay(range.first) }, NOW).change
    };
    for kind in [4, 7] {
        assert_eq!(at(kind, true), None, "{kind}");
        let subnet = core.networks.covering(range.first).unwrap();
        assert_eq!(subnet.pool().unwrap().lease_of(MAC), Some(range.first), "memory and store say the same");
    }
    assert!(matches!(at(7, false), Some(LeaseChange::Remove { .. })));
}

#[test]
fn proxy_dhcp_goes_back_by_the_relay_that_asked() {
    let mut far = far(NetworkRole::Management);
    far.mode = DhcpMode::Proxy;
    far.pool = None;
    let (core, _, sessions) = core_with(host(true), &interface(NetworkRole::Management), vec![far], &[]);
    let circuit: (u8, &[u8]) = (82, b"\x01\x03e17");
    let offer = handle(&core, &relayed(RELAY, &[DISCOVER, PXE, BIOS, circuit]));
    let (message, to) = self::message(&offer);
    assert!(message.flags().broadcast(), "the relay would send it to 0.0.0.0");
    assert_eq!((to, message.giaddr()), (at_relay(RELAY), RELAY));
    assert!(message.yiaddr().is_unspecified(), "another server gives the address");
    assert_eq!(message.siaddr().octets(), US, "and we what it boots");
    let bytes = &offer.reply.as_ref().unwrap().0;
    assert!(bytes.windows(7).any(|w| w == b"\x52\x05\x01\x03e17"), "option 82 goes back");

    // It takes an address that the other server gives on its network, and is known by it from then on.
    let (other, given) = ([10, 77, 0, 66], Ipv4Addr::new(10, 88, 0, 105));
    let taken = |address: Ipv4Addr, server: &[u8], more: &[(u8, &[u8])]| {
        let own = address.octets();
        let options: [&[(u8, &[u8])]; 2] = [&[REQUEST, PXE, BIOS, IPXE, (54, server), (50, &own)], more];
        handle(&core, &relayed(RELAY, &options.concat()))
    };
    taken(A, &other, &[]);
    assert_eq!(sessions.who(A).mac, None, "an address of our own segment is none of its network");
    let silent = taken(given, &other, &[]);
    assert!(silent.reply.is_none() && silent.events.len() == 1, "{silent:?}");
    assert_eq!(sessions.who(given).host.as_ref().map(HostName::as_str), Some("host1"));
    assert!(sessions.loader_fetched(given, NOW).is_some());
    let script = handle(&core, &relayed(RELAY, &[DISCOVER, PXE, BIOS, IPXE]));
    assert!(
        file(&script).is_some_and(|url| url.starts_with("http://10.77.0.2:8080/boot/script?")),
        "our iPXE is not told to load our iPXE again: {script:?}"
    );

    // A relay that stands for the server (RFC 5107) gives both servers one identifier.
    let later = Ipv4Addr::new(10, 88, 0, 106);
    taken(later, &RELAY.octets(), &[(82, &[11, 4, 10, 88, 0, 1])]);
    assert_eq!(sessions.who(later).mac, Some(MAC));
    // The boot server's port is asked from the address itself, whether the REQUEST came to us or not.
    let unheard = Ipv4Addr::new(10, 88, 0, 107);
    for ciaddr in [unheard, Ipv4Addr::UNSPECIFIED] {
        let mut packet = datagram(&[REQUEST, PXE, UEFI]);
        packet[12..16].copy_from_slice(&ciaddr.octets());
        let from = SocketAddrV4::new(unheard, 4011);
        let came = Came { from, to: US.into(), boot_server: true };
        let ack = core.handle(&Request::parse(&packet).unwrap(), came, NOW);
        assert_eq!((kind(&ack).as_deref(), self::message(&ack).1), (Some("Ack"), Destination::Routed(from)));
        assert_eq!(file(&ack).as_deref(), Some("snponly.efi"), "{ciaddr}");
        assert_eq!(sessions.who(unheard).mac, Some(MAC), "{ciaddr}");
    }
    let near = SocketAddrV4::new(A, 4011);
    let came = Came { from: near, to: US.into(), boot_server: true };
    let ours = core.handle(&Request::parse(&datagram(&[REQUEST, PXE, UEFI])).unwrap(), came, NOW);
    assert!(ours.reply.is_none(), "where we give the addresses nobody was told to ask there: {ours:?}");
}

#[test]
fn boot_clients_of_relays_must_come_where_something_boots() {
    let (core, ..) =
        core_with(host(true), &interface(NetworkRole::Bmc), vec![far(NetworkRole::Management)], &[]);
    assert!(ignored(&handle(&core, &relayed(RELAY, &[DISCOVER, PXE]))).contains("where nothing boots"));
}

#[test]
fn leases_of_the_store_hold_after_a_restart() {
    let mut guest = interface(NetworkRole::Guest);
    let range = AddressRange { first: Ipv4Addr::new(10, 77, 0, 50), last: Ipv4Addr::new(10, 77, 0, 59) };
    guest.network.pool = Some(LeasePool { range, open: true });
    let had = Ipv4Addr::new(10, 77, 0, 57);
    let network = "mgmt".parse().unwrap();
    let lease = Lease { network, address: had, mac: MAC, expires: NOW, declined: false };
    let (core, ..) = core_with(Client::Unknown, &guest, vec![], std::slice::from_ref(&lease));
    assert_eq!(kind(&ask_from(&core, had, &[REQUEST])).as_deref(), Some("Ack"), "renewal");
    assert_eq!(kind(&ask(&core, &[REQUEST, (50, &had.octets())])).as_deref(), Some("Ack"), "reboot");
    assert_eq!(message(&ask(&core, &[DISCOVER])).0.yiaddr(), had);
    let of_another = Lease { mac: MacAddr([2, 0, 0, 0, 0, 9]), ..lease };
    let (other, ..) = core_with(Client::Unknown, &guest, vec![], &[of_another]);
    // Of another, or free: whoever remembers an address that we never gave may have it from another server.
    for address in [had, Ipv4Addr::new(10, 77, 0, 55)] {
        assert!(ignored(&ask(&other, &[REQUEST, (50, &address.octets())])).contains("know nothing"));
        assert!(ignored(&ask_from(&other, address, &[REQUEST])).contains("know nothing"));
    }
    assert_ne!(message(&ask(&other, &[DISCOVER, (50, &had.octets())])).0.yiaddr(), had);
}

#[test]
fn an_address_in_use_is_not_given_and_nobody_waits_for_the_probe() {
    let mut guest = interface(NetworkRole::Guest);
    let range = AddressRange { first: Ipv4Addr::new(10, 77, 0, 50), last: Ipv4Addr::new(10, 77, 0, 51) };
    guest.network.pool = Some(LeasePool { range, open: true });
    let (core, director, _) = core(Client::Unknown, &guest);
    let squatter = MacAddr([2, 9, 9, 9, 9, 9]);
    let offer = ask(&core, &[DISCOVER]);
    assert_eq!((message(&offer).0.yiaddr(), offer.probe), (range.first, Some((range.first, MAC))));
    let found = core.conflict(range.first, MAC, squatter, NOW);
    assert!(ignored(&found).contains("in use by 02:09:09:09:09:09"));
    let refused = ask(&core, &[REQUEST, (54, &US), (50, &range.first.octets())]);
    assert_eq!(kind(&refused).as_deref(), Some("Nak"));
    assert_eq!(message(&ask(&core, &[DISCOVER])).0.yiaddr(), range.last, "the next one");

    // A reservation is given at once; the conflict is told.
    *director.0.lock().unwrap() = Client::Fixed { name: "pdu1".parse().unwrap(), address: A };
    let ack = ask(&core, &[REQUEST, (54, &US), (50, &A.octets())]);
    assert_eq!((kind(&ack).as_deref(), ack.probe), (Some("Ack"), Some((A, MAC))));
    let found = core.conflict(A, MAC, squatter, NOW);
    assert!(found.change.is_none() && ignored(&found).contains("10.77.0.11"));
    // Another NIC of the same host is no stranger.
    *director.0.lock().unwrap() = host(false);
    assert!(core.conflict(A, MAC, squatter, NOW).events.is_empty());
}

#[test]
fn beside_another_server_we_say_what_to_boot_and_nothing_else() {
    let mut mgmt = interface(NetworkRole::Management);
    mgmt.network.mode = DhcpMode::Proxy;
    let (core, _, sessions) = core(host(true), &mgmt);
    let offer = ask(&core, &[DISCOVER, PXE, UEFI, (97, &[0; 17])]);
    let (message, to) = self::message(&offer);
    assert_eq!((to, message.yiaddr()), (Destination::Broadcast, Ipv4Addr::UNSPECIFIED));
    assert_eq!((message.siaddr().octets(), file(&offer).as_deref()), (US, Some("snponly.efi")));
    let opts = message.opts();
    assert!(opts.get(OptionCode::AddressLeaseTime).is_none() && opts.get(OptionCode::SubnetMask).is_none());
    assert_eq!(
        opts.get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
    );
    // It takes the other server's offer; from then on its transfers are known.
    let other = ask(&core, &[REQUEST, PXE, UEFI, (54, &[10, 77, 0, 66]), (50, &A.octets())]);
    assert!(other.reply.is_none() && other.events.len() == 1, "{other:?}");
    assert_eq!(sessions.who(A).mac, Some(MAC));
    // The boot server's port.
    let request = Request::parse(&datagram(&[REQUEST, PXE, UEFI])).unwrap();
    let from = SocketAddrV4::new(A, 4011);
    let ack = core.handle(&request, Came { from, to: US.into(), boot_server: true }, NOW);
    assert_eq!((kind(&ack).as_deref(), self::message(&ack).1), (Some("Ack"), Destination::Direct(MAC, from)));
    assert_eq!(file(&ack).as_deref(), Some("snponly.efi"));
    sessions.loader_fetched(A, NOW);
    let script = ask(&core, &[DISCOVER, PXE, UEFI, IPXE]);
    assert!(file(&script).is_some_and(|url| url.starts_with("http://10.77.0.2:8080/boot/script?")));
    for silent in [ask(&core, &[DISCOVER]), ask_from(&core, A, &[REQUEST])] {
        assert!(silent.reply.is_none() && silent.events.len() == 1, "{silent:?}");
    }
}

#[test]
fn a_machine_with_another_uuid_gets_its_address_and_no_boot_file() {
    let Client::Host { host, address, window, .. } = host(true) else { panic!() };
    let uuid = Some("00112233-4455-6677-8899-aabbccddeeff".to_owned());
    let (core, ..) = core(
        Client::Host { host, address, window, uuid, chain: dayzero_model::boot::Chain::Ipxe },
        &interface(NetworkRole::Management),
    );
    let mut other = [9; 17];
    other[0] = 0;
    let got = ask(&core, &[DISCOVER, PXE, BIOS, (97, &other)]);
    assert_eq!((kind(&got).as_deref(), file(&got)), (Some("Offer"), None));
    let told = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("another machine"));
    assert!(got.events.iter().any(told), "{:?}", got.events);
    let same =
        [0, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    let got = ask(&core, &[DISCOVER, PXE, BIOS, (97, &same)]);
    assert_eq!(file(&got).as_deref(), Some("undionly.kpxe"));
}
