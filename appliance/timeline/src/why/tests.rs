//! Each rule finds its fault, and a healthy boot has none.

use super::*;
use dayzero_model::boot::{Arch, BootAction, BootWindow};
use dayzero_model::condition::{Cause, Condition, ConditionRecord, State};
use dayzero_model::event::{Ignored, TftpFault};
use dayzero_model::facts::{RefusedKey, VouchFacts, WindowFacts};
use dayzero_model::ids::{BootId, MacAddr, Sha256};

const NOW: u64 = 1_000_000;

fn events(list: Vec<(u64, What)>) -> Vec<Event> {
    let mac = Some(MacAddr([0x52, 0x54, 0, 0x77, 1, 1]));
    let event =
        |(at, what)| Event { at: Timestamp(at), host: Some("host1".parse().unwrap()), mac, boot: None, what };
    list.into_iter().map(event).collect()
}

fn context() -> WhyContext<'static> {
    WhyContext { now: Timestamp(NOW), conditions: None, facts: None, lacp: true }
}

fn dhcp(kind: &'static str) -> What {
    let (interface, arch) = ("mgmt0".to_owned(), Some(Arch::UefiX64));
    What::DhcpIn { kind: kind.into(), interface, arch, ipxe: false, uuid: None, vendor_class: None }
}

fn script() -> What {
    let peer = "10.77.0.11".parse().unwrap();
    What::Script { action: BootAction::Discovery { boot: BootId(1), cmdline: vec![] }, peer }
}

fn file(status: u16) -> What {
    let peer = "10.77.0.11".parse().unwrap();
    What::HttpFile { path: "/boot/file/x".into(), peer, status, bytes: 1, tls: false }
}

fn tftp(fault: TftpFault, after_block: u64) -> What {
    let (file, message) = (LOADER.to_owned(), "no such file".to_owned());
    What::TftpBroken { file, fault, after_block, bytes: after_block * 1468, block: 1468, message }
}

fn fetched() -> What {
    What::TftpEnd { file: LOADER.into(), bytes: 900, ms: 1, error: None }
}

fn told(kind: &'static str, file: &str) -> What {
    let address = Some("10.77.0.11".parse().unwrap());
    What::DhcpOut { kind: kind.into(), address, file: Some(file.to_owned()) }
}

fn ignored(why: Ignored) -> What {
    What::DhcpIgnored { reason: "as it says".into(), why }
}

fn unsent(kind: &'static str) -> What {
    let error = "Network is unreachable (os error 101)".to_owned();
    What::DhcpUnsent { kind: kind.into(), to: "10.88.0.1".parse().unwrap(), error }
}

fn ipxe(kind: &'static str) -> What {
    match dhcp(kind) {
        What::DhcpIn { kind, interface, arch, uuid, vendor_class, .. } => {
            What::DhcpIn { kind, interface, arch, ipxe: true, uuid, vendor_class }
        }
        other => other,
    }
}

fn enrol(granted: bool, reason: &str) -> What {
    let peer = "10.77.0.11".parse().unwrap();
    What::Enrol { granted, key: Sha256([1; 32]), reason: reason.into(), peer }
}

fn broken() -> What {
    let peer = "10.77.0.11".parse().unwrap();
    let (path, error) = ("/boot/file/initrd.img".to_owned(), "timed out".to_owned());
    What::HttpBroken { path, peer, bytes: 10, length: 100, error }
}

const LOADER: &str = "snponly.efi";
const SCRIPT: &str = "http://10.77.0.2:8080/boot/script?mac=52:54:00:77:01:01";

/// A boot by PXE, from the first question to the agent.
fn healthy() -> Vec<What> {
    vec![
        dhcp("DISCOVER"),
        told("OFFER", LOADER),
        dhcp("REQUEST"),
        told("ACK", LOADER),
        What::TftpStart { file: LOADER.into() },
        fetched(),
        ipxe("DISCOVER"),
        told("OFFER", SCRIPT),
        ipxe("REQUEST"),
        told("ACK", SCRIPT),
        script(),
        file(200),
        file(200),
        enrol(true, "vouched"),
        What::Agent { message: "connected".into() },
    ]
}

fn rules_of(list: &[What], context: &WhyContext<'_>) -> Vec<(&'static str, Hop)> {
    let list = list.iter().enumerate().map(|(at, what)| (at as u64 + 1, what.clone())).collect();
    why(&events(list), context).into_iter().map(|finding| (finding.rule, finding.hop)).collect()
}

