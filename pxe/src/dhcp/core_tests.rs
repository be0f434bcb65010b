use std::sync::Mutex;

use dayzero_model::boot::{BootAction, BootWindow};
use dayzero_model::site::{AddressRange, DhcpMode, NetworkRole};
use dhcproto::v4::{DhcpOption, Message, OptionCode};
use dhcproto::{Decodable, Decoder};

use super::super::lease::Lease;
use super::super::wire::tests::{MAC, datagram};
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

fn handle(core: &DhcpCore, packet: &[u8]) -> Handled {
    let request = Request::parse(packet).unwrap();
    core.handle(&request, came(request.ciaddr), NOW)
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
    assert_eq!(to, Destination::Direct(MAC, A));
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
        (Some("Ack"), Destination::Unicast(SocketAddrV4::new(A, 68)))
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
    Destination::Unicast(SocketAddrV4::new(address, 67))
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
    assert_eq!(self::message(&renewed).1, Destination::Unicast(SocketAddrV4::new(FAR, 68)));
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
    let lease = Lease { network: "mgmt".parse().unwrap(), address: had, mac: MAC, expires: NOW };
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
    assert_eq!((kind(&ack).as_deref(), self::message(&ack).1), (Some("Ack"), Destination::Unicast(from)));
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
