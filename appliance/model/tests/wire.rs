//! The golden corpus of the agent's protocol: what is on the wire does not change unseen, and what is not known is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on fails

use dayzero_model::install::{DiskConsent, InstallOrder, Personality};
use dayzero_model::network::{BondMonitor, BondSpec, BridgeSpec, HostNetwork, StorageLink};
use dayzero_model::site::{BondMode, DiskSelector};
use dayzero_model::storage::{LunSpec, MultipathTimers, PathSpec, VolumeSpec, VolumeWarrant};
use dayzero_model::vm::{TemplateSource, VmSpec};
use dayzero_model::wire::{AgentError, EnrolAnswer, EnrolRequest, FromAgent, Order, Report, ToAgent};
use dayzero_model::{BootId, Bytes, MacAddr, MebiBytes, Name, Sha256, Timestamp};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn network() -> HostNetwork {
    HostNetwork {
        bond: BondSpec {
            name: "bond0".to_owned(),
            mode: BondMode::ActiveBackup,
            legs: vec![MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])],
            mtu: 1500,
            monitor: BondMonitor::Arp { interval_ms: 200, missed_max: 2, target: [10, 77, 0, 1].into() },
        },
        management: "10.77.0.12/24".parse().unwrap(),
        gateway: Some([10, 77, 0, 1].into()),
        bridges: vec![BridgeSpec {
            name: "br-guest".to_owned(),
            network: name("guest"),
            vlan: 100,
            mtu: 1500,
        }],
        storage: vec![StorageLink {
            mac: MacAddr([2, 0, 0, 0, 0, 3]),
            network: name("storage-a"),
            address: "10.77.11.22/24".parse().unwrap(),
            gateway: Some([10, 77, 11, 1].into()),
            mtu: 1500,
            table: 101,
        }],
    }
}

fn volume() -> VolumeSpec {
    VolumeSpec { name: name("vol-hello"), storage: name("lun0"), size: Bytes(64 << 20) }
}

fn warrant() -> VolumeWarrant {
    VolumeWarrant { plan_hash: Sha256::of(b"plan"), wwn: "6000000000000000000000000e000001".parse().unwrap() }
}

fn install() -> Order {
    Order::Install(Box::new(InstallOrder {
        plan_hash: Sha256::of(b"plan"),
        disk: DiskSelector { serial: Some("DZDISK0002".to_owned()), wwn: None },
        consent: Some(DiskConsent {
            host: name("host2"),
            serial: "DZDISK0002".to_owned(),
            finding: Sha256::of(b"finding"),
            given_by: "uid:0".to_owned(),
            given_at: Timestamp(1),
        }),
        manifest_url: "http://10.77.0.2:8080/images/manifest.json".to_owned(),
        manifest_sha256: Sha256::of(b"manifest"),
        chunks_url: "http://10.77.0.2:8080/images".to_owned(),
        personality: Personality {
            host: name("host2"),
            domain: "lab.example".to_owned(),
            agent_server: "10.77.0.2:7443".parse().unwrap(),
            network: network(),
        },
    }))
}

fn orders() -> Vec<Order> {
    let lun = LunSpec {
        storage: name("lun0"),
        target: "iqn.x:lun0".to_owned(),
        wwn: "6000000000000000000000000e000001".parse().unwrap(),
        paths: vec![PathSpec {
            nic: MacAddr([2, 0, 0, 0, 0, 3]),
            portal: [10, 77, 11, 10].into(),
            port: 3260,
        }],
        timers: MultipathTimers::default(),
    };
    let vm = VmSpec {
        name: name("hello"),
        cpus: 1,
        memory: MebiBytes(256),
        mac: MacAddr([2; 6]),
        bridge: "br-guest".to_owned(),
        volume: volume(),
    };
    vec![
        Order::Inventory { lldp_s: 6 },
        Order::InspectDisk { disk: DiskSelector { serial: Some("S".to_owned()), wwn: None } },
        install(),
        Order::Reboot,
        Order::StartReport,
        Order::Network(Box::new(network())),
        Order::NetworkReport,
        Order::Storage(vec![lun.clone()]),
        Order::StorageReport,
        Order::VolumeGroup { storage: name("lun0"), wwn: lun.wwn, plan_hash: Sha256::of(b"plan") },
        Order::VolumeCreate { volume: volume(), warrant: warrant() },
        Order::VolumeFill {
            volume: volume(),
            warrant: warrant(),
            template: TemplateSource {
                url: "http://10.77.0.5:8081/tiny.raw".to_owned(),
                sha256: Sha256::of(b"t"),
            },
        },
        Order::WriterStart { volume: volume(), warrant: warrant() },
        Order::WriterVerify,
        Order::WriterStop,
        Order::Capacity,
        Order::VmStart(vm),
        Order::VmStop { name: name("hello") },
        Order::Vms,
    ]
}

