//! A data directory on a disk that is full: a lease that the store does not take is not acknowledged, and `why` says so.
//! Store, control and DHCP are the product's, the client is udhcpc; network and mounts are the test's own thread's, and go with it.

use super::rack::Rack;
use super::{open, request, site};
use crate::boot::Director;
use crate::control::Control;
use crate::leases::StoredLeases;
use crate::service::Service;
use dayzero_model::MacAddr;
use dayzero_model::site::NetworkRole;
use dayzero_pxe::{LeaseStore, PxeConfig, PxeServer, ServedInterface, ServedNetwork};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The store writes its log, of which the room is reserved, before its engine: it does so when it has been idle for 2 s.
const IDLE: Duration = Duration::from_millis(2500);
/// Leases until the store must have noticed.
const MOST: u8 = 20;

fn sh(command: &str) -> bool {
    let done = Command::new("sh").args(["-ec", command]).output().unwrap();
    if !done.status.success() {
        eprintln!("{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
    done.status.success()
}

/// A device with our address on the plan's guest network, and one of a client at its other end.
fn network_and_small_disk(data: &Path) {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    std::fs::create_dir_all(data).unwrap();
    assert!(sh(&format!(
        "mount --make-rprivate /; mount -t tmpfs -o size=24m small {}
         ip link set lo up; ip link add s0 type veth peer name c0
         ip addr add 10.77.100.2/24 dev s0; ip link set s0 up; ip link set c0 up",
        data.display()
    )));
}

fn mac(number: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0x77, 7, number])
}

/// Whether a new client gets a lease.
async fn leases(number: u8) -> bool {
    let command = format!(
        "ip link set c0 down; ip link set c0 address {} up; timeout 6 busybox udhcpc -f -q -t 3 -T 1 -i c0 -s /bin/true",
        mac(number)
    );
    tokio::task::spawn_blocking(move || sh(&command)).await.unwrap()
}

async fn stored(control: &Arc<Control>) -> BTreeSet<MacAddr> {
    let leases = StoredLeases(control.clone()).load().await.unwrap();
    leases.into_iter().map(|lease| lease.mac).collect()
}

async fn no_lease_that_the_store_refuses(dir: &Path) {
    let mut plan = site(1);
    let guest = plan.networks.iter_mut().find(|network| network.role == NetworkRole::Guest).unwrap();
    guest.open_pool = true;
    let network = ServedNetwork::planned(guest, "lab.example");
    let control = open(dir, &Rack::new(&plan));
    control.apply(request(plan.clone(), None), "test").await.unwrap();
    let interface = ServedInterface { device: "s0".into(), address: [10, 77, 100, 2].into(), network };
    let config = PxeConfig { interfaces: vec![interface], ..PxeConfig::default() };
    let store = Arc::new(StoredLeases(control.clone()));
    let server = PxeServer::bind(config, Director::start(&control), store).await.unwrap();
    let end = CancellationToken::new();
    let serving = tokio::spawn(server.run(end.clone()));

    let fill = dir.join("data/filled");
    let full = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&fill).unwrap());
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let (mut given, mut refused) = (BTreeSet::new(), None);
    for number in 1..=MOST {
        if !leases(number).await {
            refused = Some(mac(number));
            break;
        }
        given.insert(mac(number));
        tokio::time::sleep(IDLE).await;
    }
    let refused = refused.expect("a store whose disk is full refuses at last");
    let why = control.why(&refused.to_string()).await.unwrap();
    assert_eq!(why.findings[0].rule, "lease-not-stored", "{why:#?}");

    // Whoever got an ACK has a lease, over the restart that mends it; nobody else has.
    end.cancel();
    serving.await.unwrap().unwrap();
    control.stop().await;
    drop(control);
    std::fs::remove_file(&fill).unwrap();
    let again = open(dir, &Rack::new(&plan));
    assert_eq!(stored(&again).await, given);
    again.stop().await;
}

#[test]
#[ignore = "needs root, iproute2, busybox-static"]
fn a_full_disk_costs_the_lease_and_is_told() {
    let test = std::thread::spawn(|| {
        let dir = tempfile::tempdir().unwrap();
        network_and_small_disk(&dir.path().join("data"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(no_lease_that_the_store_refuses(dir.path()));
        // Else the directory is not empty when it goes.
        sh(&format!("umount -l {}", dir.path().join("data").display()));
    });
    test.join().unwrap();
}
