//! What people read, as golden files; no line is wider than 100 columns.

use super::*;
use dayzero_control::view::{HostView, StatusView, WhyView};
use dayzero_model::facts::HostFacts;
use dayzero_model::proof::ProofReport;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NOW: u64 = 1_795_000_000_000;

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn fits(text: String) -> String {
    for line in text.lines() {
        assert!(line.chars().count() <= usize::from(WIDTH), "{} columns: {line}", line.chars().count());
        assert_eq!(line, line.trim_end(), "a line ends with a space");
    }
    assert!(text.ends_with('\n'));
    text
}

fn summary(name: &str, u: u8, phase: &str, health: &str, met: u8, detail: &str) -> Value {
    json!({"name": name, "rack": "r1", "u": u, "cluster": "kvm1", "phase": phase, "health": health, "detail": detail,
           "since": NOW - 95_000, "deadline": NOW + 240_000, "progress": null, "met": met})
}

fn vm() -> Value {
    json!({"name": "hello", "offering": "small", "template": "tiny", "cluster": "kvm1", "host": "host1",
           "why": "host1 has the least room that suffices: 1500 of 2000 MHz and 700 of 1024 MiB are left after it",
           "mac": "52:54:00:00:00:01", "address": "10.77.100.50", "volume": null, "state": "running", "detail": "",
           "since": NOW, "console": ["DAYZERO-VM hello 10.77.100.50 sha256 4f"]})
}