/// Where a boot that ends is said to have ended, at each of its steps.
#[test]
fn a_boot_that_ends_is_told_at_its_hop() {
    let boot = healthy();
    let verdict = |steps: usize| rules_of(&boot[..steps], &context());
    assert_eq!(verdict(boot.len()), [], "a healthy boot has none");
    for (steps, rule, hop) in [
        (2, "no-request-after-offer", Hop::Dhcp),
        (4, "loader-not-asked", Hop::Loader),
        (6, "loader-not-started", Hop::Firmware),
        (8, "no-request-after-offer", Hop::Dhcp),
        (10, "script-not-asked", Hop::Script),
        (11, "kernel-not-fetched", Hop::Kernel),
        (12, "kernel-not-fetched", Hop::Kernel),
        (13, "agent-silent", Hop::Agent),
    ] {
        assert_eq!(verdict(steps), [(rule, hop)], "after {steps} steps");
    }
    // The same, a moment after the last step: it is under way.
    let fresh = WhyContext { now: Timestamp(100), ..context() };
    for steps in 1..boot.len() {
        assert_eq!(rules_of(&boot[..steps], &fresh), [], "after {steps} steps, just now");
    }
}

/// shim lies in a directory, and fetches what it starts: that is its sign of life.
#[test]
fn a_loader_in_a_directory_is_known_by_its_name() {
    let transfer = |file: &str| {
        let file = || file.to_owned();
        [What::TftpStart { file: file() }, What::TftpEnd { file: file(), bytes: 900, ms: 1, error: None }]
    };
    let (shim, grub) = ("shim/shimx64.efi", "shim/grubx64.efi");
    let mut boot = vec![dhcp("DISCOVER"), told("OFFER", shim), dhcp("REQUEST"), told("ACK", shim)];
    let not_started =
        |boot: &[What]| rules_of(boot, &context()).contains(&("loader-not-started", Hop::Firmware));
    boot.extend(transfer(shim));
    assert!(not_started(&boot));
    boot.extend(transfer(grub));
    assert!(!not_started(&boot));
}

