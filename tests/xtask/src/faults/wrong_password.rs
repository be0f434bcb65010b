//! The BMC has another factory password than the plan's secret file says; a person sets it to what the file says.
//! False if the host goes on, or if the password is tried again and again: BMCs lock accounts.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Result, ensure};
use dayzero_model::condition::Condition;
use dayzero_model::event::What;

const HOST: &str = "host1";

pub const FAULT: Fault = Fault {
    name: "wrong-password",
    host: HOST,
    condition: Condition::Found,
    code: "wrong-credential",
    told: Told::Stop,
    plant: |bench| bench.client.lab(&["wrong-password", HOST]).map(drop),
    words: |_| {
        Words::new(
            &["factory credential"],
            &["10.77.9.11", "refuses", "root"],
            &["secret file", "dayzero host retry host1"],
        )
    },
    also: tried_once,
    mend: |bench| bench.client.lab(&["right-password", HOST]).map(drop),
};

fn tried_once(bench: &Bench, _: &Stop) -> Result<String> {
    let view = bench.client.host(HOST)?;
    let refused = view.timeline.iter().filter(
        |event| matches!(&event.what, What::Bmc { operation, failed: true, .. } if operation.starts_with("log in")),
    );
    let count = refused.count();
    ensure!(count == 1, "the BMC was tried {count} times with a password that it refuses");
    ensure!(view.facts.vouch.is_none() && !bench.is_on(HOST)?, "the host was powered on all the same");
    Ok("tried once; the server stays off".to_owned())
}
