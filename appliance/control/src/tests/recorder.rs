//! What the recorder keeps over a restart, and faults between a host and us that only control sees: an expired boot window, a
//! clock that is years off, a boot that failed.

use super::rack::{Key, Rack, post_enrol};
use super::{open, request, site, until};
use crate::boot::Director;
use crate::control::{Control, Plan};
use crate::known_vms::tests::vm;
use crate::service::Service;
use dayzero_lifecycle::cause::cause;
use dayzero_model::boot::{Arch, BootAction, Client};
use dayzero_model::condition::Condition;
use dayzero_model::datagram::{Datagram, Wire};
use dayzero_model::event::{Ignored, What};
use dayzero_model::facts::{Failure, WindowFacts};
use dayzero_model::ids::{BootId, HostName, MacAddr};
use dayzero_model::site::Reservation;
use dayzero_model::units::{Millis, Timestamp};
use dayzero_model::vm::Vm;
use dayzero_model::wire::{ClockReport, EnrolAnswer};
use dayzero_pxe::{BootDirector, PxeEvent, SeenClient};
use dayzero_trust::Channel;
use rustls::pki_types::{ServerName, UnixTime};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0xde, 0xad, 1]);

/// A site whose hosts nothing is done with: control is open, and not started.
async fn still(dir: &std::path::Path) -> Arc<Control> {
    let rack = Rack::new(&site(1));
    let control = open(dir, &rack);
    control.apply(request(site(1), None), "test").await.unwrap();
    control
}

fn host() -> HostName {
    "host1".parse().unwrap()
}

fn nic(control: &Control) -> MacAddr {
    control.plan().unwrap().site.host(&host()).unwrap().host.bond.nics[0].mac
}

/// Firmware of a machine that is in no plan.
fn unknown(mac: MacAddr) -> SeenClient {
    SeenClient {
        mac,
        network: "mgmt".parse().unwrap(),
        wants_boot: true,
        arch: None,
        uuid: None,
        vendor_class: Some("PXEClient".into()),
        client_id: None,
        duid: None,
        circuit: None,
    }
}

/// A window that was opened, and nothing else.
fn window(boot: BootId, opened: Timestamp) -> WindowFacts {
    WindowFacts::new(dayzero_model::boot::BootWindow { boot, host: host() }, opened)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_clients_count_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let seen = unknown(STRANGER);
    for _ in 0..4 {
        control.note_unknown(&seen);
    }
    let (last, first) = {
        let status = control.status().await.unwrap();
        assert_eq!(status.pending[0].count, 4);
        (status.pending[0].last, status.pending[0].first)
    };
    control.stop().await;
    drop(control);
    let again = open(dir.path(), &Rack::new(&site(1)));
    let status = again.status().await.unwrap();
    let pending = &status.pending[0];
    assert_eq!((pending.count, pending.first, pending.last), (4, first, last));
    let why = again.why(&STRANGER.to_string()).await.unwrap();
    assert!(why.standing.contains("asked 4 time(s)"), "{}", why.standing);

    // Invented MACs drive out others, and no more than so many are in the store.
    for number in 0..50_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        again.note_unknown(&SeenClient { mac: MacAddr([2, 0, 0, a, b, c]), ..seen.clone() });
    }
    again.store_pending().await.unwrap();
    let stored = crate::records::all(&again.store, &crate::records::PENDING).unwrap();
    assert_eq!((stored.len(), stored.contains_key(&STRANGER)), (256, false));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_window_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let long_ago = Timestamp(control.now().0 - 7_200_000);
    let (name, hour) = (host(), Millis(3_600_000));
    let opened = control.enrolment.open_window(&name, Channel::VirtualMedia, long_ago, hour).await.unwrap();
    let nonce = opened.nonce.unwrap().expose().clone();
    let request = Key::new().request(opened.boot, nic(&control), Some(nonce));
    let answer = post_enrol(&control, &request, "10.77.0.11").await;
    assert!(matches!(answer, EnrolAnswer::Refused { .. }), "{answer:?}");
    let why = control.why("host1").await.unwrap();
    let found = why.findings.iter().find(|finding| finding.rule == "nonce-expired").expect("the finding");
    assert_eq!(found.hop, "vouching");
    assert!(found.evidence[0].contains("the boot window is over"), "{found:?}");
    control.stop().await;
}