/// Who is told to come later waits for that long, and perhaps again: its boot is under way.
#[test]
fn a_host_that_waits_as_it_was_told_has_not_failed() {
    let mut boot: Vec<_> =
        healthy().into_iter().take(11).enumerate().map(|(at, what)| (at as u64, what)).collect();
    let (told, overdue) = (100_000, PATIENCE.0 * 2);
    boot.push((told, file(503)));
    let found = |now: u64| {
        let context = WhyContext { now: Timestamp(now), ..context() };
        why(&events(boot.clone()), &context).into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    assert!(found(told + overdue - 1).is_empty());
    assert_eq!(found(told + overdue + 1), ["kernel-not-fetched"]);
}

/// A key that came too late may have been the host's own; one that was vouched for is.
#[test]
fn a_key_that_came_late_is_no_clone_until_another_is_vouched_for() {
    let refused = |n: u8, reason: &str| RefusedKey {
        key: Sha256([n; 32]),
        reason: reason.into(),
        peer: "10.77.0.11".into(),
        at: Timestamp(5),
    };
    let late = "the nonce is not the one on this host's virtual medium";
    let vouch = |n: u8| {
        let (key, certificate) = (Sha256([n; 32]), Sha256([9; 32]));
        VouchFacts { boot: BootId(1), key, certificate, channel: "virtual media".into(), at: Timestamp(6) }
    };
    for (vouched, reason, clones) in [
        (None, late, 0),
        (None, "no nonce was given, but this host's virtual medium carries one", 1),
        (Some(vouch(2)), late, 1),
        (Some(vouch(1)), late, 0),
    ] {
        let facts = HostFacts {
            vouch: vouched.clone(),
            refused_keys: vec![refused(1, reason)],
            ..HostFacts::default()
        };
        let full = WhyContext { facts: Some(&facts), ..context() };
        let found = why(&[], &full).iter().filter(|finding| finding.rule == "clone-refused").count();
        assert_eq!((super::clones(&facts).len(), found), (clones, clones), "{vouched:?} {reason}");
    }
}

/// Each fault after so many steps of a healthy boot: found by its rule alone, and forgotten once the boot went on.
#[test]
fn each_fault_is_found_by_its_rule_and_forgotten_once_the_boot_went_on() {
    let peer = "10.77.0.11".parse().unwrap();
    let address = "10.77.0.11".parse().unwrap();
    let clock =
        What::TlsRefused { peer, listener: "enrolment".into(), reason: "expired".into(), clock: true };
    let late = What::Clock { whose: "the agent".into(), ahead: -600_000_000 };
    let wrong = What::WrongLoader { file: LOADER.into(), arch: Arch::UefiX64, made_for: "UEFI arm64".into() };
    let gone = What::HttpFile { path: "/boot/file/vmlinuz".into(), peer, status: 404, bytes: 0, tls: false };
    let by = MacAddr([2; 6]);
    let six = Ignored::OtherServer6 { duid: "00:03:00:01:02:02:02:02:02:02".into(), mac: Some(by) };
    for (steps, fault, rule, hop, says) in [
        (1, ignored(Ignored::Pending), "dhcp-not-answered", Hop::Dhcp, "as it says"),
        (1, ignored(Ignored::PoolUsedUp), "pool-used-up", Hop::Dhcp, "no address left"),
        (1, ignored(Ignored::UnknownRelay { relay: peer }), "unknown-relay", Hop::Dhcp, "10.77.0.11"),
        (1, ignored(Ignored::WrongNetwork), "wrong-network", Hop::Dhcp, "not planned on"),
        (1, ignored(Ignored::NoPool), "no-pool", Hop::Dhcp, "as it says"),
        (1, ignored(Ignored::NotStored), "lease-not-stored", Hop::Dhcp, "store"),
        (4, ignored(Ignored::NoLoader { arch: None }), "no-loader", Hop::Dhcp, "architecture"),
        (4, ignored(Ignored::NothingSigned), "nothing-signed", Hop::Dhcp, "Secure Boot"),
        (4, ignored(Ignored::OtherMachine), "other-machine", Hop::Dhcp, "another UUID"),
        (4, ignored(Ignored::InUse { address, by }), "address-in-use", Hop::Arp, "02:02:02:02:02:02"),
        (4, ignored(Ignored::Declined { address: peer }), "declined", Hop::Arp, "declined 10.77.0.11"),
        (2, ignored(Ignored::OtherServer { address }), "other-dhcp-server", Hop::Dhcp, "10.77.0.11"),
        (
            2,
            ignored(six),
            "other-dhcp-server",
            Hop::Dhcp,
            "DHCPv6 server that is not ours, of MAC 02:02:02:02:02:02",
        ),
        (1, ignored(Ignored::Malformed), "malformed-dhcp", Hop::Dhcp, "1 time(s) or more: as it says"),
        (3, ignored(Ignored::Malformed), "malformed-dhcp", Hop::Dhcp, "asked by DHCP"),
        (2, unsent("OFFER"), "answer-not-sent", Hop::Dhcp, "our OFFER to 52:54:00:77:01:01 could not leave"),
        (4, unsent("ACK"), "answer-not-sent", Hop::Dhcp, "Network is unreachable"),
        (5, tftp(TftpFault::Silent, 0), "tftp-stopped", Hop::Loader, "first block of 1468"),
        (5, tftp(TftpFault::Silent, 7), "tftp-stopped", Hop::Loader, "after block 7"),
        (5, tftp(TftpFault::Aborted { code: 0 }, 3), "tftp-stopped", Hop::Loader, "gave up after block 3"),
        (5, tftp(TftpFault::PortClosed, 3), "tftp-stopped", Hop::Loader, "port was closed"),
        (4, tftp(TftpFault::Refused { code: 1 }, 0), "tftp-stopped", Hop::Loader, "no such file"),
        (4, tftp(TftpFault::Busy, 0), "tftp-stopped", Hop::Loader, "too many"),
        (6, wrong, "wrong-architecture", Hop::Firmware, "made for UEFI arm64"),
        (11, gone, "http-refused", Hop::Kernel, "404"),
        (12, broken(), "http-stalled", Hop::Kernel, "10 of 100 bytes"),
        (13, clock, "clock-off", Hop::Vouching, "not valid at its time"),
        (13, late, "clock-off", Hop::Vouching, "19.0 years behind"),
        (13, enrol(false, "the boot window is over"), "nonce-expired", Hop::Vouching, "nonce"),
    ] {
        let boot = healthy();
        let mut list = boot[..steps].to_vec();
        list.push(fault.clone());
        let numbered =
            |list: &[What]| list.iter().enumerate().map(|(at, what)| (at as u64 + 1, what.clone())).collect();
        let found = why(&events(numbered(&list)), &context());
        let Some(verdict) = found.first() else { panic!("{fault:?} is not found") };
        assert_eq!((verdict.rule, verdict.hop), (rule, hop), "{fault:?}: {found:#?}");
        assert!(verdict.sentence.contains(says), "{}", verdict.sentence);
        assert!(!verdict.evidence.is_empty() && verdict.next_action.len() > 20, "{verdict:?}");
        list.extend(healthy());
        let after = why(&events(numbered(&list)), &context());
        assert!(after.is_empty(), "{fault:?} is told although the next boot succeeded: {after:#?}");
    }
}

/// Its client had nothing to take, or to fetch.
#[test]
fn an_answer_that_could_not_leave_is_held_against_nobody_else() {
    let boot = healthy();
    for (steps, kind, blamed) in [
        (2, "OFFER", "no-request-after-offer"),
        (4, "ACK", "loader-not-asked"),
        (10, "ACK", "script-not-asked"),
    ] {
        let mut list = boot[..steps].to_vec();
        assert_eq!(rules_of(&list, &context()), [(blamed, rules_of(&list, &context())[0].1)]);
        list.push(unsent(kind));
        assert_eq!(rules_of(&list, &context()), [("answer-not-sent", Hop::Dhcp)], "{kind} of {steps} steps");
        // The next one left.
        list.extend_from_slice(&boot[steps - 2..steps]);
        assert_eq!(rules_of(&list, &context())[0].0, blamed, "{kind} of {steps} steps, again");
    }
    let mut other = events(vec![(1, dhcp("DISCOVER")), (2, told("OFFER", LOADER)), (3, unsent("OFFER"))]);
    other[2].mac = Some(MacAddr([2; 6]));
    let rules: Vec<_> = why(&other, &context()).into_iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["answer-not-sent", "no-request-after-offer"], "another client's is no excuse");
}

