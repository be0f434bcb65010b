//! A control plane that is a table: for this crate's tests and its example. No lines of it are in the product.

use async_trait::async_trait;
use dayzero_control::service::Subject;
use dayzero_control::view::{
    Applied, ClusterView, DoctorFinding, Health, HostSummary, HostView, Pending, PlanPreview, Progress,
    RackView, Severity, StatusView, Todo, VmRequest, WhyFinding, WhyView,
};
use dayzero_control::{ApplyRequest, ConsentRequest, DoctorRequest, Service, ServiceError};
use dayzero_model::condition::{Cause, Condition, ConditionRecord, State};
use dayzero_model::event::{Event, What};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::{HostName, Name, Sha256};
use dayzero_model::proof::ProofReport;
use dayzero_model::secret::Secret;
use dayzero_model::site::{Hypervisor, Site};
use dayzero_model::units::Timestamp;
use dayzero_model::vm::{Vm, VmState};
use dayzero_trust::Credential;
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use tokio::sync::broadcast;

/// 2026-11-18T11:06:40Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_000_000_000);

fn name(text: &str) -> Name {
    text.parse().unwrap_or_else(|_| panic!("'{text}' is no name"))
}

fn ago(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 - seconds * 1000)
}

/// What was asked of it, in order: `verb argument who`.
pub(crate) struct Fake {
    pub asked: Mutex<Vec<String>>,
    pub status: Mutex<StatusView>,
    pub events: broadcast::Sender<Event>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { asked: Mutex::default(), status: Mutex::new(status()), events: broadcast::channel(64).0 }
    }
}

fn summary(host: &str, u: u8, phase: &str, health: Health, detail: &str, met: usize) -> HostSummary {
    HostSummary {
        name: name(host),
        rack: name("r1"),
        u,
        cluster: name("kvm1"),
        phase: phase.to_owned(),
        health,
        detail: detail.to_owned(),
        since: ago(met as u64 * 37 + 9),
        deadline: (health == Health::Working).then_some(Timestamp(NOW.0 + 240_000)),
        progress: None,
        met,
    }
}

