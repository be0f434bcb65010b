//! The web console over made-up facts, to look at it: `cargo run -p dayzero-api --example console`. It prints where it
//! is and a claim code; every three seconds host1's installation goes on a little.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, unreachable_pub)]

#[path = "../src/fake.rs"]
mod fake;

use dayzero_api::{Api, operators};
use dayzero_store::{Options, Store};
use dayzero_trust::{KeySource, SiteCa, Users, Vault};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data"), Options::default()).unwrap();
    let vault = Vault::open(&store, &KeySource::File(dir.path().join("key"))).unwrap();
    let ca = SiteCa::open(&vault).unwrap();
    let users = Users::new(&store);
    let code = users.first_claim(fake::NOW).await.unwrap().unwrap();
    let service = Arc::new(fake::Fake::default());
    let api = Api::new(service.clone(), store, users, || fake::NOW, CancellationToken::new());
    let bound = operators::bind("127.0.0.1:9443".parse().unwrap(), &[], &ca, &vault, fake::NOW).unwrap();
    println!("console: {}\nclaim: {}", bound.urls().concat(), code.expose());
    let going_on = async {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut status = service.status.lock().unwrap();
            let host = status.racks[0].hosts.iter_mut().find(|host| host.name.as_str() == "host1").unwrap();
            if let Some(progress) = &mut host.progress {
                progress.done = (progress.done + 60).min(progress.total);
            }
            if host.progress.as_ref().is_some_and(|progress| progress.done == progress.total) {
                (host.phase, host.met, host.progress) = ("Wired".to_owned(), 9, None);
                host.detail = "waits for the bond to be as wanted".to_owned();
            }
        }
    };
    tokio::select! {
        served = bound.serve(api, CancellationToken::new()) => served.unwrap(),
        () = going_on => {}
    }
}