#[test]
fn an_offer_by_ipv6_that_nobody_takes_is_told_too() {
    let six = "tftp://[fd77::a4d:2]/snponly.efi";
    let boot = [dhcp("SOLICIT"), told("ADVERTISE", six), dhcp("REQUEST6"), told("REPLY", six)];
    let none = ("no-request-after-offer", Hop::Dhcp);
    assert_eq!(rules_of(&boot[..2], &context()), [none]);
    let found = why(&events(vec![(1, boot[0].clone()), (2, boot[1].clone())]), &context()).remove(0);
    assert!(found.sentence.contains("DHCPv6") && found.evidence[0] == "1 SOLICIT(s) in", "{found:?}");
    assert!(found.next_action.contains("DHCPv6 guard"), "{found:?}");
    assert_eq!(rules_of(&boot[..3], &context()), [], "it asks us");
    assert_eq!(rules_of(&boot[..4], &context()), [("loader-not-asked", Hop::Loader)]);
    let fresh = WhyContext { now: Timestamp(100), ..context() };
    assert_eq!(rules_of(&boot[..2], &fresh), []);
    // By rapid commit there is no REQUEST; and who then asks by IPv4 goes on by that.
    assert_eq!(
        rules_of(&[boot[0].clone(), boot[3].clone()], &context()),
        [("loader-not-asked", Hop::Loader)]
    );
    let both = [&boot[..2], &healthy()[..3]].concat();
    assert_eq!(rules_of(&both, &context()), []);
    let silent = What::DhcpOut { kind: "REPLY".into(), address: None, file: None };
    let informed = [&boot[..2], &[dhcp("INFORMATION-REQUEST"), silent]].concat();
    assert_eq!(rules_of(&informed, &context()), [none], "that gave it no address");
}

#[test]
fn who_does_not_answer_arp_is_named_before_what_follows_from_it() {
    let mut list = healthy()[..5].to_vec();
    list.push(What::ArpSilent { address: "10.77.0.11".parse().unwrap() });
    list.push(tftp(TftpFault::Silent, 0));
    let rules = rules_of(&list, &context());
    assert_eq!(rules, [("arp-silent", Hop::Arp), ("tftp-stopped", Hop::Loader)]);
    list.extend(healthy());
    assert_eq!(rules_of(&list, &context()), []);
}

#[test]
fn secure_boot_is_named_only_where_it_matters() {
    use dayzero_model::facts::{BmcFacts, SecureBootFacts};
    let facts = |enforced| HostFacts {
        bmc: Some(BmcFacts {
            address: "10.77.9.11".parse().unwrap(),
            protocol: dayzero_model::site::BmcProtocol::Redfish,
            certificate: None,
            manufacturer: None,
            model: None,
            serial: None,
            board_serial: None,
            uuid: None,
            bmc_mac: None,
            nic_macs: vec![],
            power_on: true,
            https_boot: None,
            secure_boot: Some(SecureBootFacts { enforced, site_key: None }),
            at: Timestamp(1),
        }),
        ..HostFacts::default()
    };
    let got = |file: &str| What::TftpEnd { file: file.into(), bytes: 9, ms: 1, error: None };
    let (on, off) = (facts(true), facts(false));
    let ipxe = What::DhcpIn {
        kind: "DISCOVER".into(),
        interface: "mgmt0".into(),
        arch: Some(Arch::UefiX64),
        ipxe: true,
        uuid: None,
        vendor_class: None,
    };
    let rows: Vec<(&str, Option<&HostFacts>, Vec<What>, bool)> = vec![
        ("iPXE, enforced", Some(&on), vec![got("snponly.efi")], true),
        ("iPXE, enforced, firmware asks again", Some(&on), vec![got("snponly.efi"), dhcp("DISCOVER")], true),
        ("iPXE, not enforced", Some(&off), vec![got("snponly.efi")], false),
        ("iPXE, nothing told", None, vec![got("snponly.efi")], false),
        ("iPXE started", Some(&on), vec![got("snponly.efi"), ipxe], false),
        ("UKI", None, vec![got("uki.efi"), dhcp("DISCOVER")], true),
        ("UKI, its agent asked", Some(&on), vec![got("uki.efi"), script()], false),
        ("shim went on", Some(&on), vec![got("shim/shimx64.efi"), got("shim/grubx64.efi"), file(200)], false),
        ("GRUB refused by shim", Some(&on), vec![got("shim/shimx64.efi"), got("shim/grubx64.efi")], true),
        ("no loader", Some(&on), vec![got("grub/grub.cfg")], false),
    ];
    for (name, facts, list, want) in rows {
        let list = list.into_iter().enumerate().map(|(i, what)| (i as u64 + 1, what)).collect();
        let found = why(&events(list), &WhyContext { facts, ..context() });
        let found: Vec<_> = found.iter().filter(|f| f.rule == "secure-boot-refused").collect();
        assert_eq!(!found.is_empty(), want, "{name}: {found:?}");
    }
    let young = events(vec![(NOW - 30_000, got("uki.efi"))]);
    assert!(why(&young, &context()).iter().all(|f| f.rule != "secure-boot-refused"), "it may still start");
    let refused = why(&events(vec![(1, got("uki.efi")), (2, dhcp("DISCOVER"))]), &context());
    let refused = refused.into_iter().find(|f| f.rule == "secure-boot-refused").unwrap();
    insta::assert_snapshot!(format!(
        "{}\n{}\n-> {}",
        refused.sentence,
        refused.evidence.join("\n"),
        refused.next_action
    ));
}