fn vm(text: &str, state: VmState, host: Option<&str>, detail: &str) -> Vm {
    Vm {
        name: name(text),
        offering: name("small"),
        template: name("tiny"),
        cluster: name("kvm1"),
        host: host.map(name),
        why: "host1 has the least room that suffices: 1500 of 2000 MHz and 700 of 1024 MiB are left after it"
            .to_owned(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        address: host.map(|_| "10.77.100.50".parse().unwrap()),
        volume: None,
        state,
        detail: detail.to_owned(),
        since: ago(60),
        console: vec!["DAYZERO-VM hello 10.77.100.50".to_owned()],
    }
}

/// A site with one host of each health.
pub(crate) fn status() -> StatusView {
    let mut imaging =
        summary("host1", 10, "Imaged", Health::Working, "waits for the installer: root partition", 8);
    imaging.progress = Some(Progress { what: "root".to_owned(), done: 434, total: 965 });
    let foreign = summary(
        "host2",
        12,
        "Imaged",
        Health::Failed,
        "foreign-disk: the disk DZDISK0002 holds data that is not ours",
        8,
    );
    let ready = summary(
        "host3",
        14,
        "Joined",
        Health::Ready,
        "4 threads, 9600 MHz, 3072 MiB for VMs; paths proven",
        12,
    );
    let lost = summary(
        "host4",
        20,
        "Joined",
        Health::Lost,
        "its agent is gone and its BMC says that power is off",
        11,
    );
    let hosts = vec![lost, ready, foreign, imaging];
    StatusView {
        site: Some(name("lab")),
        plan: Some(Sha256([7; 32])),
        now: NOW,
        racks: vec![RackView { name: name("r1"), pod: name("pod1"), units: 42, hosts }],
        todo: vec![
            Todo {
                host: Some(name("host2")),
                code: "foreign-disk".to_owned(),
                sentence:
                    "the disk DZDISK0002 holds data that is not ours: ext4 'customer-data' in partition 1"
                        .to_owned(),
                evidence: vec![
                    "expected: an empty disk, or one that we wrote for this host".to_owned(),
                    "observed: MBR partition 1 of type 0x83: ext4 'customer-data' <b>".to_owned(),
                ],
                next_action:
                    "look at it; to wipe it: dayzero host consent host2 --serial DZDISK0002 --finding 0b0b…"
                        .to_owned(),
                since: ago(75),
            },
            Todo {
                host: None,
                code: "pull-path".to_owned(),
                sentence: "pull the cable of host3 pod-b at sw-b/3 <script>alert(1)</script>".to_owned(),
                evidence: Vec::new(),
                next_action: "do so, then `dayzero confirm host3-pod-b`".to_owned(),
                since: ago(12),
            },
        ],
        pending: vec![Pending {
            mac: "52:54:00:de:ad:01".parse().unwrap(),
            first: ago(300),
            last: ago(4),
            count: 17,
            said: "mgmt0, PXEClient:Arch:00000:UNDI:002001".to_owned(),
        }],
        clusters: vec![ClusterView {
            name: name("kvm1"),
            hypervisor: Hypervisor::Kvm,
            hosts: 4,
            joined: Vec::new(),
            elected: Some(name("host3")),
            vms: 2,
        }],
        vms: vec![
            vm("hello", VmState::Running, Some("host3"), ""),
            vm("worker", VmState::Lost, Some("host4"), "host4 went away: not known to run"),
        ],
    }
}

fn record(condition: Condition, state: State, from: u64, took: u64) -> ConditionRecord {
    ConditionRecord { condition, state, since: ago(from - took), began: Some(ago(from)) }
}

fn met(condition: Condition, evidence: &str, from: u64, took: u64) -> ConditionRecord {
    record(condition, State::Met { evidence: evidence.to_owned(), facts: Sha256([1; 32]) }, from, took)
}

fn conditions() -> Vec<ConditionRecord> {
    use Condition::{Baselined, BurnedIn, Cabled, Found, Identified, Imaged, Inventoried, Matched, Vouched};
    let cause = Cause {
        code: "foreign-disk".to_owned(),
        sentence: "the disk DZDISK0002 holds data that is not ours".to_owned(),
        expected: "an empty disk, or one that Dayzero wrote".to_owned(),
        observed: "ext4 'customer-data' in partition 1".to_owned(),
        next_action: "look at it; to wipe it: dayzero host consent host2 --serial DZDISK0002".to_owned(),
    };
    let mut all = vec![
        met(
            Found,
            "IPMI at 10.77.9.12, logged in by the generated credential; the factory one is refused",
            190,
            21,
        ),
        met(Identified, "serial DZ-LAB-0002, UUID and BMC MAC are the planned ones", 169, 1),
        met(Vouched, "key 4f1d… read by serial-over-LAN, certificate issued", 168, 61),
        met(Inventoried, "4 threads, 1536 MiB, 2 disks, 4 NICs", 107, 3),
        met(Matched, "qemu-q35: no drift", 104, 0),
        met(Baselined, "asks nothing yet", 104, 0),
        met(Cabled, "4 of 4 cables as planned (LLDP)", 104, 29),
        met(BurnedIn, "asks nothing yet", 75, 0),
        record(Imaged, State::Failed(cause), 75, 2),
    ];
    let rest = Condition::ALL.iter().skip(all.len());
    all.extend(rest.map(|condition| ConditionRecord {
        condition: *condition,
        state: State::Unmet,
        since: ago(190),
        began: None,
    }));
    all
}

fn facts() -> HostFacts {
    let finding = dayzero_model::install::DiskFinding::new(
        Some("DZDISK0002".to_owned()),
        None,
        vec!["ext4 'customer-data' in partition 1".to_owned()],
    );
    let nic = |n: u8, driver: &str, link: bool| {
        json!({"kernel_name": format!("enp0s{n}"), "mac": format!("52:54:00:77:02:0{n}"), "slot": format!("0000:00:0{n}.0"),
               "driver": driver, "speed_mbit": null, "link": link})
    };
    let trial = |path: &str, how: &str, probe: &str, gap: u64, bound: u64, text: &str| {
        json!({"path": path, "how": how, "probe": probe, "gap": gap, "bound": bound, "bound_is": text, "sent": 1200,
               "lost": if probe == "ping" { gap / 10 } else { 0 }, "wrong_blocks": 0, "read_back": 400, "recovered": 2100, "held": gap <= bound})
    };
    let known = json!({
        "bmc": {"address": "10.77.9.12", "protocol": "ipmi", "certificate": null, "manufacturer": "Dayzero Lab",
                "model": "q35", "serial": "DZ-LAB-0002", "board_serial": "B2", "uuid": "6c1d5a30-7f0e-4b6e-9a51-0d2b1c000002",
                "bmc_mac": "52:54:00:77:09:02", "nic_macs": [], "power_on": true, "at": ago(100)},
        "credential": "factory-disabled",
        "inventory": {
            "system": {"manufacturer": "Dayzero Lab", "product": "q35", "serial": "DZ-LAB-0002", "uuid": null, "board_serial": null},
            "boot_mode": "bios", "firmware": {"vendor": "SeaBIOS", "version": "1.16.3", "date": null},
            "cpu": {"model": "QEMU TCG CPU version 2.5+", "sockets": 1, "cores": 2, "threads": 2, "speed": 2400, "virtualization": "svm"},
            "memory": 1470, "dimms": [],
            "disks": [{"kernel_name": "sda", "serial": "DZDISK0002", "wwn": "0x5000c50077000002", "size": 8_589_934_592_u64,
                       "logical_block": 512, "rotational": false, "bus": "scsi", "model": "QEMU", "signatures": ["dos", "ext4"]}],
            "nics": [nic(1, "virtio_net", true), nic(2, "virtio_net", true), nic(3, "virtio_net", true), nic(4, "virtio_net", false)],
            "neighbours": [{"nic_mac": "52:54:00:77:02:01", "system_name": "sw-a", "port_id": "2", "port_description": null}],
            "kernel": "6.1.0-40-amd64", "partial_errors": []
        },
        "finding": finding,
        "network": {
            "converged": true, "problems": [], "changes": [], "addresses": ["bond0 10.77.0.12/24", "enp0s3 10.77.11.22/24"],
            "storage_routes": ["table 100: default via 10.77.11.1"], "foreign": [], "neighbours": [],
            "bond": {"name": "bond0", "mode": "active-backup", "active": "52:54:00:77:02:01", "partner": null, "legs": [
                {"mac": "52:54:00:77:02:01", "kernel_name": "enp0s1", "up": true, "usable": true},
                {"mac": "52:54:00:77:02:02", "kernel_name": "enp0s2", "up": true, "usable": true}]}
        },
        "luns": [{"storage": "lun0", "device": "/dev/mapper/36000000000000000e00000000010001", "size": 4_294_967_296_u64, "problems": [],
                  "paths": [{"portal": "10.77.11.10", "kernel_name": "sdb", "active": true},
                            {"portal": "10.77.12.10", "kernel_name": "sdc", "active": true}]}],
        "proof": {"started": ago(500), "ended": ago(380), "refused": null, "held": false, "trials": [
            trial("pod-a", "cable", "ping", 210, 1000, "1 s for carrier loss"),
            trial("pod-a", "dead-switch", "ping", 5400, 5000, "ARP interval 500 ms × 4 missed + 3 s"),
            trial("storage-a", "cable", "writer", 3120, 7000, "noop 1 s + 2 s, fast_io_fail 3 s, + 1 s")]}
    });
    let empty = serde_json::to_value(HostFacts::default()).unwrap();
    let (mut all, known) = (empty.as_object().unwrap().clone(), known.as_object().unwrap().clone());
    all.extend(known);
    serde_json::from_value(all.into()).unwrap()
}

fn event(seconds: u64, what: What) -> Event {
    Event { at: ago(seconds), host: Some(name("host2")), mac: None, boot: None, what }
}

fn timeline() -> Vec<Event> {
    let peer = "10.77.0.12".parse().unwrap();
    vec![
        event(
            190,
            What::Bmc { operation: "log in as root".into(), result: "accepted".into(), failed: false },
        ),
        event(168, What::Bmc { operation: "power on".into(), result: "reads on".into(), failed: false }),
        event(160, What::TftpEnd { file: "undionly.kpxe".into(), bytes: 70_085, ms: 410, error: None }),
        event(
            120,
            What::Enrol { granted: true, key: Sha256([0x4f; 32]), reason: "serial-over-LAN".into(), peer },
        ),
        event(
            75,
            What::Condition {
                condition: Condition::Imaged,
                state: "failed".into(),
                detail: "foreign-disk: the disk DZDISK0002 holds data that is not ours".into(),
            },
        ),
    ]
}

impl Fake {
    fn note(&self, what: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn known(&self, host: &HostName) -> Result<HostSummary, ServiceError> {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosts = status.racks.iter().flat_map(|rack| &rack.hosts);
        hosts.find(|known| known.name == *host).cloned().ok_or_else(|| ServiceError::NotFound {
            kind: "host",
            name: host.to_string(),
            remedy: "the plan has host1 to host4".to_owned(),
        })
    }
}

#[async_trait]
impl Service for Fake {
    async fn plan_preview(&self, site: &Site) -> Result<PlanPreview, ServiceError> {
        self.note(format!("preview {}", site.name));
        let text = "+ name  lab".to_owned();
        Ok(PlanPreview {
            base: None,
            new: Sha256([9; 32]),
            empty: false,
            text,
            diff: json!([]),
            consequences: Vec::new(),
        })
    }

    async fn apply(&self, request: ApplyRequest, who: &str) -> Result<Applied, ServiceError> {
        self.note(format!("apply {} {who}", request.site.name));
        Ok(Applied { hash: Sha256([9; 32]), changed: true, text: String::new() })
    }

    async fn status(&self) -> Result<StatusView, ServiceError> {
        Ok(self.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn host(&self, host: &HostName, events: usize) -> Result<HostView, ServiceError> {
        let summary = self.known(host)?;
        let timeline: Vec<Event> = timeline().into_iter().take(events).collect();
        let timeline_text = timeline.iter().map(dayzero_timeline::text::line).collect();
        Ok(HostView {
            summary,
            hypervisor: Hypervisor::Kvm,
            conditions: conditions(),
            facts: facts(),
            timeline,
            timeline_text,
        })
    }

    async fn retry(&self, host: &HostName, who: &str) -> Result<(), ServiceError> {
        self.known(host)?;
        self.note(format!("retry {host} {who}"));
        Ok(())
    }

    async fn consent(&self, host: &HostName, request: ConsentRequest, who: &str) -> Result<(), ServiceError> {
        self.known(host)?;
        self.note(format!("consent {host} {} {who}", request.serial));
        Ok(())
    }

    async fn why(&self, subject: &Subject) -> Result<WhyView, ServiceError> {
        let finding = WhyFinding {
            rule: "foreign-disk".to_owned(),
            hop: "after the boot".to_owned(),
            sentence: "the disk DZDISK0002 holds data that is not ours".to_owned(),
            evidence: vec!["ext4 'customer-data' in partition 1".to_owned()],
            next_action: "look at it, then consent or exchange the disk".to_owned(),
        };
        let events = timeline();
        let text = events.iter().map(dayzero_timeline::text::line).collect();
        let standing = "stopped at Imaged since 11:05:25".to_owned();
        Ok(WhyView { subject: subject.to_owned(), standing, findings: vec![finding], events, text })
    }

    async fn pcap(&self, subject: &Subject) -> Result<Vec<u8>, ServiceError> {
        Ok(format!("pcapng of {subject}").into_bytes())
    }

    async fn doctor(&self, request: DoctorRequest) -> Result<Vec<DoctorFinding>, ServiceError> {
        self.note(format!("doctor {} {:?}", request.site.name, request.listen_only));
        let other = DoctorFinding {
            check: "other-dhcp".to_owned(),
            severity: Severity::Fault,
            interface: Some("eth0".to_owned()),
            found: "10.77.0.66 answers DHCP too".to_owned(),
            action: "switch it off on this network".to_owned(),
        };
        Ok(vec![other])
    }

    async fn reset_host(&self, host: &HostName, who: &str) -> Result<(), ServiceError> {
        self.note(format!("reset {host} {who}"));
        Ok(())
    }

    async fn bmc_credentials(&self, host: &HostName, who: &str) -> Result<Vec<Credential>, ServiceError> {
        self.known(host)?;
        self.note(format!("bmc-credentials {host} {who}"));
        Ok(vec![Credential { user: "dayzero".to_owned(), password: Secret::new("made-up".to_owned()) }])
    }

    async fn retire(&self, host: &HostName, forget_credential: bool, who: &str) -> Result<(), ServiceError> {
        self.note(format!("retire {host} {forget_credential} {who}"));
        Ok(())
    }

    async fn prove(
        &self,
        host: &HostName,
        leg_missing: Option<Name>,
        who: &str,
    ) -> Result<ProofReport, ServiceError> {
        self.note(format!("prove {host} {leg_missing:?} {who}"));
        facts().proof.ok_or_else(|| ServiceError::System("no proof".to_owned()))
    }

    async fn vm_create(&self, request: VmRequest, who: &str) -> Result<Vm, ServiceError> {
        self.note(format!("vm {} {who}", request.name));
        Ok(vm(request.name.as_str(), VmState::Requested, None, "waits for a host"))
    }

    async fn vms(&self) -> Result<Vec<Vm>, ServiceError> {
        Ok(status().vms)
    }

    async fn confirm(&self, id: &str, who: &str) -> Result<(), ServiceError> {
        self.note(format!("confirm {id} {who}"));
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