/// 1980-01-01, as a server with an empty battery says; our certificates are valid from 2000 on.
#[derive(Debug)]
struct Year1980;

const YEAR_1980: u64 = 315_532_800;

impl rustls::time_provider::TimeProvider for Year1980 {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(YEAR_1980)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_clock_is_years_off_is_told_by_its_handshake_and_by_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    // The host speaks from this machine.
    let mut plan = site(1);
    plan.zones[0].pods[0].clusters[0].hosts[0].address = [127, 0, 0, 1].into();
    control.mirror_mut().plan = Some(Plan::new(plan, dayzero_model::Sha256([1; 32])));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let end = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(crate::enrol::serve(control.clone(), port, end.clone()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(control.ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_details(provider, Arc::new(Year1980))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let begun = std::time::Instant::now();
    let stream = loop {
        match tokio::net::TcpStream::connect(port).await {
            Ok(stream) => break stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let refused = connector.connect(name, stream).await.expect_err("the certificate is of a later year");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let look = || control.timeline().of_host(&host(), Timestamp(0));
    let told = |events: &Vec<dayzero_model::event::Event>| {
        events.iter().any(|event| matches!(event.what, What::TlsRefused { clock: true, .. }))
    };
    until("the handshake is recorded", look, told).await;

    // The agent says its time too; only of an open window, and only once a minute.
    let (name, now, minute) = (host(), control.now(), Millis(60_000));
    let opened = control.enrolment.open_window(&name, Channel::VirtualMedia, now, minute).await.unwrap();
    let boot = opened.boot;
    let window = window(boot, now);
    control.step(&host(), move |facts| facts.window = Some(window)).await.unwrap();
    let report = ClockReport { boot, mac: nic(&control), clock: Timestamp(YEAR_1980 * 1000) };
    let other = ClockReport { boot: dayzero_model::BootId(boot.0 ^ 1), ..report.clone() };
    for report in [&other, &report, &report] {
        let body = axum::body::Body::from(serde_json::to_vec(report).unwrap());
        let asked = axum::http::Request::post("/clock").header("content-type", "application/json").body(body);
        let answer = crate::enrol::routes(control.clone()).oneshot(asked.unwrap()).await.unwrap();
        assert_eq!(answer.status(), axum::http::StatusCode::NO_CONTENT);
    }
    let clocks = look().iter().filter(|event| matches!(event.what, What::Clock { .. })).count();
    assert_eq!(clocks, 1);
    let why = control.why("host1").await.unwrap();
    let verdict = &why.findings[0];
    assert_eq!((verdict.rule.as_str(), verdict.evidence.len()), ("clock-off", 2), "{verdict:?}");
    assert!(verdict.sentence.contains("years behind ours"), "{verdict:?}");
    end.cancel();
    serving.await.unwrap().unwrap();
    control.stop().await;
}

/// What a service tells of a boot becomes the window's facts: firmware that asks by DHCP, and a host that is told to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_services_see_of_a_boot_stands_in_its_window() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let (director, mac, boot) = (Director::start(&control), nic(&control), BootId(7));
    let opened = window(boot, control.now());
    control.step(&host(), move |facts| facts.window = Some(opened)).await.unwrap();
    let tell = |boot, what| {
        let event = PxeEvent { mac: Some(mac), host: Some(host()), boot: Some(boot), what };
        director.event(event);
    };
    let asks = |arch: Option<Arch>, class: &str| What::DhcpIn {
        kind: "DISCOVER".into(),
        interface: "mgmt0".into(),
        arch,
        ipxe: false,
        uuid: None,
        vendor_class: Some(class.into()),
    };
    let file = |name: &str, status| What::HttpFile {
        tls: false,
        path: format!("/boot/file/{name}"),
        peer: [10, 77, 0, 11].into(),
        status,
        bytes: 30,
    };
    // Notes are kept in order: once one of these is, those before it are.
    let script = |boot| {
        let action = BootAction::Discovery { boot, cmdline: Vec::new() };
        What::Script { action, peer: [10, 77, 0, 11].into() }
    };
    let look = || control.facts(&host()).unwrap().window.clone().unwrap();

    tell(boot, asks(Some(Arch::UefiX64), "PXEClient"));
    tell(boot, What::TftpEnd { file: "snponly.efi".into(), bytes: 1, ms: 1, error: None });
    until("the loader is noted", look, |window| window.ipxe_served.is_some()).await;
    assert_eq!(look().dhcp_seen, None, "its power was not switched yet: it asked in another boot");

    let now = control.now();
    control.step(&host(), move |facts| facts.window.as_mut().unwrap().powered = Some(now)).await.unwrap();
    tell(boot, asks(None, "udhcp 1.35"));
    tell(BootId(8), asks(Some(Arch::UefiX64), "PXEClient"));
    tell(boot, file("vmlinuz", 404));
    tell(boot, script(boot));
    until("the script is noted", look, |window| window.script_served.is_some()).await;
    assert_eq!(look().dhcp_seen, None, "an operating system's client, and another boot's");
    assert_eq!(look().told_to_wait, None, "a file that is not there");

    tell(boot, asks(Some(Arch::UefiX64), "PXEClient"));
    tell(BootId(8), file("vmlinuz", 503));
    tell(boot, file("vmlinuz", 503));
    until("it was told to wait", look, |window| window.told_to_wait.is_some()).await;
    let (asked, told) = (look().dhcp_seen, look().told_to_wait);
    assert!(asked.is_some(), "{:?}", look());
    assert_eq!(look().kernel_served, None, "it has nothing of it yet");

    // Both again, later: the first question counts, and the last answer.
    until("a millisecond passes", || control.now(), |now| Some(*now) > told).await;
    tell(boot, asks(Some(Arch::UefiX64), "PXEClient"));
    tell(boot, file("initrd.img", 503));
    until("it was told again", look, |window| window.told_to_wait > told).await;
    assert_eq!(look().dhcp_seen, asked);
    tell(boot, file("initrd.img", 200));
    until("its initramfs is noted", look, |window| window.kernel_served.is_some()).await;
    control.stop().await;
}

/// Whoever floods us with invented MACs, or in a host's name, while the store has much to do: what becomes of a host's boot is
/// noted all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_hides_no_host_while_the_store_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let (director, mac, boot) = (Director::start(&control), nic(&control), BootId(7));
    let opened = WindowFacts { powered: Some(control.now()), ..window(boot, control.now()) };
    control.step(&host(), move |facts| facts.window = Some(opened)).await.unwrap();
    let tell = |what| {
        director.event(PxeEvent { mac: Some(mac), host: Some(host()), boot: Some(boot), what });
    };
    let turn = control.turn.lock().await;
    for number in 0..20_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        assert_eq!(director.client(&unknown(MacAddr([2, 0, 0, a, b, c]))), Client::Unknown);
        tell(What::DhcpIn {
            kind: "DISCOVER".into(),
            interface: "mgmt0".into(),
            arch: Some(Arch::UefiX64),
            ipxe: false,
            uuid: None,
            vendor_class: Some("PXEClient".into()),
        });
    }
    let action = BootAction::Discovery { boot, cmdline: Vec::new() };
    tell(What::Script { action, peer: [10, 77, 0, 11].into() });
    drop(turn);
    let look = || control.facts(&host()).unwrap().window.clone().unwrap();
    until("its script is noted", look, |window| window.script_served.is_some()).await;
    assert!(look().dhcp_seen.is_some());
    let stored = |control: &Control| {
        let events = control.timeline().of_host(&host(), Timestamp(0));
        let asks = events.iter().filter(|event| matches!(event.what, What::DhcpIn { .. })).count();
        (asks, events.iter().any(|event| matches!(event.what, What::Script { .. })))
    };
    control.stop().await;
    drop((director, control));
    let again = open(dir.path(), &Rack::new(&site(1)));
    assert_eq!(stored(&again), (10, true));
    again.stop().await;
}

/// Who was pending and has an address by now, as a VM or by a reservation, is no client in no plan, and `why` says who it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_planned_since_is_pending_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let director = Director::start(&control);
    let mac = |last: u8| MacAddr([0x52, 0x54, 0, 0xde, 0xad, last]);
    let asks = |last: u8| SeenClient { duid: Some(vec![0, 3, 0, 1, last]), ..unknown(mac(last)) };
    (1..=4).for_each(|last| assert_eq!(director.client(&asks(last)), Client::Unknown));
    let pending = || {
        let mirror = control.mirror();
        mirror.pending.keys().copied().collect::<Vec<_>>()
    };
    until("they are pending", pending, |macs| macs.len() == 4).await;
    control.store_pending().await.unwrap();

    let mut plan = site(1);
    let mgmt = plan.networks.iter_mut().find(|network| network.name.as_str() == "mgmt").unwrap();
    let pdu = |name: &str, last: u8| Reservation {
        name: name.parse().unwrap(),
        address: [10, 77, 0, last].into(),
        mac: None,
        client_id: None,
        duid: None,
        circuit: None,
    };
    mgmt.reservations = vec![
        Reservation { mac: Some(mac(1)), ..pdu("pdu1", 201) },
        Reservation { duid: Some("0x0003000102".parse().unwrap()), ..pdu("pdu2", 202) },
    ];
    control.mirror_mut().plan = Some(Plan::new(plan, dayzero_model::Sha256([1; 32])));
    control.mirror_mut().vms.put(Vm { mac: mac(3), ..vm("vm1", 3, None) });
    assert!(matches!(director.client(&asks(2)), Client::Fixed { .. }));

    let status = control.status().await.unwrap();
    assert_eq!(status.pending.iter().map(|client| client.mac).collect::<Vec<_>>(), [mac(4)]);
    for (last, who) in [
        (1, "is pdu1, with 10.77.0.201 reserved on network mgmt"),
        (3, "is VM vm1 of cluster kvm1, with no address yet"),
        (4, "is not in the plan; it asked 1 time(s)"),
    ] {
        let why = control.why(&mac(last).to_string()).await.unwrap();
        assert!(why.standing.contains(who), "{}", why.standing);
    }
    control.store_pending().await.unwrap();
    let stored = crate::records::all(&control.store, &crate::records::PENDING).unwrap();
    assert!(stored.contains_key(&mac(4)) && !stored.contains_key(&mac(2)), "{stored:?}");
    control.stop().await;
}

/// Datagrams that get no answer come to memory all, to the store within limits: one client's, all strangers', and a host's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_to_the_store_without_limit() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let director = Director::start(&control);
    let tell = |mac, host| {
        let what = What::DhcpIgnored { reason: "not in the plan".into(), why: Ignored::Pending };
        director.event(PxeEvent { mac: Some(mac), host, boot: None, what });
    };
    let stranger = |n: u8| MacAddr([2, 0, 0, 0, 0, n]);
    for _ in 0..50 {
        tell(STRANGER, None);
    }
    (0..=249).for_each(|n| tell(stranger(n), None));
    for _ in 0..300 {
        tell(nic(&control), Some(host()));
    }
    let counted = |control: &Control| {
        let timeline = control.timeline();
        let ignored = |events: Vec<dayzero_model::event::Event>| {
            events.iter().filter(|event| matches!(event.what, What::DhcpIgnored { .. })).count()
        };
        let of = |mac| ignored(timeline.of_mac(mac, Timestamp(0)));
        let others: usize = (0..=249).map(|n| of(stranger(n))).sum();
        (of(STRANGER), others, ignored(timeline.of_host(&host(), Timestamp(0))))
    };
    assert_eq!(counted(&control), (50, 250, 300), "in memory");
    control.stop().await;
    drop((director, control));
    let again = open(dir.path(), &Rack::new(&site(1)));
    assert_eq!(counted(&again), (10, 190, 10), "in the store");
    again.stop().await;
}