#[test]
fn a_loader_that_comes_again_and_again_is_a_loop() {
    let round = healthy()[..6].to_vec();
    let mut list = Vec::new();
    for times in 1..=4 {
        list.extend(round.clone());
        let rules: Vec<_> =
            rules_of(&list, &WhyContext { now: Timestamp(500), ..context() }).into_iter().collect();
        assert_eq!(rules.iter().any(|(rule, _)| *rule == "ipxe-loop"), times >= 3, "{times}: {rules:?}");
    }
    let old = rules_of(&list, &context());
    assert_ne!(old[0].0, "ipxe-loop", "{old:?}");
    list.extend(healthy());
    assert_eq!(rules_of(&list, &WhyContext { now: Timestamp(500), ..context() }), []);

    // Who is told its script each time, and starts again because it cannot get it, is in no loop of loaders.
    let reset: Vec<What> = (0..4).flat_map(|_| healthy()[..10].to_vec()).collect();
    assert_eq!(rules_of(&reset, &context()), [("script-not-asked", Hop::Script)]);
}

#[test]
fn firmware_that_boots_from_the_network_first_is_told_when_no_window_is_open() {
    let peer = "10.77.0.11".parse().unwrap();
    let sent_on = What::Script { action: BootAction::LocalDisk, peer };
    let facts = HostFacts::default();
    let host = WhyContext { facts: Some(&facts), ..context() };
    let rules = |list: &[(u64, &What)], context: &WhyContext<'_>| {
        let list = list.iter().map(|(at, what)| (*at, (*what).clone())).collect();
        why(&events(list), context).into_iter().map(|found| (found.rule, found.hop)).collect::<Vec<_>>()
    };
    let first = [("network-first", Hop::After)];
    assert_eq!(rules(&[(1, &sent_on)], &host), []);
    assert_eq!(rules(&[(1, &sent_on), (70_001, &sent_on)], &host), first);
    assert_eq!(rules(&[(1, &sent_on), (70_001, &sent_on)], &context()), [], "of a host alone");
    let open = HostFacts { window: Some(window()), ..HostFacts::default() };
    let opened = WhyContext { facts: Some(&open), now: Timestamp(3), ..context() };
    assert_eq!(rules(&[(1, &sent_on), (70_001, &sent_on)], &opened), []);

    // Under Secure Boot it is given no file, and asks more than once in a boot; its offer is not one that nobody took.
    let bare = ignored(Ignored::NoWindow);
    let (ask, offer) = (
        dhcp("DISCOVER"),
        What::DhcpOut { kind: "OFFER".into(), address: "10.77.0.11".parse().ok(), file: None },
    );
    let one = [(1, &ask), (1, &bare), (2, &offer), (4_001, &ask), (4_001, &bare), (4_002, &offer)];
    assert_eq!(rules(&one, &host), []);
    // As OVMF does: by PXE, then by HTTP.
    let long: Vec<_> = [1, 4_001, 12_001, 28_001, 60_001, 72_001, 88_001].map(|at| (at, &bare)).into();
    assert_eq!(rules(&long, &host), [], "a minute and a half of one boot");
    let two = [&one[..], &[(90_001, &ask), (90_001, &bare), (90_002, &offer)]].concat();
    assert_eq!(rules(&two, &host), first);
    let script = script();
    let begun = [&two[..], &[(95_001, &script)]].concat();
    assert_eq!(rules(&begun, &WhyContext { now: Timestamp(95_002), ..host }), [], "a boot was open since");
    let list = [(1, &ask), (1, &ignored(Ignored::NothingSigned)), (2, &offer)];
    assert_eq!(rules(&list, &host), [("nothing-signed", Hop::Dhcp)]);
    let closed = [&list[..], &[(90_001, &bare)]].concat();
    assert_eq!(rules(&closed, &host), [], "no boot is to be any more");
}