#[test]
fn orders_on_the_wire() {
    let messages: Vec<ToAgent> = orders()
        .into_iter()
        .zip(1..)
        .map(|(order, id)| ToAgent::Do { id, order })
        .chain([ToAgent::Ping])
        .collect();
    let lines: Vec<String> = messages.iter().map(|message| serde_json::to_string(message).unwrap()).collect();
    insta::assert_snapshot!(lines.join("\n"));
    for (line, message) in lines.iter().zip(messages) {
        assert_eq!(serde_json::from_str::<ToAgent>(line).unwrap(), message);
    }
}

#[test]
fn answers_on_the_wire() {
    let error = AgentError {
        code: "foreign-disk".to_owned(),
        sentence: "s".to_owned(),
        expected: "e".to_owned(),
        observed: "o".to_owned(),
        finding: None,
    };
    let hello = FromAgent::Hello {
        version: 1,
        agent: "0.1.0".to_owned(),
        installed: false,
        kernel_boot: "b".to_owned(),
    };
    let lines = [
        serde_json::to_string(&hello).unwrap(),
        serde_json::to_string(&FromAgent::Progress { id: 3, what: "root".to_owned(), done: 1, total: 2 })
            .unwrap(),
        serde_json::to_string(&FromAgent::Done { id: 3, result: Err(error) }).unwrap(),
        serde_json::to_string(&FromAgent::Done {
            id: 4,
            result: Ok(Report::Filled { sha256: Sha256::of(b"t") }),
        })
        .unwrap(),
        serde_json::to_string(&EnrolAnswer::Wait { seconds: 2 }).unwrap(),
        serde_json::to_string(&EnrolRequest {
            version: 1,
            boot: BootId(7),
            mac: MacAddr([2; 6]),
            public_key: "AA==".to_owned(),
            csr: "PEM".to_owned(),
            nonce: None,
        })
        .unwrap(),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn no_message_runs_a_command_and_unknown_fields_are_refused() {
    for bad in [
        r#"{"do":{"id":1,"order":{"shell":"reboot"}}}"#,
        r#"{"do":{"id":1,"order":{"exec":{"argv":["sh"]}}}}"#,
        r#"{"do":{"id":1,"order":"reboot","sudo":true}}"#,
        r#"{"do":{"id":1,"order":{"inventory":{"lldp_s":1,"run":"x"}}}}"#,
    ] {
        assert!(serde_json::from_str::<ToAgent>(bad).is_err(), "{bad}");
    }
    let text = serde_json::to_string(&orders()).unwrap().to_lowercase();
    for word in ["shell", "exec", "argv", "command"] {
        assert!(!text.contains(word), "an order speaks of {word}");
    }
}

#[test]
fn a_destructive_order_carries_plan_and_disk() {
    let mut seen = 0;
    for order in orders() {
        let (at, keys): (&[&str], &[&str]) = match &order {
            Order::Install(_) => (&["install"], &["plan_hash", "disk", "manifest_sha256"]),
            Order::VolumeGroup { .. } => (&["volume-group"], &["plan_hash", "wwn"]),
            Order::VolumeCreate { .. } => (&["volume-create", "warrant"], &["plan_hash", "wwn"]),
            Order::VolumeFill { .. } => (&["volume-fill", "warrant"], &["plan_hash", "wwn"]),
            Order::WriterStart { .. } => (&["writer-start", "warrant"], &["plan_hash", "wwn"]),
            _ => continue,
        };
        seen += 1;
        let whole = serde_json::to_value(ToAgent::Do { id: 1, order }).unwrap();
        for key in keys {
            let mut cut = whole.clone();
            let inner = at.iter().fold(&mut cut["do"]["order"], |inner, step| &mut inner[*step]);
            inner.as_object_mut().unwrap().remove(*key).unwrap();
            assert!(serde_json::from_value::<ToAgent>(cut).is_err(), "{at:?} without {key} is accepted");
        }
    }
    assert_eq!(seen, 5);
}
