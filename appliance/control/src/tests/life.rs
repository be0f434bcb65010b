//! Whole lives: of two hosts in one go, of one host with a crash after each of its commits, and with each fault that
//! stops a host until a person mends it.

use super::rack::{FACTORY, Rack};
use super::{open, phase, ready, ready_rack, request, site, until};
use crate::service::{ConsentRequest, Service};
use crate::view::{Health, VmRequest};
use dayzero_model::condition::{Cause, Condition};
use dayzero_model::facts::{CredentialPhase, Failure, HostFacts};
use dayzero_model::ids::HostName;
use dayzero_model::vm::VmState;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_by_two_protocols_become_a_cluster_with_a_vm() {
    let dir = tempfile::tempdir().unwrap();
    let (control, rack) = ready_rack(dir.path(), 2).await;
    for (host, channel) in [("host1", "virtual media"), ("host2", "serial-over-LAN")] {
        let host: HostName = host.parse().unwrap();
        let view = control.host(&host, 500).await.unwrap();
        assert_eq!(view.facts.vouch.unwrap().channel, channel);
        assert_eq!(view.facts.credential, CredentialPhase::FactoryDisabled);
        assert_eq!(view.summary.health, Health::Ready);
        assert_eq!(rack.account(&host, "root"), None, "the factory account is disabled");
        assert!(rack.account(&host, "dayzero").unwrap().len() >= 12);
        assert_eq!(view.facts.proof.unwrap().trials.len(), 8);
        let events = view.timeline_text.join("\n");
        assert!(
            !events.contains(FACTORY) && !events.contains(&rack.account(&host, "dayzero").unwrap()),
            "{events}"
        );
    }
    let name: dayzero_model::Name = "hello".parse().unwrap();
    let asked = VmRequest {
        name: name.clone(),
        offering: "small".parse().unwrap(),
        template: "tiny".parse().unwrap(),
        cluster: None,
    };
    let vm = control.vm_create(asked.clone(), "test").await.unwrap();
    assert!(control.vm_create(asked, "test").await.is_err(), "a name is used once");
    let look = || control.mirror().vms[&name].clone();
    until("the VM runs", look, |vm| vm.state == VmState::Running && !vm.console.is_empty()).await;
    // The host's power is cut.
    let host = vm.host.unwrap();
    rack.clone().cut(&host);
    let vm = until("the VM is lost", look, |vm| vm.state == VmState::Lost).await;
    assert!(vm.detail.contains("power"), "{}", vm.detail);
    let status = control.status().await.unwrap();
    let lost = status.racks[0].hosts.iter().find(|summary| summary.name == host).unwrap();
    assert_eq!(lost.health, Health::Lost, "{lost:?}");
    // As after a death between the commit of the power and that of the VM, and with something else that failed meanwhile.
    let cause = Cause {
        code: "storage-path".into(),
        sentence: "a path is missing".into(),
        expected: "2 paths".into(),
        observed: "1 path".into(),
        next_action: "look at the cable".into(),
    };
    let failed = move |facts: &mut HostFacts| {
        let failure = Failure { condition: Condition::Proven, cause, at: dayzero_model::Timestamp(1) };
        facts.failure = Some(failure);
    };
    control.step(&host, failed).await.unwrap();
    control.change_vm(&name, |vm| vm.state = VmState::Running).await.unwrap();
    until("the VM is lost again", look, |vm| vm.state == VmState::Lost).await;
    control.stop().await;
}

/// One life that dies after so many commits; false if it came to its end before.
fn live_until(dir: &std::path::Path, rack: &std::sync::Arc<Rack>, commits: i64) -> (bool, i64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let control = open(dir, rack);
        control.commits_left.store(commits, Ordering::SeqCst);
        let died = control.cancel.clone();
        let life = async {
            control.start();
            rack.clone().live(control.clone());
            let base = control.plan().map(|plan| plan.hash);
            control.apply(request(site(1), base), "test").await.unwrap();
            ready(&control, "host1").await;
            control.commits_left.load(Ordering::SeqCst)
        };
        let outcome = tokio::select! {
            () = died.cancelled() => (true, 0),
            left = life => (false, commits - left),
        };
        if !outcome.0 {
            control.stop().await;
        }
        outcome
    });
    runtime.shutdown_background();
    outcome
}

