//! A rack in memory, and whole lives lived in it: with crashes, clones and pulled cables.

mod doctor;
mod enrolment;
mod https_boot;
mod lease_store;
mod leases;
mod life;
mod listeners;
mod proof;
mod rack;
mod recorder;
mod rotation;
mod secure_boot;
mod serving;

use crate::config::{ControlConfig, Images, Ports, Puller};
use crate::control::Control;
use crate::service::{ApplyRequest, Login, Service};
use crate::world::{World, system_clock};
use dayzero_model::ids::HostName;
use dayzero_model::secret::Secret;
use dayzero_model::site::Site;
use dayzero_trust::KeySource;
use rack::Rack;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The lab's plan, with the first `hosts` hosts.
fn site(hosts: usize) -> Site {
    let text = include_str!("../../../plan/examples/lab.yaml");
    let mut site = dayzero_plan::load_str("lab.yaml", text, &dayzero_plan::Known::default()).unwrap().0;
    let cluster = &mut site.zones[0].pods[0].clusters[0];
    cluster.hosts.truncate(hosts);
    if hosts == 1 {
        cluster.failover = dayzero_model::site::Failover::None;
    }
    for template in &mut site.templates {
        template.sha256 = Some(dayzero_model::Sha256([5; 32]));
    }
    site
}

fn request(site: Site, base: Option<dayzero_model::Sha256>) -> ApplyRequest {
    let login = Login { user: "root".to_owned(), password: Secret::new(rack::FACTORY.to_owned()) };
    ApplyRequest { site, credentials: [("factory".parse().unwrap(), login)].into(), base }
}

/// Opens control over a rack, in directories that outlive it.
fn open(dir: &Path, rack: &Arc<Rack>) -> Arc<Control> {
    let images = Images { host: dir.join("images"), ..Images::default() };
    std::fs::create_dir_all(&images.host).unwrap();
    std::fs::write(images.host.join("manifest.json"), "{}").unwrap();
    let config = ControlConfig {
        data: dir.join("data"),
        master_key: KeySource::File(dir.join("master.key")),
        images,
        puller: Puller::Person,
        ports: Ports::default(),
    };
    let world = World {
        bmcs: rack.clone(),
        agents: rack.clone(),
        profiles: rack.clone(),
        puller: rack.clone(),
        pings: rack.clone(),
        clock: system_clock,
    };
    std::fs::create_dir_all(&config.data).unwrap();
    let begun = Instant::now();
    loop {
        match Control::open(config.clone(), world.clone()) {
            Ok(control) => {
                rack.power_control(&control);
                return control;
            }
            // The process before has not let go of the store yet.
            Err(error) => {
                assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Waits for a condition; the last observation is in the failure text.
async fn until<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, done: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let seen = look();
        if done(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}: last seen {seen:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn phase(control: &Control, host: &HostName) -> String {
    let record = control.record(host);
    record.conditions.phase().map_or("ready".to_owned(), |phase| format!("{phase:?}"))
}

async fn ready(control: &Arc<Control>, host: &str) {
    let host = host.parse().unwrap();
    until(&format!("{host} becomes ready"), || phase(control, &host), |phase| phase == "ready").await;
}

/// A rack whose first `hosts` hosts are ready.
async fn ready_rack(dir: &Path, hosts: usize) -> (Arc<Control>, Arc<Rack>) {
    let rack = Rack::new(&site(hosts));
    let control = open(dir, &rack);
    control.start();
    rack.clone().live(control.clone());
    control.apply(request(site(hosts), None), "test").await.unwrap();
    for n in 1..=hosts {
        ready(&control, &format!("host{n}")).await;
    }
    (control, rack)
}