#[test]
fn status_of_a_site_under_way() {
    let mut imaging = summary(
        "host1",
        10,
        "Imaged",
        "working",
        8,
        "waits for the image to be written to DZDISK0001 and verified",
    );
    imaging["progress"] = json!({"what": "root", "done": 434, "total": 965});
    let failed = summary(
        "host2",
        12,
        "Cabled",
        "failed",
        6,
        "cable-swapped: pod-a ends at sw-b/2, the plan says sw-a/2",
    );
    let view: StatusView = read(json!({
        "site": "lab", "plan": "07".repeat(32), "now": NOW,
        "racks": [{"name": "r1", "pod": "pod1", "units": 42, "hosts": [failed, imaging]}],
        "todo": [{"host": "host2", "code": "cable-swapped", "since": NOW - 95_000,
                  "sentence": "pod-a ends at sw-b/2 where the plan says sw-a/2, and pod-b ends at sw-a/2 where the plan says sw-b/2",
                  "evidence": ["expected: pod-a at sw-a/2, pod-b at sw-b/2", "observed: pod-a at sw-b/2, pod-b at sw-a/2"],
                  "next_action": "move the cable from sw-b/2 to sw-a/2 and the other one back, then dayzero host retry host2"}],
        "pending": [{"mac": "52:54:00:de:ad:01", "first": NOW - 9000, "last": NOW - 2000, "count": 4,
                     "said": "mgmt0, PXEClient:Arch:00000:UNDI:002001, UUID 00000000-0000-0000-0000-000000000000"}],
        "clusters": [{"name": "kvm1", "hypervisor": "kvm", "hosts": 2, "elected": null, "vms": 1,
                      "joined": [["host1", {"threads": 2, "cpu": 4000, "memory": 1024, "kvm": true}]]}],
        "vms": [vm()],
    }));
    insta::assert_snapshot!(fits(status::status(&view)));
    insta::assert_snapshot!(fits(status::status(&StatusView::default())), @r"
    No plan is applied yet: `dayzero apply FILE`.

    What a person must do now
      nothing
    ");
}

fn proof_report() -> Value {
    let trial = |path: &str, how: &str, probe: &str, gap: u64, bound: u64, is: &str| {
        json!({"path": path, "how": how, "probe": probe, "gap": gap, "bound": bound, "bound_is": is, "sent": 1200,
               "lost": 21, "wrong_blocks": 0, "read_back": 400, "recovered": 2100, "held": gap <= bound})
    };
    json!({"started": NOW - 9000, "ended": NOW, "refused": null, "held": false, "trials": [
        trial("pod-a", "cable", "ping", 210, 1000, "carrier loss: 1000 ms"),
        trial("pod-b", "dead-switch", "ping", 5400, 5000, "arp interval 500 ms x missed_max 2, + 1 s"),
        trial("storage-a", "cable", "writer", 3120, 7000, "noop 1 s + 2 s + fast_io_fail 3 s + 1 s")]})
}

#[test]
fn one_host_that_stopped() {
    let cause = json!({"code": "foreign-disk", "sentence": "the disk DZDISK0002 holds data that is not ours",
                       "expected": "an empty disk", "observed": "ext4 'customer-data' in partition 1",
                       "next_action": "look at it; to wipe it: dayzero host consent host2 --serial DZDISK0002 --finding 0b0b"});
    let at = |from: u64| NOW - from * 1000;
    let met = |name: &str, evidence: &str, from: u64, to: u64| json!({"condition": name, "state": {"met": {"evidence": evidence, "facts": "01".repeat(32)}}, "since": at(to), "began": at(from)});
    let mut facts = serde_json::to_value(HostFacts::default()).unwrap();
    facts["bmc"] = json!({"address": "10.77.9.12", "protocol": "ipmi", "certificate": null, "manufacturer": "Dayzero", "model": "q35",
        "serial": "DZ-LAB-0002", "board_serial": null, "uuid": null, "bmc_mac": null, "nic_macs": [], "power_on": true, "at": NOW});
    facts["inventory"] = json!({
        "system": {"manufacturer": "Dayzero", "product": "q35", "serial": "DZ-LAB-0002", "uuid": null, "board_serial": null},
        "boot_mode": "bios", "firmware": {"vendor": "SeaBIOS", "version": "1.16", "date": null},
        "cpu": {"model": "QEMU TCG CPU", "sockets": 1, "cores": 2, "threads": 2, "speed": 2400, "virtualization": "svm"},
        "memory": 1470, "dimms": [],
        "disks": [{"kernel_name": "sda", "serial": "DZDISK0002", "wwn": "0x5000c50077000002", "size": 8_589_934_592_u64,
                   "logical_block": 512, "rotational": false, "bus": "scsi", "model": null, "signatures": ["ext4"]}],
        "nics": [{"kernel_name": "enp0s1", "mac": "52:54:00:77:02:01", "slot": "0000:00:10.0", "driver": "virtio_net", "speed_mbit": null, "link": true}],
        "neighbours": [{"nic_mac": "52:54:00:77:02:01", "system_name": "sw-a", "port_id": "2", "port_description": null}],
        "kernel": "6.1", "partial_errors": []});
    facts["network"] = json!({"converged": true, "problems": [], "changes": [], "addresses": ["bond0 10.77.0.12/24"], "storage_routes": [],
        "foreign": [], "neighbours": [], "bond": {"name": "bond0", "mode": "active-backup", "active": null, "partner": null, "legs": [
            {"mac": "52:54:00:77:02:01", "kernel_name": "enp0s1", "up": true, "usable": true},
            {"mac": "52:54:00:77:02:02", "kernel_name": "enp0s2", "up": false, "usable": false}]}});
    facts["luns"] = json!([{"storage": "lun0", "device": "/dev/mapper/36000000000000000e000", "size": 4_294_967_296_u64, "problems": ["one path is missing"],
        "paths": [{"portal": "10.77.11.10", "kernel_name": "sdb", "active": true}, {"portal": "10.77.12.10", "kernel_name": "sdc", "active": false}]}]);
    facts["finding"] = json!({"serial": "DZDISK0002", "wwn": null, "found": ["ext4 'customer-data' in partition 1"], "digest": "0b".repeat(32)});
    facts["proof"] = proof_report();
    let event = json!({"at": NOW, "host": "host2", "mac": null, "boot": null, "what": {"agent": {"message": "connected"}}});
    let view: HostView = read(json!({
        "summary": summary("host2", 12, "Imaged", "failed", 8, "foreign-disk: the disk DZDISK0002 holds data that is not ours"),
        "hypervisor": "kvm",
        "conditions": [
            met("Found", "IPMI at 10.77.9.12, logged in by the generated credential; the factory one is refused", 190, 169),
            {"condition": "Imaged", "state": {"failed": cause}, "since": at(75), "began": at(77)},
            {"condition": "Wired", "state": "unmet", "since": at(190), "began": null}],
        "facts": facts, "timeline": [event],
        "timeline_text": ["2026-11-18T11:06:40.000Z  host2  agent  connected"],
    }));
    insta::assert_snapshot!(fits(host::host(&view)));
}

#[test]
fn a_proof_and_one_that_was_refused() {
    let report: ProofReport = read(proof_report());
    insta::assert_snapshot!(fits(host::proof(&report)));
    let refused: ProofReport = read(json!({"started": NOW, "ended": NOW, "trials": [], "held": false,
                                           "refused": "the bond has one usable leg of two: plug in pod-b first"}));
    insta::assert_snapshot!(fits(host::proof(&refused)), @r"
    Proof of 2026-11-18T11:06:40.000Z: DID NOT HOLD
      the bond has one usable leg of two: plug in pod-b first
    ");
}

#[test]
fn why_with_and_without_findings() {
    let view: WhyView = read(json!({
        "subject": "host1", "standing": "stopped at Vouched since 11:05:05: no network boot within 90 s", "events": [],
        "findings": [{"rule": "no-request-after-offer", "hop": "DHCP", "sentence": "the client did not take our offer", "evidence": ["3 OFFERs, no REQUEST"],
                      "next_action": "look for spanning tree or a relay between host1 and the appliance: the port must forward within 4 s of link up"}],
        "text": ["2026-11-18T11:05:05.000Z  host1 52:54:00:77:01:01  dhcp   DISCOVER in on mgmt0 PXE client (UEFI x86-64), class PXEClient:Arch:00007"],
    }));
    insta::assert_snapshot!(fits(why::why(&view)));
}

#[test]
fn vms() {
    let vm: dayzero_model::vm::Vm = read(vm());
    insta::assert_snapshot!(fits(format!("{}\n{}", vm::list(std::slice::from_ref(&vm)), vm::one(&vm))));
}

#[test]
fn the_lab() {
    let nic = |nic: u8, pulled: bool| {
        json!({"mac": format!("52:54:00:77:01:0{nic}"), "switch": "sw-a", "port": nic.to_string(), "pulled": pulled,
               "forwarding": "lag", "received": 1024, "sent": 2048, "dropped": 0})
    };
    let status = read(
        json!({"pid": 42, "hosts": [{"name": "host1", "power": "on", "firmware": "uefi", "pxe_once": true, "media": false,
        "bmc": "10.77.9.11", "nics": [nic(1, false), nic(2, true)]}], "switches": [{"name": "sw-a", "alive": true}, {"name": "sw-b", "alive": false}],
        "extras": [{"name": "clone-1", "mac": "52:54:00:77:02:01", "power": "on"}], "services": [{"name": "tgtd", "running": false}]}),
    );
    insta::assert_snapshot!(fits(lab::status(&status)));
}

#[test]
fn long_words_and_spans() {
    assert_eq!(wrap("  ", 4, &format!("a {}", "b".repeat(97))), format!("  a\n    {}\n", "b".repeat(97)));
    assert_eq!(wrap("at  12:00  ", 2, "x   y"), "at  12:00  x   y\n", "spacing inside stays");
    let moments = [(9_000, "9 s"), (61_000, "1 m 01 s"), (3_700_000, "1 h 01 m"), (90_000_000, "1 d 01 h")];
    for (ms, text) in moments {
        assert_eq!(ago(Timestamp(NOW), Timestamp(NOW - ms)), text);
    }
    assert_eq!(clock(Timestamp(NOW)), "11:06:40");
}

#[test]
fn secure_boot_and_what_it_says_of_the_agent() {
    use dayzero_model::boot::AgentCheck;
    let mut facts = HostFacts::default();
    assert_eq!(host::secure_boot(&facts), "");
    facts.agent_check = Some(AgentCheck::KernelOnly);
    facts.bmc = Some(read(json!({
        "address": "10.77.9.12", "protocol": "redfish", "nic_macs": [], "power_on": true, "at": NOW,
        "secure_boot": { "enforced": true, "site_key": false },
    })));
    insta::assert_snapshot!(fits(host::secure_boot(&facts)), @r"
    Secure Boot: enforced, the site's key is not in its database; AGENT UNVERIFIED: nothing checked the
      initial RAM disk that it came in
    ");
    facts.agent_check = Some(AgentCheck::Signature);
    assert!(host::secure_boot(&facts).contains("agent verified by the site's signature"));
}
