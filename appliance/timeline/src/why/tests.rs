//! Each rule finds its fault, and a healthy boot has none.

use super::*;
use dayzero_model::boot::{Arch, BootAction, BootWindow};
use dayzero_model::condition::{Cause, Condition, ConditionRecord, State};
use dayzero_model::facts::{RefusedKey, WindowFacts};
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

fn dhcp(kind: &str) -> What {
    let (interface, arch) = ("mgmt0".to_owned(), Some(Arch::UefiX64));
    What::DhcpIn { kind: kind.to_owned(), interface, arch, ipxe: false, uuid: None, vendor_class: None }
}

fn out(kind: &str) -> What {
    What::DhcpOut { kind: kind.to_owned(), address: None, file: None }
}

fn script() -> What {
    let peer = "10.77.0.11".parse().unwrap();
    What::Script { action: BootAction::Discovery { boot: BootId(1), cmdline: vec![] }, peer }
}

fn file(status: u16) -> What {
    What::HttpFile { path: "/boot/file/x".into(), peer: "10.77.0.11".parse().unwrap(), status, bytes: 1 }
}

fn tftp(bytes: u64, error: Option<&str>) -> What {
    What::TftpEnd { file: "snponly.efi".into(), bytes, ms: 1, error: error.map(str::to_owned) }
}

#[test]
fn each_fault_is_found_by_its_rule() {
    let rules = |list| why(&events(list), &context()).into_iter().map(|f| f.rule).collect::<Vec<_>>();
    let healthy = vec![
        (1, dhcp("DISCOVER")),
        (2, out("OFFER")),
        (3, dhcp("REQUEST")),
        (4, out("ACK")),
        (5, tftp(900, None)),
        (6, script()),
        (7, file(200)),
        (8, file(200)),
        (9, What::Agent { message: "connected".into() }),
    ];
    assert_eq!(rules(healthy.clone()), Vec::<&str>::new());
    assert_eq!(rules(healthy[..8].to_vec()), ["agent-silent"]);
    assert_eq!(rules(healthy[..6].to_vec()), ["kernel-not-fetched"]);
    assert_eq!(rules(healthy[..7].to_vec()), ["kernel-not-fetched", "agent-silent"]);
    assert_eq!(rules(healthy[..2].to_vec()), ["no-request-after-offer"]);
    assert_eq!(
        rules(vec![(NOW - 100, dhcp("DISCOVER")), (NOW - 90, out("OFFER"))]),
        Vec::<&str>::new(),
        "it just began"
    );
    assert_eq!(rules(vec![(1, tftp(1468, Some("timed out")))]), ["tftp-stopped"]);
    assert_eq!(
        rules(vec![(1, tftp(0, Some("timed out"))), (2, What::TftpStart { file: "x".into() })]),
        Vec::<&str>::new()
    );
    assert_eq!(
        rules(vec![(1, What::DhcpIgnored { reason: "not in the plan".into() })]),
        ["dhcp-not-answered"]
    );
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
fn facts_and_causes_are_told() {
    let window = WindowFacts {
        window: BootWindow { boot: BootId(1), host: "host1".parse().unwrap() },
        opened: Timestamp(1),
        override_read_back: "Pxe".into(),
        powered: Some(Timestamp(2)),
        channel: "virtual media".into(),
        chain: dayzero_model::boot::Chain::Ipxe,
        ipxe_served: None,
        script_served: None,
        kernel_served: None,
        enrol_asked: None,
        waiting: Vec::new(),
    };
    let refused = RefusedKey {
        key: Sha256([1; 32]),
        reason: "a second machine claims to be this host".into(),
        peer: "10.77.0.11".into(),
        at: Timestamp(5),
    };
    let facts = HostFacts { window: Some(window), refused_keys: vec![refused], ..HostFacts::default() };
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
        .map(|f| format!("{}: {}\n  {}\n  -> {}", f.rule, f.sentence, f.evidence.join("\n  "), f.next_action))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}
