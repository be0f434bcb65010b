//! Each check can fail: a run in which all hold, and for each check what makes it false.

use super::super::observed::{Clone, Left, Sigkill, Stranger, Tick, VmSeen, Web};
use super::*;
use crate::shell::Said;
use dayzero_model::condition::ConditionRecord;
use dayzero_model::event::Event;
use dayzero_model::facts::{Capacity, HostFacts, RefusedKey, VouchFacts};
use dayzero_model::install::InstallReport;
use dayzero_model::inventory::{Cpu, Disk, Firmware, Inventory, Nic, SystemIdentity};
use dayzero_model::network::{BondState, LegState, NetworkReport};
use dayzero_model::proof::ProofReport;
use dayzero_model::storage::{LunReport, PathState};
use dayzero_model::units::{Bytes, MebiBytes, Mhz, Millis, Timestamp};
use dayzero_model::vm::Vm;
use dayzero_model::{BootId, MacAddr, Sha256};

fn inventory_of(mode: BootMode) -> Inventory {
    let nic = |n: u8| Nic {
        kernel_name: format!("eth{n}"),
        mac: MacAddr([2, 0, 0, 0, 0, n]),
        slot: Some(format!("0000:00:1{n}.0")),
        driver: None,
        speed_mbit: None,
        link: true,
    };
    let disk = Disk {
        kernel_name: "sda".to_owned(),
        serial: Some("S1".to_owned()),
        wwn: Some("5000c50077000001".parse().unwrap()),
        size: Bytes(8 << 30),
        logical_block: 512,
        rotational: false,
        bus: "scsi".to_owned(),
        model: None,
        signatures: Vec::new(),
    };
    Inventory {
        system: SystemIdentity { serial: Some("A".to_owned()), ..SystemIdentity::default() },
        boot_mode: mode,
        firmware: Firmware::default(),
        cpu: Cpu { threads: 2, ..Cpu::default() },
        memory: MebiBytes(1500),
        dimms: Vec::new(),
        disks: vec![disk],
        nics: (0..4).map(nic).collect(),
        neighbours: Vec::new(),
        kernel: "6.1".to_owned(),
        partial_errors: Vec::new(),
    }
}

fn trial(path: &str, how: Break, probe: Probe) -> Trial {
    Trial {
        path: path.parse().unwrap(),
        how,
        probe,
        gap: Millis(50),
        bound: Millis(1000),
        bound_is: "1 s".to_owned(),
        sent: 100,
        lost: 0,
        wrong_blocks: 0,
        read_back: 10,
        recovered: Some(Millis(500)),
        held: true,
    }
}

fn proof() -> ProofReport {
    let both = [Break::Cable, Break::DeadSwitch];
    let pings = ["pod-a", "pod-b"].into_iter().flat_map(|path| both.map(|how| trial(path, how, Probe::Ping)));
    let writes = ["storage-a", "storage-b"]
        .into_iter()
        .flat_map(|path| both.map(|how| trial(path, how, Probe::Writer)));
    ProofReport {
        started: Timestamp(1),
        ended: Timestamp(2),
        trials: pings.chain(writes).collect(),
        refused: None,
        held: true,
    }
}

fn installed(n: u8) -> InstallReport {
    InstallReport {
        disk: format!("S{n}"),
        manifest_sha256: Sha256::of(b"m"),
        chunks_verified: 573,
        chunks_zero: 967,
        bytes_written: Bytes(600 << 20),
        disk_guid: format!("guid{n}"),
        root_uuid: format!("root{n}"),
        machine_id: format!("machine{n}"),
        initiator: format!("iqn{n}"),
        ssh_host_key: Sha256::of(&[n]),
        boot_entries: Vec::new(),
        millis: 1,
    }
}