/// Firmware tries a bond's NICs one after the other.
#[test]
fn two_nics_of_one_boot_are_no_two_boots() {
    let peer = "10.77.0.11".parse().unwrap();
    let facts = HostFacts::default();
    let host = WhyContext { facts: Some(&facts), ..context() };
    let sent_on = What::Script { action: BootAction::LocalDisk, peer };
    let mut list = events(vec![(1, sent_on.clone()), (70_001, sent_on)]);
    list[1].mac = Some(MacAddr([0x52, 0x54, 0, 0x77, 1, 2]));
    assert_eq!(why(&list, &host), []);
    list[1].mac = list[0].mac;
    assert_eq!(why(&list, &host)[0].rule, "network-first");
}

/// Another server gives the address, and its ACK is its client's alone: what we offered beside it, and the REQUEST, are seen.
#[test]
fn beside_another_server_a_client_that_does_not_come_is_told_too() {
    let offer = |file: &str| What::DhcpOut { kind: "OFFER".into(), address: None, file: Some(file.into()) };
    let boot = [
        dhcp("DISCOVER"),
        offer(LOADER),
        dhcp("REQUEST"),
        What::TftpStart { file: LOADER.into() },
        fetched(),
        ipxe("DISCOVER"),
        offer(SCRIPT),
        ipxe("REQUEST"),
        script(),
        file(200),
        file(200),
        What::Agent { message: "connected".into() },
    ];
    let verdict = |steps: usize| rules_of(&boot[..steps], &context());
    for (steps, rule) in [
        (2, None),
        (3, Some(("loader-not-asked", Hop::Loader))),
        (5, Some(("loader-not-started", Hop::Firmware))),
        (7, None),
        (8, Some(("script-not-asked", Hop::Script))),
        (9, Some(("kernel-not-fetched", Hop::Kernel))),
        (boot.len(), None),
    ] {
        assert_eq!(verdict(steps), Vec::from_iter(rule), "after {steps} steps");
    }
    let six = [dhcp("REQUEST"), told("REPLY", "tftp://[fd77::a4d:2]/snponly.efi")];
    assert_eq!(rules_of(&six, &context()), [("loader-not-asked", Hop::Loader)], "by IPv6");
}

/// Firmware that ignores proxyDHCP takes the other server's address and nothing of ours: the file is to be told by that server.
#[test]
fn who_ignores_our_offer_beside_another_servers_is_sent_to_that_server() {
    let action = |list: &[What]| {
        let list = list.iter().enumerate().map(|(at, what)| (at as u64 + 1, what.clone())).collect();
        let finding = why(&events(list), &context()).remove(0);
        assert_eq!(finding.rule, "loader-not-asked");
        (finding.sentence, finding.next_action.into_owned())
    };
    let offer = |file: &str| What::DhcpOut { kind: "OFFER".into(), address: None, file: Some(file.into()) };
    let (sentence, next) = action(&[dhcp("DISCOVER"), offer(LOADER), dhcp("REQUEST")]);
    assert!(sentence.contains("another server") && sentence.contains(LOADER), "{sentence}");
    for part in ["proxyDHCP", "next-server", "snponly.efi as boot file", "`dhcp: serve`", "UDP 4011"] {
        assert!(next.contains(part), "{part}: {next}");
    }
    let url = "http://10.77.0.2:8080/boot/file/snponly.efi";
    let (_, next) = action(&[dhcp("DISCOVER"), offer(url), dhcp("REQUEST")]);
    assert!(next.contains(url) && next.contains("HTTPClient") && !next.contains("next-server"), "{next}");
    // Ours gave the address: nobody else is to be set. The boot server's ACK on port 4011 went to one that heeds it.
    let heeded = What::DhcpOut { kind: "ACK".into(), address: None, file: Some(LOADER.into()) };
    for heeded in [told("ACK", LOADER), heeded] {
        let (_, next) = action(&[dhcp("DISCOVER"), offer(LOADER), dhcp("REQUEST"), heeded]);
        assert!(next.starts_with("look for a filter of UDP 69") && !next.contains("proxyDHCP"), "{next}");
    }
}

/// Our script asks for itself again every few seconds, so that nothing is ever overdue.
#[test]
fn an_ipxe_that_goes_in_circles_is_told_while_it_does() {
    let rules = |times: usize, with: &[What]| {
        let mut list = healthy()[..10].to_vec();
        for _ in 0..times {
            list.push(script());
            list.extend_from_slice(with);
        }
        rules_of(&list, &WhyContext { now: Timestamp(100), ..context() })
    };
    let told = [("kernel-not-fetched", Hop::Kernel)];
    for with in [&[][..], &[file(200)], &[file(200), file(200)]] {
        assert_eq!(rules(2, with), [], "{with:?}");
        assert_eq!(rules(3, with), told, "{with:?}");
    }
    assert_eq!(rules(3, &[file(503)]), [], "it was told to wait");
    let gone = What::HttpFile {
        path: "/boot/file/vmlinuz".into(),
        peer: "10.77.0.11".parse().unwrap(),
        status: 404,
        bytes: 0,
        tls: false,
    };
    assert_eq!(rules(3, &[gone]), [("http-refused", Hop::Kernel)]);
}

