//! `cargo xtask bench store`: durable puts of our store beside SQLite.

use super::row::{RUNS, Row, median};
use crate::{paths, shell};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Durable puts a second, beside SQLite in WAL mode with synchronous=FULL: rounds interleaved by the measuring program,
/// which is run once a round so that each value is known.
pub fn rows() -> Result<Vec<Row>> {
    let mut cargo =
        shell::cargo(&["build", "--quiet", "--release", "-p", "dayzero-store", "--example", "puts"]);
    shell::run(&mut cargo)?;
    let puts = paths::target().join("x86_64-unknown-linux-gnu/release/examples/puts");
    let dir = paths::cache().join("bench-store");
    std::fs::create_dir_all(&dir)?;
    let mut measured: Vec<(u64, f64, f64)> = Vec::new();
    for _ in 0..RUNS {
        let said =
            shell::read(Command::new(&puts).args(["--json", "--rounds", "1", "--seconds", "3"]).arg(&dir))?;
        for line in said.lines() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("puts printed '{line}'"))?;
            let number = |key: &str| row[key].as_f64().with_context(|| format!("no {key} in '{line}'"));
            measured.push((number("writers")? as u64, number("store_per_s")?, number("sqlite_per_s")?));
        }
    }
    std::fs::remove_dir_all(&dir)?;
    let row = |(id, writers, ask): (&str, u64, Option<f64>)| -> Result<Row> {
        let of = |pick: fn(&(u64, f64, f64)) -> f64| {
            measured.iter().filter(|m| m.0 == writers).map(pick).collect::<Vec<_>>()
        };
        let (ours, peer) = (of(|m| m.1), of(|m| m.2));
        anyhow::ensure!(ours.len() == RUNS, "{id}: {} of {RUNS} runs were measured", ours.len());
        let (own, other) = (median(&ours), median(&peer));
        Ok(Row {
            id: id.to_owned(),
            what: format!("durable puts, 16 B keys, 200 B values, {writers} writers"),
            unit: "puts/s".to_owned(),
            ours: own,
            peer: Some("SQLite WAL FULL".to_owned()),
            peer_value: Some(other),
            ratio: Some(own / other),
            ask: ask.map(|ask| format!("at least {ask} x")),
            held: ask.map(|ask| own / other >= ask),
            runs: ours,
            peers: BTreeMap::new(),
        })
    };
    [("store.puts", 32, Some(8.0)), ("store.puts.w1", 1, None)].into_iter().map(row).collect()
}