fn host(n: u8, mode: BootMode, file: &str, channel: &str, bond_mode: &str) -> Seen {
    let now = Timestamp(5000);
    let met = |condition| ConditionRecord {
        condition,
        state: State::Met { evidence: "seen".to_owned(), facts: Sha256::of(b"f") },
        since: now,
        began: None,
    };
    let leg = |nic: u8| LegState {
        mac: MacAddr([0x52, 0x54, 0, 0x77, n, nic + 1]),
        kernel_name: format!("eth{nic}"),
        up: true,
        usable: true,
    };
    let path = |n: u8| PathState {
        portal: [10, 77, 11 + n, 10].into(),
        kernel_name: format!("sd{n}"),
        active: true,
    };
    let transfer = What::TftpEnd { file: file.to_owned(), bytes: 70_000, ms: 9, error: None };
    let facts = HostFacts {
        credential: CredentialPhase::FactoryDisabled,
        vouch: Some(VouchFacts {
            boot: BootId(1),
            key: Sha256::of(&[n, 1]),
            certificate: Sha256::of(&[n, 2]),
            channel: channel.to_owned(),
            at: now,
        }),
        inventory: Some(inventory_of(mode)),
        install: Some(installed(n)),
        network: Some(NetworkReport {
            bond: Some(BondState {
                name: "bond0".to_owned(),
                mode: bond_mode.to_owned(),
                active: None,
                legs: vec![leg(0), leg(1)],
                partner: None,
            }),
            ..NetworkReport::default()
        }),
        luns: vec![LunReport {
            storage: Some("lun0".parse().unwrap()),
            device: Some("/dev/mapper/360000000000000000e00000000010001".to_owned()),
            paths: vec![path(0), path(1)],
            ..LunReport::default()
        }],
        proof: Some(proof()),
        capacity: Some(Capacity { threads: 2, cpu: Mhz(4000), memory: MebiBytes(1000), kvm: true }),
        ..HostFacts::default()
    };
    let view = HostView {
        conditions: Condition::ALL.map(met).to_vec(),
        facts,
        timeline: vec![Event { at: Timestamp(2000), host: None, mac: None, boot: None, what: transfer }],
    };
    Seen { name: format!("host{n}"), view }
}

fn vm(state: VmState) -> Vm {
    Vm {
        name: "hello".parse().unwrap(),
        offering: "small".parse().unwrap(),
        template: "tiny".parse().unwrap(),
        cluster: "kvm1".parse().unwrap(),
        host: Some("host1".parse().unwrap()),
        why: "most free memory".to_owned(),
        mac: MacAddr([2; 6]),
        address: Some([10, 77, 100, 50].into()),
        volume: None,
        state,
        detail: String::new(),
        since: Timestamp(1),
        console: vec!["DAYZERO-VM name=hello address=10.77.100.50 disk-sha256=abc".to_owned()],
    }
}

fn good() -> Observed {
    let refused = RefusedKey {
        key: Sha256::of(b"clone"),
        reason: "not vouched".to_owned(),
        peer: "p".to_owned(),
        at: Timestamp(1),
    };
    let mut degraded = proof();
    degraded.held = false;
    (degraded.trials[0].held, degraded.trials[0].gap) = (false, Millis(9000));
    let lab = crate::paths::root().join("appliance/plan/examples/lab.yaml");
    Observed {
        shown: crate::demo::shown::Shown::default(),
        site: Some(dayzero_plan::load(lab).unwrap().0),
        loaders: [("undionly.kpxe".to_owned(), 70_000), ("snponly.efi".to_owned(), 70_000)].into(),
        chunks: (573, 967),
        plan_good: Said { code: Some(0), ..Said::default() },
        plan_bad: Said {
            code: Some(2),
            stdout: "error[DZ030]: overlap\n --> faulty.yaml:26:11".to_owned(),
            ..Said::default()
        },
        joined: Vec::new(),
        hosts: vec![
            host(1, BootMode::Uefi, "snponly.efi", "virtual media", "802.3ad"),
            host(2, BootMode::Bios, "undionly.kpxe", "serial-over-LAN", "active-backup"),
        ],
        factory: vec![
            ("host1".to_owned(), true, "401".to_owned()),
            ("host2".to_owned(), true, "refused".to_owned()),
        ],
        stranger: Some(Stranger { mac: "m".to_owned(), pending: true, asked: 3, answered: 0 }),
        clone: Some(Clone { of: "host2".to_owned(), refused: vec![refused], console: "key 00".to_owned() }),
        controls: vec![("host1".to_owned(), degraded)],
        vm: VmSeen {
            vm: Some(vm(VmState::Running)),
            template_sha256: "abc".to_owned(),
            after_pull: Some(vm(VmState::Running)),
            ticks: (4, vec![Tick { number: 5, readable: true }, Tick { number: 6, readable: true }]),
            inactive: 1,
            after_power_cut: Some(vm(VmState::Lost)),
        },
        sigkill: Some(Sigkill {
            during: "d".to_owned(),
            answered_ms: 90,
            before: vec![("host1".to_owned(), 8), ("host2".to_owned(), 2)],
            after: vec![("host1".to_owned(), 8), ("host2".to_owned(), 2)],
        }),
        web: Some(Web {
            title: "t".to_owned(),
            first: "Found".to_owned(),
            later: "Vouched".to_owned(),
            same_page: true,
        }),
        secrets: Vec::new(),
        left: Some(Left { compared: 40, added: Vec::new() }),
    }
}