/// An offer needs no store, and a client that is refused its lease asks anew.
#[test]
fn what_an_answer_says_of_an_earlier_fault() {
    let (there, here): (std::net::Ipv4Addr, _) = ("10.77.0.50".parse().unwrap(), "10.77.0.51".parse().ok());
    let out = |kind: &'static str, address| What::DhcpOut { kind: kind.into(), address, file: None };
    let by = MacAddr([2; 6]);
    for (fault, later, rule) in [
        (Ignored::NotStored, out("OFFER", here), Some("lease-not-stored")),
        (Ignored::NotStored, out("ACK", here), None),
        (Ignored::PoolUsedUp, out("OFFER", here), None),
        (Ignored::InUse { address: there, by }, out("ACK", Some(there)), Some("address-in-use")),
        (Ignored::InUse { address: there, by }, out("OFFER", here), Some("address-in-use")),
        (Ignored::InUse { address: there, by }, out("ACK", here), None),
        (Ignored::Declined { address: there.into() }, out("ACK", Some(there)), Some("declined")),
        (Ignored::Declined { address: there.into() }, out("ACK", here), None),
    ] {
        // It asks only for an address, and just now.
        let list = [ignored(fault.clone()), later.clone()];
        let found = rules_of(&list, &WhyContext { now: Timestamp(100), ..context() });
        assert_eq!(found.first().map(|(rule, _)| *rule), rule, "{fault:?}, then {later:?}");
    }
}

#[test]
fn a_silent_host_is_told_by_what_its_bmc_says_of_the_links() {
    let facts = HostFacts { window: Some(window()), ..HostFacts::default() };
    let link = |nic: u8, up| What::Link { nic: MacAddr([2, 0, 0, 0, 0, nic]), up, told_by: "the BMC".into() };
    for (lacp, links, rule) in [
        (true, vec![], "lacp-without-fallback"),
        (true, vec![link(1, true), link(2, false)], "lacp-without-fallback"),
        (true, vec![link(1, false), link(2, false)], "no-link"),
        (true, vec![link(1, false), link(1, true)], "lacp-without-fallback"),
        (false, vec![], "no-dhcp"),
        (false, vec![link(1, true)], "no-dhcp"),
        (false, vec![link(1, false)], "no-link"),
    ] {
        let host = WhyContext { facts: Some(&facts), lacp, ..context() };
        // Two events of before the power on; then the links.
        let mut list = vec![What::Rack { message: "before".into() }; 2];
        list.extend(links.clone());
        let found: Vec<_> = rules_of(&list, &host).into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(found, [rule], "lacp {lacp}, {links:?}");
        // Its operating system, or its BMC.
        let plain = |class: Option<&str>| What::DhcpIn {
            kind: "DISCOVER".into(),
            interface: "mgmt0".into(),
            arch: None,
            ipxe: false,
            uuid: None,
            vendor_class: class.map(str::to_owned),
        };
        list.push(plain(Some("udhcp 1.36.1")));
        let found: Vec<_> = rules_of(&list, &host).into_iter().map(|(rule, _)| rule).collect();
        assert_eq!(found, [rule], "no firmware's");
        list.pop();
        for asked in [dhcp("DISCOVER"), ipxe("DISCOVER"), plain(Some("PXEClient")), plain(Some("HTTPClient"))]
        {
            list.push(asked);
            assert_eq!(rules_of(&list, &host), [], "it asked");
            list.pop();
        }
    }
}

/// What it sends cannot be read: it has asked all the same.
#[test]
fn a_host_whose_datagrams_break_the_rules_is_not_silent() {
    let facts = HostFacts { window: Some(window()), ..HostFacts::default() };
    let reason = "its datagram breaks the rules of DHCP: option 97 has 16 bytes".to_owned();
    let broken = What::DhcpIgnored { reason, why: Ignored::Malformed };
    for lacp in [true, false] {
        let host = WhyContext { facts: Some(&facts), lacp, ..context() };
        assert!(!rules_of(&[], &host).is_empty());
        let list = [dhcp("DISCOVER"), broken.clone(), dhcp("DISCOVER"), broken.clone()];
        let list = events(list.into_iter().map(|what| (3, what)).collect());
        let found = why(&list, &host);
        let [one] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!(one.rule, "malformed-dhcp");
        assert!(
            one.sentence.contains("2 time(s)") && one.sentence.ends_with("option 97 has 16 bytes"),
            "{one:?}"
        );
        assert!(one.evidence.len() == 2 && one.evidence[0].contains("DISCOVER in"), "{one:?}");
        for word in ["firmware", "report", "`dayzero pcap 52:54:00:77:01:01 --write FILE`"] {
            assert!(one.next_action.contains(word), "{word}: {one:?}");
        }
        // Another NIC of it boots.
        let mut other = list.clone();
        other.extend(events(healthy().into_iter().map(|what| (4, what)).collect()));
        other.iter_mut().skip(4).for_each(|event| event.mac = Some(MacAddr([2; 6])));
        assert_eq!(why(&other, &host), []);
    }
}

