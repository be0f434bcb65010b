use std::sync::Mutex;

use dayzero_model::boot::{BootAction, BootWindow};
use dayzero_model::site::{AddressRange, NetworkRole};
use dhcproto::v4::{DhcpOption, Message, OptionCode};
use dhcproto::{Decodable, Decoder};

use super::super::wire::tests::{MAC, datagram};
use super::*;
use crate::config::LeasePool;
use crate::config::tests::{config, interface};
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
    Client::Host { host, address: A, window }
}

fn core(client: Client, interface: &ServedInterface) -> (DhcpCore, Arc<Fixed>, Sessions) {
    let director = Arc::new(Fixed(Mutex::new(client)));
    let sessions = Sessions::default();
    let core = DhcpCore::new(interface, &config(), Arc::clone(&director) as _, sessions.clone(), &[]);
    (core, director, sessions)
}

fn ask(core: &mut DhcpCore, options: &[(u8, &[u8])]) -> Handled {
    core.handle(&Request::parse(&datagram(options)).unwrap(), NOW)
}

fn ask_from(core: &mut DhcpCore, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Handled {
    let mut packet = datagram(options);
    packet[12..16].copy_from_slice(&ciaddr.octets());
    core.handle(&Request::parse(&packet).unwrap(), NOW)
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
        What::DhcpIgnored { reason } => Some(reason.clone()),
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
    let (mut core, _, sessions) = core(host(true), &interface(NetworkRole::Management));
    let rom = ask(&mut core, &[DISCOVER, PXE, BIOS, IPXE]);
    assert_eq!(file(&rom).as_deref(), Some("undionly.kpxe"));
    let ack = ask(&mut core, &[REQUEST, PXE, BIOS, IPXE, (54, &US), (50, &A.octets())]);
    assert_eq!((kind(&ack).as_deref(), file(&ack).as_deref()), (Some("Ack"), Some("undionly.kpxe")));
    sessions.loader_fetched(A, NOW);
    for message in [
        ask(&mut core, &[DISCOVER, PXE, BIOS, IPXE]),
        ask(&mut core, &[REQUEST, PXE, BIOS, IPXE, (54, &US), (50, &A.octets())]),
    ] {
        assert_eq!(
            file(&message).as_deref(),
            Some("http://10.77.0.2:8080/boot/script?mac=52:54:00:77:00:01")
        );
    }
    sessions.script_fetched(MAC);
    assert_eq!(file(&ask(&mut core, &[DISCOVER, PXE, BIOS, IPXE])).as_deref(), Some("undionly.kpxe"));
}

#[test]
fn firmware_gets_what_it_needs_to_go_on_at_once() {
    let (mut core, _, _) = core(host(true), &interface(NetworkRole::Management));
    let mut uuid = [0; 17];
    uuid[1..].copy_from_slice(&[0xab; 16]);
    let offer = ask(&mut core, &[DISCOVER, PXE, UEFI, (97, &uuid), (61, b"\x01id")]);
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

    let ipxe = ask(&mut core, &[DISCOVER, PXE, UEFI, IPXE]);
    let bytes = &ipxe.reply.as_ref().unwrap().0;
    assert!(bytes.windows(5).any(|w| w == [175, 3, 176, 1, 1]), "iPXE is told not to wait for proxyDHCP");
}

#[test]
fn replies_go_where_the_client_can_hear_them() {
    let (mut core, _, _) = core(host(false), &interface(NetworkRole::Management));
    let mut packet = datagram(&[DISCOVER]);
    packet[10] = 0x80;
    let broadcast = core.handle(&Request::parse(&packet).unwrap(), NOW);
    assert_eq!(message(&broadcast).1, Destination::Broadcast);
    let renew = ask_from(&mut core, A, &[REQUEST]);
    assert_eq!((kind(&renew).as_deref(), message(&renew).1), (Some("Ack"), Destination::Unicast(A)));
    let inform = ask_from(&mut core, A, &[(53, &[8])]);
    assert_eq!(kind(&inform).as_deref(), Some("Ack"));
    let (message, _) = message(&inform);
    assert!(message.yiaddr().is_unspecified() && message.opts().get(OptionCode::AddressLeaseTime).is_none());
    let elsewhere = ask_from(&mut core, Ipv4Addr::new(192, 0, 2, 1), &[(53, &[8])]);
    assert!(ignored(&elsewhere).contains("192.0.2.1"), "nobody is made a reflector's victim");
}

#[test]
fn wrong_requests_are_refused_and_others_left_alone() {
    let (mut core, director, _) = core(host(false), &interface(NetworkRole::Management));
    let wrong = ask(&mut core, &[REQUEST, (50, &[10, 77, 0, 99])]);
    assert_eq!((kind(&wrong).as_deref(), message(&wrong).1), (Some("Nak"), Destination::Broadcast));
    let other = ask(&mut core, &[REQUEST, (50, &A.octets()), (54, &[10, 77, 0, 66])]);
    assert!(ignored(&other).contains("10.77.0.66"));
    let mut relayed = datagram(&[DISCOVER]);
    relayed[24..28].copy_from_slice(&[10, 9, 9, 1]);
    assert!(ignored(&core.handle(&Request::parse(&relayed).unwrap(), NOW)).contains("relay 10.9.9.1"));
    let declined = ask(&mut core, &[(53, &[4]), (54, &US), (50, &A.octets()), (56, b"no\n")]);
    assert!(ignored(&declined).contains("declines 10.77.0.11 (\"no.\")"));

    *director.0.lock().unwrap() = Client::Unknown;
    assert!(ignored(&ask(&mut core, &[DISCOVER, PXE, BIOS])).contains("pending"));
    let stray = Client::Bmc { host: "host1".parse().unwrap(), address: Ipv4Addr::new(10, 99, 0, 1) };
    let (mut bmc, ..) = self::core(stray, &interface(NetworkRole::Bmc));
    assert!(ignored(&ask(&mut bmc, &[DISCOVER])).contains("10.99.0.1 is not on network mgmt"));
}

#[test]
fn a_client_without_a_loader_still_gets_its_address() {
    let (mut core, ..) = core(host(true), &interface(NetworkRole::Management));
    let got = ask(&mut core, &[DISCOVER, (60, b"PXEClient:Arch:00011"), (93, &[0, 11])]);
    assert_eq!((kind(&got).as_deref(), file(&got)), (Some("Offer"), None));
    let told = got.events.iter().any(
        |e| matches!(&e.what, What::DhcpIgnored { reason } if reason.contains("no loader") && reason.contains("arm64")),
    );
    assert!(told, "{:?}", got.events);
}

#[test]
fn uefi_http_boot_is_answered_with_a_url() {
    let (mut core, ..) = core(host(true), &interface(NetworkRole::Management));
    let got = ask(&mut core, &[DISCOVER, (60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, &[0, 16])]);
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
    guest.pool = Some(LeasePool { range, open: true });
    let (mut core, ..) = core(Client::Unknown, &guest);
    let offer = ask(&mut core, &[DISCOVER]);
    let offered = message(&offer).0.yiaddr();
    assert_eq!((offered, offer.change), (range.first, None));
    let ack = ask(&mut core, &[REQUEST, (54, &US), (50, &offered.octets())]);
    assert_eq!(kind(&ack).as_deref(), Some("Ack"));
    let Some(LeaseChange::Put(lease)) = &ack.change else { panic!("{ack:?}") };
    assert_eq!((lease.address, lease.mac, lease.expires), (offered, MAC, Timestamp(NOW.0 + 3_600_000)));
    let renewed = ask_from(&mut core, offered, &[REQUEST]);
    assert!(matches!(renewed.change, Some(LeaseChange::Put(_))));
    let released = ask_from(&mut core, offered, &[(53, &[7]), (54, &US)]);
    assert!(matches!(released.change, Some(LeaseChange::Remove { .. })) && released.reply.is_none());
    let foreign = ask(&mut core, &[REQUEST, (50, &[192, 168, 0, 7])]);
    assert_eq!(kind(&foreign).as_deref(), Some("Nak"), "an address of another network");
}
