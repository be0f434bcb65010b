//! What DHCP must not forget over a restart.

use super::rack::Rack;
use super::{open, site};
use crate::leases::StoredLeases;
use dayzero_model::units::Timestamp;
use dayzero_pxe::{Lease, LeaseChange, LeaseStore};

/// DUID-LL of a MAC that ends so.
fn made(last: u8) -> Vec<u8> {
    vec![0, 3, 0, 1, 2, 0, 0, 0, 0, last]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declined_addresses_and_our_own_identifier_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rest = Lease {
        network: "guest".parse().unwrap(),
        address: [10, 77, 100, 50].into(),
        mac: "52:54:00:77:00:21".parse().unwrap(),
        expires: Timestamp(1 << 40),
        declined: true,
    };
    let first = open(dir.path(), &Rack::new(&site(1)));
    let store = StoredLeases(first.clone());
    assert_eq!(store.duid(made(2)).await.unwrap(), made(2));
    assert_eq!(store.duid(made(9)).await.unwrap(), made(2), "another MAC, the same server");
    store.commit(vec![LeaseChange::Put(rest.clone())]).await.unwrap();
    first.stop().await;
    drop((first, store));

    let second = open(dir.path(), &Rack::new(&site(1)));
    let store = StoredLeases(second.clone());
    assert_eq!(store.duid(made(9)).await.unwrap(), made(2));
    assert_eq!(store.load().await.unwrap(), [rest], "it rests");
    second.stop().await;
}

/// As many as DHCP gives at once while the store is behind: more than one transaction takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_leases_of_a_storm_are_stored_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let lease = |number: u16| {
        let [a, b] = number.to_be_bytes();
        Lease {
            network: "guest-of-a-long-name-that-takes-its-room-in-each-of-the-records".parse().unwrap(),
            address: [10, 77, a, b].into(),
            mac: dayzero_model::MacAddr([2, 0, 0, 0, a, b]),
            expires: Timestamp(1 << 40),
            declined: false,
        }
    };
    let all: Vec<Lease> = (0..32_768).map(lease).collect();
    let first = open(dir.path(), &Rack::new(&site(1)));
    let store = StoredLeases(first.clone());
    store.commit(all.iter().cloned().map(LeaseChange::Put).collect()).await.unwrap();
    let removed = all[1..]
        .iter()
        .map(|lease| LeaseChange::Remove { network: lease.network.clone(), address: lease.address });
    let sorted = |mut leases: Vec<Lease>| {
        leases.sort_by_key(|lease| lease.address);
        leases
    };
    first.stop().await;
    drop((first, store));

    let second = open(dir.path(), &Rack::new(&site(1)));
    let store = StoredLeases(second.clone());
    assert!(sorted(store.load().await.unwrap()) == all, "all of them, over a restart");
    store.commit(removed.collect()).await.unwrap();
    assert_eq!(store.load().await.unwrap(), all[..1]);
    second.stop().await;
}