/// A BMC's ACK that could not leave gave it no address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_whose_ack_could_not_leave_has_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let director = Director::start(&control);
    let mac = control.plan().unwrap().site.host(&host()).unwrap().host.bmc.mac;
    let tell = |what| {
        director.event(PxeEvent { mac: Some(mac), host: Some(host()), boot: None, what });
    };
    let (kind, to, error) = (Cow::from("ACK"), [10, 77, 9, 11].into(), "Network is unreachable".to_owned());
    let lease = || control.facts(&host()).unwrap().bmc_lease;
    let sent = What::DhcpOut { kind: kind.clone(), address: Some([10, 77, 9, 11].into()), file: None };
    tell(sent.clone());
    until("its lease is noted", lease, Option::is_some).await;
    tell(What::DhcpUnsent { kind, to, error });
    until("it has none", lease, Option::is_none).await;
    tell(sent);
    until("the next one left", lease, Option::is_some).await;
    control.stop().await;
}

/// Long before the host's time is over, who asks why it is silent is told what its BMC says of its links at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_why_a_host_is_silent_is_told_what_its_bmc_sees() {
    let dir = tempfile::tempdir().unwrap();
    let (rack, name) = (Rack::new(&site(1)), host());
    let control = open(dir.path(), &rack);
    control.apply(request(site(1), None), "test").await.unwrap();
    let mac = nic(&control);
    rack.with(&name, |machine| machine.links = vec![(mac, false), (STRANGER, true)]);
    let told = || {
        let events = control.timeline().of_host(&name, Timestamp(0));
        events.iter().filter(|event| matches!(event.what, What::Link { .. })).count()
    };
    let powered = |ago: u64| {
        let at = Timestamp(control.now().0 - ago * 1000);
        let opened = WindowFacts { powered: Some(at), ..window(BootId(7), at) };
        control.step(&name, move |facts| facts.window = Some(opened))
    };
    powered(60).await.unwrap();
    control.why("host1").await.unwrap();
    assert_eq!(told(), 0, "a usual POST is not over");

    powered(180).await.unwrap();
    // The NIC of another network has a link.
    for subject in ["host1".to_owned(), mac.to_string()] {
        let why = control.why(&subject).await.unwrap();
        assert_eq!((why.findings[0].rule.as_str(), told()), ("no-link", 1), "{subject}: {:?}", why.findings);
    }

    let asked = control.now();
    control.step(&host(), move |facts| facts.window.as_mut().unwrap().dhcp_seen = Some(asked)).await.unwrap();
    rack.with(&name, |machine| machine.links = vec![(mac, true)]);
    control.why("host1").await.unwrap();
    assert_eq!(told(), 1, "it has asked: its link is no question");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_boots_datagrams_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let control = still(dir.path()).await;
    let mac = nic(&control);
    assert!(control.pcap("host1").await.is_err(), "nothing yet");
    let director = Director::start(&control);
    let wire = Wire::Udp { from: "0.0.0.0:68".parse().unwrap(), to: "255.255.255.255:67".parse().unwrap() };
    let bytes = b"a datagram of a boot that failed";
    let datagram = Datagram {
        at: 1,
        interface: "mgmt0",
        mac: Some(mac),
        of_host: true,
        sent: false,
        wire,
        bytes,
        length: bytes.len(),
    };
    director.datagram(&datagram);
    director.datagram(&Datagram { mac: Some(STRANGER), ..datagram });
    let at = control.now();
    let cause = cause("bmc-unreachable", "its BMC is silent", "an answer", "none", "look");
    let failure = Failure { condition: Condition::Found, cause, at };
    control.step(&host(), move |facts| facts.failure = Some(failure)).await.unwrap();
    // Its task is one of control's, and those end before control does.
    control.stop().await;
    drop((control, director));
    let again = open(dir.path(), &Rack::new(&site(1)));
    for subject in ["host1".to_owned(), mac.to_string()] {
        let file = again.pcap(&subject).await.unwrap();
        assert!(file.windows(bytes.len()).any(|part| part == bytes), "{subject}");
        let cause = b"bmc-unreachable";
        assert!(file.windows(cause.len()).any(|part| part == cause), "{subject}: the section says why");
    }
    let error = again.pcap(&STRANGER.to_string()).await.unwrap_err();
    assert!(error.is_askers_fault() && error.to_string().contains("no datagram"), "{error}");
    again.stop().await;
}
