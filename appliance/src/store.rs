//! `dayzero store …`.

use crate::cli::StoreCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use dayzero_api::rest::Verified;
use dayzero_store::{Options, Store};
use std::path::Path;

/// `dayzero store …`.
pub(crate) async fn run(client: &Client, out: Output, command: StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Verify { data_dir } = command;
    let found = match data_dir {
        None => client.post_empty("/v1/store/verify").await?,
        Some(dir) => offline(&dir)?,
    };
    out.show(&found, |found| {
        format!("sound: {} records ({} bytes), {} blobs", found.records, found.bytes, found.blobs)
    })
}

fn offline(dir: &Path) -> Result<Verified, Failure> {
    let store = dir.join("store");
    if !store.is_dir() {
        let place = store.display();
        return Err(Failure::user(format!(
            "there is no store at {place}: --data-dir names the data_dir of serve's configuration"
        )));
    }
    let store = Store::open(&store, Options::default()).map_err(|e| Failure::system(&e))?;
    let found = store.verify().map_err(|e| Failure::system(&e))?;
    Ok(Verified { records: found.records, bytes: found.bytes, blobs: found.blobs })
}