#[test]
fn a_life_goes_on_after_a_crash_at_each_commit() {
    let whole = tempfile::tempdir().unwrap();
    let (died, commits) = live_until(whole.path(), &Rack::new(&site(1)), i64::MAX);
    assert!(!died && commits > 20, "a life has {commits} commits");
    for at in 1..commits {
        let dir = tempfile::tempdir().unwrap();
        let rack = Rack::new(&site(1));
        let (died, _) = live_until(dir.path(), &rack, at);
        let host: HostName = "host1".parse().unwrap();
        let broken = rack.with(&host, |machine| machine.broken.clone());
        let (again, _) = live_until(dir.path(), &rack, i64::MAX);
        assert!(!again, "crashed at {at} ({died}), it did not come to its end");
        let (installs, left) = rack.with(&host, |machine| (machine.installs, machine.broken.clone()));
        assert!((1..=2).contains(&installs), "crashed at {at}: installed {installs} times");
        assert!(left.is_empty(), "crashed at {at} with {broken:?} pulled: {left:?} is still pulled");
        assert_eq!(rack.account(&host, "root"), None, "crashed at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_stops_one_host_with_its_cause_and_a_retry_carries_on() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two): (HostName, HostName) = ("host1".parse().unwrap(), "host2".parse().unwrap());
    let rack = Rack::new(&site(2));
    // Everything is wrong with host1, one after the other; host2 is well.
    rack.set_account(&one, "root", "another");
    rack.with(&one, |machine| machine.serial = "ANOTHER".into());
    rack.with(&one, |machine| {
        let macs: Vec<_> = machine.cabling.keys().copied().collect();
        let (a, b) = (machine.cabling[&macs[0]].clone(), machine.cabling[&macs[1]].clone());
        machine.cabling.insert(macs[0], b);
        machine.cabling.insert(macs[1], a);
        machine.foreign = vec!["an ext4 filesystem".into()];
    });
    let control = open(dir.path(), &rack);
    control.start();
    rack.clone().live(control.clone());
    control.apply(request(site(2), None), "test").await.unwrap();
    let stops = async |code: &str| {
        until(code, || phase(&control, &one), |phase| phase.contains(&format!("code: \"{code}\""))).await;
        let why = control.why("host1").await.unwrap();
        assert!(why.findings[0].sentence.contains(code), "{why:#?}");
        assert!(!why.findings[0].next_action.is_empty());
        let status = control.status().await.unwrap();
        assert!(
            status.todo.iter().any(|todo| todo.code == code && todo.host.as_ref() == Some(&one)),
            "{:#?}",
            status.todo
        );
        why
    };
    stops("wrong-credential").await;
    rack.set_account(&one, "root", FACTORY);
    control.retry(&one, "test").await.unwrap();
    stops("serial-mismatch").await;
    rack.with(&one, |machine| machine.serial = machine.planned_serial());
    control.retry(&one, "test").await.unwrap();
    let why = stops("cable-swapped").await;
    assert!(
        why.findings[0].next_action.contains("move the cable of pod-a from sw-b/1 to sw-a/1"),
        "{why:#?}"
    );
    rack.with(&one, |machine| machine.cabling = machine.planned_cabling());
    control.retry(&one, "test").await.unwrap();
    stops("foreign-disk").await;
    ready(&control, "host2").await;
    let finding = control.facts(&one).unwrap().finding.clone().unwrap();
    let wrong = ConsentRequest { serial: "OTHER".into(), finding: finding.digest };
    assert!(control.consent(&one, wrong, "test").await.is_err(), "a consent names the disk");
    let right = ConsentRequest { serial: finding.serial.clone().unwrap(), finding: finding.digest };
    control.consent(&one, right, "test").await.unwrap();
    ready(&control, "host1").await;
    assert_eq!(control.facts(&one).unwrap().consent, None, "a consent is used once");
    assert_eq!(rack.with(&two, |machine| machine.installs), 1);
    // A cable that is pulled later is seen, and mends itself.
    rack.with(&one, |machine| machine.broken.insert("pod-b".parse().unwrap()));
    until("degraded", || phase(&control, &one), |phase| phase.contains("path-degraded")).await;
    rack.with(&one, |machine| machine.broken.clear());
    ready(&control, "host1").await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_twice_changes_nothing_and_an_old_diff_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rack = Rack::new(&site(1));
    let control = open(dir.path(), &rack);
    // Control is not started: what hosts do by themselves is not what an apply writes.
    let first = control.apply(request(site(1), None), "test").await.unwrap();
    assert!(first.changed);
    let revision = control.store().revision();
    let again = control.apply(request(site(1), None), "test").await.unwrap();
    assert!(!again.changed && control.store().revision() == revision);
    let mut other = site(1);
    other.domain = "other.example".to_owned();
    assert!(!control.plan_preview(&other).await.unwrap().empty);
    assert!(control.apply(request(other.clone(), None), "test").await.is_err(), "made against another plan");
    assert!(control.apply(request(other, Some(first.hash)), "test").await.unwrap().changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_given_away_with_the_login_that_its_bmc_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (control, _rack) = ready_rack(dir.path(), 2).await;
    let host: HostName = "host2".parse().unwrap();
    assert!(control.retire(&host, true, "test").await.is_err(), "it is still in the plan");
    let shown = control.bmc_credentials(&host, "test").await.unwrap();
    assert_eq!(shown.len(), 1);
    assert!(shown[0].password.expose() != FACTORY && shown[0].user == "dayzero");
    let told = control.why(host.as_str()).await.unwrap().text.join(" ");
    assert!(told.contains("was shown the BMC's credential"), "{told}");
    assert!(!told.contains(shown[0].password.expose()));

    let base = control.plan_preview(&site(2)).await.unwrap().new;
    control.apply(request(site(1), Some(base)), "test").await.unwrap();
    let refused = control.retire(&host, false, "test").await.unwrap_err().to_string();
    assert!(refused.contains("dayzero host credential host2"), "{refused}");
    control.retire(&host, true, "test").await.unwrap();
    assert!(control.bmc_credentials(&host, "test").await.is_err(), "nothing of it is left");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firmware_that_starts_from_the_network_first_stops_the_host_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let host: HostName = "host1".parse().unwrap();
    let rack = Rack::new(&site(1));
    rack.with(&host, |machine| machine.network_first = true);
    let control = open(dir.path(), &rack);
    control.start();
    rack.clone().live(control.clone());
    control.apply(request(site(1), None), "test").await.unwrap();
    let stopped = until("it stops", || phase(&control, &host), |phase| phase.contains("boot-order")).await;
    assert!(stopped.contains("Imaged") && stopped.contains("network first"), "{stopped}");
    let events = control.host(&host, 500).await.unwrap().timeline_text.join("\n");
    assert!(events.contains("the BMC cannot tell the order"), "{events}");
    assert!(events.contains("boot order: Boot0001 UEFI PXEv4, Boot0003 Dayzero"), "{events}");
    rack.with(&host, |machine| machine.network_first = false);
    control.retry(&host, "test").await.unwrap();
    ready(&control, "host1").await;
    assert_eq!(rack.with(&host, |machine| machine.installs), 1, "it is not installed again");
    control.stop().await;
}
