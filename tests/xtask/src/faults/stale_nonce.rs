//! The medium in a host's drive carries a nonce that holds no longer. The agent trusts our authority by it, asks, and is refused;
//! a person has the BMC take the medium anew. False if a certificate was given for it.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Result, ensure};
use dayzero_model::condition::Condition;
use dayzero_model::event::What;

const HOST: &str = "host1";

pub const FAULT: Fault = Fault {
    name: "stale-nonce",
    host: HOST,
    condition: Condition::Vouched,
    code: "nonce-expired",
    told: Told::Why,
    plant: |bench| bench.client.lab(&["stale-media", HOST]).map(drop),
    words: |_| Words::new(&[], &["nonce is not the one"], &["dayzero host retry", "old medium"]),
    also: nothing_granted,
    mend: |bench| bench.client.lab(&["fresh-media", HOST]).map(drop),
};

fn nothing_granted(bench: &Bench, stop: &Stop) -> Result<String> {
    let timeline = bench.client.host(&stop.host)?.timeline;
    let granted = timeline.iter().any(|event| matches!(event.what, What::Enrol { granted: true, .. }));
    ensure!(!granted, "{} has a certificate", stop.host);
    Ok("it has no certificate".to_owned())
}
