//! The battery of a host's clock is empty, and its firmware says 1980: it holds our certificate to be not valid yet. A person puts
//! in a new one. False if it enrols all the same, or if the difference is not told from the host's own word.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Result, ensure};
use dayzero_model::condition::Condition;
use dayzero_model::event::What;

const HOST: &str = "host2";

pub const FAULT: Fault = Fault {
    name: "empty-battery",
    host: HOST,
    condition: Condition::Vouched,
    code: "clock-off",
    told: Told::Why,
    plant: |bench| bench.client.lab(&["empty-battery", HOST]).map(drop),
    words: |_| Words::new(&[], &["behind"], &["date in the host's firmware setup"]),
    also: tells_its_year,
    mend: |bench| bench.client.lab(&["new-battery", HOST]).map(drop),
};

/// The host's own word: decades behind.
fn tells_its_year(bench: &Bench, stop: &Stop) -> Result<String> {
    let years = bench.client.host(&stop.host)?.timeline.iter().rev().find_map(|event| match event.what {
        What::Clock { ahead, .. } => Some(-ahead / 31_556_952),
        _ => None,
    });
    ensure!(
        years.is_some_and(|years| years > 30),
        "the host's own word of its clock: {years:?} years behind"
    );
    Ok(format!("it says itself that it is {} years behind", years.unwrap_or_default()))
}
