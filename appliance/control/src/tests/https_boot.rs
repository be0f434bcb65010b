//! Hosts whose BMC shows whom their firmware trusts when it boots by HTTPS: who is enrolled, and who is told HTTPS.

use super::rack::Rack;
use super::{open, ready, request, site};
use crate::boot::Director;
use crate::service::Service;
use dayzero_model::ids::HostName;
use dayzero_pxe::BootDirector;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plan_enrols_our_authority_and_only_who_holds_it_is_told_https() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(2);
    let hosts = &mut site.zones[0].pods[0].clusters[0].hosts;
    hosts[0].https_boot = Some(true);
    let nics = [hosts[0].bond.nics[0].mac, hosts[1].bond.nics[0].mac];
    let rack = Rack::new(&site);
    let names: [HostName; 2] = ["host1", "host2"].map(|name| name.parse().unwrap());
    for name in &names {
        rack.with(name, |machine| machine.https_boot = Some(false));
    }
    let control = open(dir.path(), &rack);
    let authority = control.open_loader_ca().await.unwrap().certificate().to_owned();
    assert_eq!(std::fs::read_to_string(control.config.data.join("https-boot.pem")).unwrap(), authority);
    control.start();
    rack.clone().live(control.clone());
    control.apply(request(site, None), "test").await.unwrap();
    let director = Director::start(&control);
    for ((name, nic), held) in names.iter().zip(nics).zip([true, false]) {
        ready(&control, name.as_str()).await;
        assert_eq!(rack.with(name, |machine| machine.https_boot), Some(held), "{name}");
        assert_eq!(director.trusts(nic), held, "{name}");
        let told = control.host(name, 500).await.unwrap().timeline_text.join("\n");
        let event = "enrol the site's authority for HTTPS boot: it is in the list";
        assert_eq!(told.contains(event), held, "{name}: {told}");
    }
    control.stop().await;
}
