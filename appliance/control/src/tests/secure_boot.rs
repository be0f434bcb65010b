//! Hosts whose firmware enforces Secure Boot: what is enrolled, and what their records say of the agent.

use super::rack::Rack;
use super::{open, ready, request, site};
use crate::service::Service;
use dayzero_model::boot::{AgentCheck, Chain};
use dayzero_model::facts::SecureBootFacts;
use dayzero_model::ids::HostName;
use dayzero_trust::SecureBootKey;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plan_enrols_our_key_and_without_it_the_agent_is_unverified() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(2);
    let hosts = &mut site.zones[0].pods[0].clusters[0].hosts;
    hosts[0].secure_boot = Some(Chain::Uki);
    let rack = Rack::new(&site);
    let names: [HostName; 2] = ["host1", "host2"].map(|name| name.parse().unwrap());
    let told = Some(SecureBootFacts { enforced: true, site_key: Some(false) });
    for name in &names {
        rack.with(name, |machine| machine.secure_boot = told);
    }
    let control = open(dir.path(), &rack);
    control.secure.know(SecureBootKey::open(&control.vault).unwrap());
    control.start();
    rack.clone().live(control.clone());
    control.apply(request(site, None), "test").await.unwrap();
    let wanted = [
        (
            Some(true),
            AgentCheck::Signature,
            "enrol the site's Secure Boot certificate: it is in the database",
        ),
        (Some(false), AgentCheck::KernelOnly, ""),
    ];
    for (name, (key, check, event)) in names.iter().zip(wanted) {
        ready(&control, name.as_str()).await;
        assert_eq!(rack.with(name, |machine| machine.secure_boot).unwrap().site_key, key, "{name}");
        let view = control.host(name, 500).await.unwrap();
        assert_eq!(view.facts.agent_check, Some(check), "{name}");
        let told = view.timeline_text.join("\n");
        assert_eq!(told.contains("Secure Boot certificate"), !event.is_empty(), "{name}: {told}");
        assert!(told.contains(event), "{name}: {told}");
    }
    control.stop().await;
}
