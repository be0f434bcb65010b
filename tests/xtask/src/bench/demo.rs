//! `cargo xtask bench demo`: the seconds of each step of day zero.

use super::row::Row;
use crate::demo::{self, DemoArgs};
use crate::{packages, paths};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Seconds of each step of one demo run (it takes over five minutes, so it is run once).
pub fn rows() -> Result<Vec<Row>> {
    packages::ensure()?;
    let file = paths::cache().join("bench-demo.json");
    let done = demo::run(&DemoArgs { once: true, report: Some(file.clone()), ..DemoArgs::default() })?;
    // The seconds of a run that failed are no measurement.
    ensure!(
        done == ExitCode::SUCCESS,
        "the demo's checks did not all hold: see above and {}",
        file.display()
    );
    let run: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let plain = |id: String, what: String, seconds: f64, most: Option<f64>| Row {
        id,
        what,
        unit: "s".to_owned(),
        ours: seconds,
        peer: None,
        peer_value: None,
        ratio: None,
        ask: most.map(|most| format!("at most {most} s")),
        held: most.map(|most| seconds <= most),
        runs: vec![seconds],
        peers: BTreeMap::new(),
    };
    let mut rows = Vec::new();
    let mut joined: f64 = 0.0;
    for host in run["hosts"].as_array().into_iter().flatten() {
        let name = host["name"].as_str().unwrap_or_default();
        for step in host["steps"].as_array().into_iter().flatten() {
            let (start, end) =
                (step["start_s"].as_f64().unwrap_or(0.0), step["end_s"].as_f64().unwrap_or(0.0));
            let word = step["step"].as_str().unwrap_or_default();
            rows.push(plain(
                format!("demo.{name}.{}", word.to_lowercase()),
                format!("{word} of {name}"),
                end - start,
                None,
            ));
            if word == "Joined" {
                joined = joined.max(end);
            }
        }
    }
    rows.insert(
        0,
        plain(
            "demo.joined".to_owned(),
            "rack up to both hosts joined, proof included".to_owned(),
            joined,
            Some(480.0),
        ),
    );
    let seconds = run["seconds"].as_f64().context("no seconds in the report")?;
    rows.insert(
        1,
        plain(
            "demo.vm".to_owned(),
            "rack up to the VM's line and the controls".to_owned(),
            seconds,
            Some(600.0),
        ),
    );
    Ok(rows)
}
