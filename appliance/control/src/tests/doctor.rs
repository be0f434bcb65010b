//! What the doctor is told to look at: what serve writes to, each listener, and no port that is our own.

use super::rack::Rack;
use super::{open, request, site};
use crate::control::Plan;
use crate::doctor::Patient;
use crate::serve::{NETWORK_BOOT, listener_at};
use crate::service::{DoctorRequest, Service, ServiceError};
use crate::view::{DoctorFinding, Severity, Todo};
use dayzero_model::Sha256;
use dayzero_model::site::{NetworkRole, Site};
use std::net::Ipv4Addr;

/// The lab's plan, with the appliance's management address on loopback and nowhere else.
fn on_loopback() -> Site {
    let mut site = site(1);
    for network in &mut site.networks {
        network.appliance = (network.role == NetworkRole::Management).then_some(Ipv4Addr::LOCALHOST);
    }
    site
}

/// What control would have it look at.
fn tried(patient: &Patient<'_>) -> Vec<String> {
    patient.listeners.iter().map(|(name, at)| listener_at(name, *at)).collect()
}

fn todo(sentence: &str) -> Option<Todo> {
    let (code, next_action) = ("listener-failed".to_owned(), String::new());
    let sentence = sentence.to_owned();
    Some(Todo { host: None, code, sentence, evidence: Vec::new(), next_action, since: Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_our_own_is_not_tried_and_one_that_failed_is() {
    let dir = tempfile::tempdir().unwrap();
    let control = open(dir.path(), &Rack::new(&site(1)));
    let plan = on_loopback();
    let all = ["agents' listener 127.0.0.1:7443", "enrolment listener 127.0.0.1:8444"];
    assert_eq!(tried(&control.patient(&plan)), all, "nothing is served before there is a plan");
    assert!(control.patient(&plan).boot_ports);

    control.apply(request(site(1), None), "test").await.unwrap();
    control.mirror_mut().plan = Some(Plan::new(plan.clone(), Sha256([1; 32])));
    let patient = control.patient(&plan);
    assert!(tried(&patient).is_empty() && !patient.boot_ports);

    control.ail(all[1], todo("it is taken"));
    control.ail(NETWORK_BOOT, todo("DHCP is taken"));
    let patient = control.patient(&plan);
    assert_eq!(tried(&patient), all[1..]);
    assert!(patient.boot_ports, "who is in the way of network boot is what it is asked for");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_examination_looks_at_what_serve_goes_by_and_there_is_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let control = open(dir.path(), &Rack::new(&site(1)));
    let ask = |site: Site, listen_only| control.doctor(DoctorRequest { site, listen_only });
    let found = ask(site(1), None).await.unwrap();
    let of = |check: &str| -> Vec<&DoctorFinding> { found.iter().filter(|f| f.check == check).collect() };
    assert!(of("disk")[0].found.contains(&dir.path().join("data").display().to_string()), "{found:?}");
    assert_eq!(of("clock").len(), 1);
    assert!(
        of("boot-files").iter().all(|finding| finding.severity == Severity::Fault),
        "there are none: {found:?}"
    );
    let [mgmt, bmc, guest] = of("address")[..] else { panic!("{found:?}") };
    for (finding, address) in [(mgmt, "10.77.0.2/24"), (bmc, "10.77.9.2/24"), (guest, "10.77.100.2/24")] {
        assert!(finding.severity == Severity::Fault && finding.action.contains(address), "{finding:?}");
    }
    assert!(found.is_sorted_by(|a, b| a.severity >= b.severity), "the worst first: {found:?}");

    let refused = |result: Result<Vec<DoctorFinding>, ServiceError>| result.expect_err("refused").to_string();
    for seconds in [0, 3601] {
        assert!(refused(ask(site(1), Some(seconds)).await).contains("1 to 3600 seconds"));
    }
    let mut bad = site(1);
    bad.networks[1].name = bad.networks[0].name.clone();
    assert!(matches!(ask(bad, None).await, Err(ServiceError::BadPlan(_))));
    let _at_work = control.doctor.lock().await;
    assert!(refused(ask(site(1), None).await).contains("at work for somebody else"));
    control.stop().await;
}
