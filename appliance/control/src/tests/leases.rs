//! What DHCP must not forget over a restart.

use super::rack::Rack;
use super::{open, site};
use crate::boot::StoredLeases;
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