/// That a port waits for LACP is a guess from what was seen: the sentence says which parts were not.
#[test]
fn of_ports_that_may_wait_for_lacp_is_said_what_is_not_known() {
    use dayzero_model::inventory::{BootMode, Inventory, Neighbour};
    use dayzero_model::units::MebiBytes;
    let link = |nic: u8, up| What::Link { nic: MacAddr([2, 0, 0, 0, 0, nic]), up, told_by: "the BMC".into() };
    let heard = |nic: u8| Neighbour {
        nic_mac: MacAddr([2, 0, 0, 0, 0, nic]),
        system_name: "sw-a".into(),
        port_id: "7".into(),
        port_description: None,
    };
    let nothing = Inventory {
        system: Default::default(),
        boot_mode: BootMode::Uefi,
        firmware: Default::default(),
        cpu: Default::default(),
        memory: MebiBytes(0),
        dimms: vec![],
        disks: vec![],
        nics: vec![],
        neighbours: vec![],
        kernel: String::new(),
        partial_errors: vec![],
    };
    let (no_link, no_lldp) = ("link is not known", "no LLDP was heard yet");
    for (links, neighbours, says, not) in [
        (vec![], vec![], vec![no_link, no_lldp], vec![]),
        (vec![], vec![heard(1)], vec![no_link, "02:00:00:00:00:01 heard a switch"], vec![no_lldp]),
        (vec![link(1, true), link(2, true)], vec![], vec!["its NICs have a link", no_lldp], vec![no_link]),
        (
            vec![link(1, true), link(2, false)],
            // A storage NIC's neighbour says nothing of these.
            vec![heard(9), heard(2)],
            vec!["1 of its 2 NICs has a link", "02:00:00:00:00:02 heard a switch"],
            vec![no_link, no_lldp],
        ),
    ] {
        let facts = HostFacts {
            window: Some(window()),
            inventory: Some(Inventory { neighbours, ..nothing.clone() }),
            ..HostFacts::default()
        };
        let host = WhyContext { facts: Some(&facts), ..context() };
        let list = links.into_iter().map(|what| (3, what)).collect();
        let found = why(&events(list), &host).remove(0);
        assert_eq!(found.rule, "lacp-without-fallback");
        for part in says {
            assert!(found.sentence.contains(part), "{part}: {}", found.sentence);
        }
        for part in not {
            assert!(!found.sentence.contains(part), "{part}: {}", found.sentence);
        }
    }
}

#[test]
fn what_stopped_a_boot_comes_before_that_it_ran_out_of_time() {
    let state = |code: &str| {
        State::Failed(Cause {
            code: code.into(),
            sentence: "it took too long".into(),
            expected: "a boot".into(),
            observed: "none".into(),
            next_action: "look".into(),
        })
    };
    let mut list = healthy()[..5].to_vec();
    list.push(tftp(TftpFault::Silent, 7));
    for (condition, rules) in [
        (Condition::Vouched, ["tftp-stopped", "condition-failed"]),
        (Condition::Cabled, ["condition-failed", "tftp-stopped"]),
    ] {
        let record =
            ConditionRecord { condition, state: state("boot-timeout"), since: Timestamp(9), began: None };
        let conditions = Conditions(vec![record]);
        let found = rules_of(&list, &WhyContext { conditions: Some(&conditions), ..context() });
        assert_eq!(found.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), rules);
    }
}

fn window() -> WindowFacts {
    WindowFacts {
        override_read_back: "Pxe".into(),
        powered: Some(Timestamp(2)),
        channel: "virtual media".into(),
        ..WindowFacts::new(BootWindow { boot: BootId(1), host: "host1".parse().unwrap() }, Timestamp(1))
    }
}

#[test]
fn facts_and_causes_are_told() {
    let refused = RefusedKey {
        key: Sha256([1; 32]),
        reason: "a second machine claims to be this host".into(),
        peer: "10.77.0.11".into(),
        at: Timestamp(5),
    };
    let facts = HostFacts { window: Some(window()), refused_keys: vec![refused], ..HostFacts::default() };
    let cause = Cause {
        code: "cable-swapped".into(),
        sentence: "2 cable(s) end elsewhere than planned".into(),
        expected: "pod-a at sw-a/1".into(),
        observed: "pod-a at sw-b/1".into(),
        next_action: "move the cable of pod-a from sw-b/1 to sw-a/1".into(),
    };
    let state = State::Failed(cause);
    let record = ConditionRecord { condition: Condition::Cabled, state, since: Timestamp(9), began: None };
    let conditions = Conditions(vec![record]);
    let full = WhyContext { facts: Some(&facts), conditions: Some(&conditions), ..context() };
    let shown: Vec<_> = why(&[], &full)
        .into_iter()
        .map(|f| {
            format!(
                "{} ({}): {}\n  {}\n  -> {}",
                f.rule,
                f.hop.words(),
                f.sentence,
                f.evidence.join("\n  "),
                f.next_action
            )
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}
