//! The switch's ports of the bond wait for LACP, which firmware does not speak: they have a link, the switch announces itself
//! by LLDP, and no DISCOVER gets through. A person switches fallback on. False if the verdict is another one, or is given
//! without the BMC's word that the ports have a link.

use super::bench::Bench;
use super::no_link::is_silent;
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Context, Result, ensure};
use dayzero_model::condition::Condition;
use serde_json::Value;

const HOST: &str = "host1";

pub const FAULT: Fault = Fault {
    name: "lacp-fallback",
    host: HOST,
    condition: Condition::Vouched,
    code: "lacp-without-fallback",
    told: Told::Why,
    plant: |bench| bench.client.lab(&["lacp-fallback-off", HOST]).map(drop),
    words: |_| Words::new(&[], &["802.3ad", "up, says the BMC"], &["LACP fallback"]),
    also: ports_are_closed,
    mend: |bench| bench.client.lab(&["lacp-fallback-on", HOST]).map(drop),
};

/// What the switch shows of the host's ports: it sends (LLDP and LACP), and forwards nothing.
fn ports_are_closed(bench: &Bench, stop: &Stop) -> Result<String> {
    let seen = is_silent(bench, stop)?;
    let status: Value = serde_json::from_str(&bench.client.lab(&["status", "-o", "json"])?)?;
    let host = status["hosts"].as_array().and_then(|hosts| hosts.iter().find(|shown| shown["name"] == HOST));
    let nics = host.and_then(|host| host["nics"].as_array()).context("the rack does not show its NICs")?;
    for nic in &nics[..2] {
        let sent = nic["sent"].as_u64().unwrap_or_default();
        ensure!(nic["forwarding"] == "closed" && nic["pulled"] == false && sent > 0, "its port: {nic}");
    }
    Ok(format!("{seen}; its ports have a link and LLDP, and forward nothing"))
}