#[test]
fn all_hold_in_a_good_run() {
    for check in all(&good()) {
        assert!(check.ok, "{}: {}", check.name, check.evidence);
    }
}

#[test]
fn nothing_observed_holds_nothing() {
    for check in all(&Observed::default()) {
        assert!(!check.ok, "{}: {}", check.name, check.evidence);
    }
}

type Spoil = fn(&mut Observed);

fn facts(seen: &mut Observed, host: usize) -> &mut HostFacts {
    &mut seen.hosts[host].view.facts
}

fn unmeet(seen: &mut Observed, condition: Condition) {
    for record in &mut seen.hosts[1].view.conditions {
        if record.condition == condition {
            record.state = State::Unmet;
        }
    }
}

#[test]
fn each_check_has_something_that_makes_it_false() {
    let spoils: &[(&str, Spoil)] = &[
        ("plan-checked", |seen| seen.plan_bad.code = Some(0)),
        ("plan-checked", |seen| seen.plan_good.code = Some(2)),
        ("plan-checked", |seen| seen.plan_bad.stdout = "error[DZ030]: overlap".to_owned()),
        ("bmc-credential-rotated", |seen| seen.factory[1].1 = false),
        ("bmc-credential-rotated", |seen| facts(seen, 0).credential = CredentialPhase::Works),
        ("pxe-bios", |seen| seen.hosts[1].view.timeline.clear()),
        ("pxe-uefi", |seen| seen.hosts[0].view.timeline.clear()),
        ("pxe-uefi", |seen| seen.hosts[0].view.timeline[0].at = Timestamp(6000)),
        ("pxe-bios", |seen| *seen.loaders.get_mut("undionly.kpxe").unwrap() += 1),
        ("unknown-mac-pending", |seen| seen.stranger.as_mut().unwrap().answered = 1),
        ("unknown-mac-pending", |seen| seen.stranger.as_mut().unwrap().asked = 0),
        ("inventory", |seen| facts(seen, 1).inventory.as_mut().unwrap().disks[0].wwn = None),
        ("vouched", |seen| facts(seen, 1).vouch.as_mut().unwrap().channel = "virtual media".to_owned()),
        ("clone-refused", |seen| seen.clone.as_mut().unwrap().console = "enrolled as host2".to_owned()),
        ("clone-refused", |seen| seen.clone.as_mut().unwrap().refused[0].key = Sha256::of(&[2, 1])),
        ("profile-matched", |seen| unmeet(seen, Condition::Matched)),
        ("cabling-matched", |seen| unmeet(seen, Condition::Cabled)),
        ("image-verified", |seen| {
            facts(seen, 1).install.as_mut().unwrap().machine_id = "machine1".to_owned()
        }),
        ("image-verified", |seen| facts(seen, 0).install.as_mut().unwrap().chunks_verified = 572),
        ("bond", |seen| {
            facts(seen, 0).network.as_mut().unwrap().bond.as_mut().unwrap().legs[1].usable = false
        }),
        ("bond", |seen| {
            facts(seen, 1).network.as_mut().unwrap().bond.as_mut().unwrap().mode = "802.3ad".to_owned()
        }),
        ("bond", |seen| {
            facts(seen, 1).network.as_mut().unwrap().bond.as_mut().unwrap().legs[0].mac = MacAddr([2; 6])
        }),
        ("storage-paths", |seen| facts(seen, 0).luns[0].paths[1].active = false),
        ("storage-paths", |seen| facts(seen, 0).luns[0].device = None),
        ("storage-paths", |seen| facts(seen, 1).luns[0].device = Some("/dev/mapper/36000".to_owned())),
        ("storage-paths", |seen| facts(seen, 1).luns.clear()),
        ("failover-bond", |seen| facts(seen, 0).proof.as_mut().unwrap().trials[0].gap = Millis(1001)),
        ("failover-bond", |seen| drop(facts(seen, 0).proof.as_mut().unwrap().trials.remove(0))),
        ("failover-storage", |seen| facts(seen, 1).proof.as_mut().unwrap().trials[5].wrong_blocks = 1),
        ("failover-storage", |seen| facts(seen, 1).proof.as_mut().unwrap().trials[5].lost = 1),
        ("proof-control", |seen| seen.controls[0].1.held = true),
        ("proof-control", |seen| seen.controls[0].1.refused = Some("the host is degraded".to_owned())),
        ("proof-control", |seen| seen.controls[0].1.trials[0].gap = Millis(900)),
        ("joined", |seen| facts(seen, 0).capacity.as_mut().unwrap().kvm = false),
        ("vm-console", |seen| seen.vm.template_sha256 = "other".to_owned()),
        ("vm-console", |seen| seen.vm.after_pull.as_mut().unwrap().state = VmState::Lost),
        ("vm-console", |seen| seen.vm.inactive = 0),
        ("vm-console", |seen| seen.vm.ticks.1[1].readable = false),
        ("vm-console", |seen| seen.vm.ticks.0 = 5),
        ("vm-console", |seen| seen.vm.after_power_cut.as_mut().unwrap().state = VmState::Running),
        ("sigkill-survived", |seen| seen.sigkill.as_mut().unwrap().after[0].1 = 3),
        ("sigkill-survived", |seen| seen.sigkill.as_mut().unwrap().before.clear()),
        ("web-console", |seen| seen.web.as_mut().unwrap().same_page = false),
        ("web-console", |seen| seen.web.as_mut().unwrap().later = "Found".to_owned()),
        ("nothing-left", |seen| seen.left.as_mut().unwrap().added.push("namespace dz-ctl".to_owned())),
    ];
    let mut falsified = BTreeSet::new();
    for (name, spoil) in spoils {
        let mut seen = good();
        spoil(&mut seen);
        let broken: Vec<String> =
            all(&seen).into_iter().filter(|check| !check.ok).map(|check| check.name).collect();
        assert_eq!(broken, [*name]);
        falsified.insert(*name);
    }
    assert_eq!(falsified.len(), all(&good()).len(), "a check that nothing makes false");
}

#[test]
fn a_leak_makes_a_run_not_ok_though_every_check_holds() {
    let mut run = super::super::report::Run::new(0, 1.0, good());
    assert!(run.ok());
    run.leaks = true;
    assert!(!run.ok() && run.json()["ok"] == false);
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone with the rack");
    run.hand_on(&gone).unwrap();
    assert_eq!(super::super::report::judged(&gone), Some(run.json()), "as `--stop` finds it");
    assert_eq!(super::super::report::judged(dir.path()), None);
    run.leaks = false;
    run.broken = Some("a host stopped".to_owned());
    assert!(!run.ok());
}

#[test]
fn ticks_are_read_off_a_console() {
    let console = [
        "DAYZERO-VM name=hello tick=3 disk=readable",
        "login:",
        "DAYZERO-VM name=hello tick=4 disk=unreadable",
    ];
    let found = crate::demo::observed::ticks(&console.map(str::to_owned));
    assert_eq!(found, [Tick { number: 3, readable: true }, Tick { number: 4, readable: false }]);
}
