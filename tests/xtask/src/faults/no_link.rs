//! Both cables of the bond are out; a person plugs them in. False if it is told without the BMC's word, or as another fault:
//! the host has power and is silent, as with a port that waits for LACP.

use super::bench::Bench;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Result, ensure};
use dayzero_model::condition::Condition;

const HOST: &str = "host1";
const NICS: [&str; 2] = ["0", "1"];

pub const FAULT: Fault = Fault {
    name: "no-link",
    host: HOST,
    condition: Condition::Vouched,
    code: "no-link",
    told: Told::Why,
    plant: |bench| each(bench, "pull-cable"),
    words: |_| Words::new(&[], &["DOWN, says the BMC"], &["cables"]),
    also: is_silent,
    mend: |bench| each(bench, "plug"),
};

fn each(bench: &mut Bench, order: &str) -> Result<()> {
    NICS.iter().try_for_each(|nic| bench.client.lab(&[order, HOST, nic]).map(drop))
}

/// It is on, works on nothing else, and nothing was heard of it.
pub fn is_silent(bench: &Bench, stop: &Stop) -> Result<String> {
    let window = bench.client.host(&stop.host)?.facts.window;
    let silent = window.is_some_and(|window| window.powered.is_some() && window.dhcp_seen.is_none());
    ensure!(silent && bench.is_on(&stop.host)?, "{} is not on, or asked by DHCP", stop.host);
    Ok("on, and not heard of".to_owned())
}
