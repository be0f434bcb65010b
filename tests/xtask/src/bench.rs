//! `cargo xtask bench NAME`: ours and the peers, interleaved, in one run.

use crate::demo::{self, DemoArgs};
use crate::{packages, paths, shell};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitCode};

/// One row of a report.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    what: String,
    unit: String,
    ours: f64,
    peer: Option<String>,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    ask: Option<String>,
    held: Option<bool>,
    runs: Vec<f64>,
}

/// Runs one bench.
pub fn run(name: &str, report: Option<&Path>) -> Result<ExitCode> {
    let rows = match name {
        "store" => store()?,
        "demo" => demo_steps()?,
        other => bail!("there is no bench '{other}': use 'store' or 'demo'"),
    };
    println!("{:<28} {:>12} {:>12} {:>8}  {:<14} ask", "id", "ours", "peer", "ratio", "unit");
    for row in &rows {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let held = row
            .held
            .map_or(String::new(), |held| if held { " (held)".to_owned() } else { " (NOT HELD)".to_owned() });
        println!(
            "{:<28} {:>12.1} {:>12} {:>8}  {:<14} {}{held}",
            row.id,
            row.ours,
            number(row.peer_value),
            number(row.ratio),
            row.unit,
            row.ask.as_deref().unwrap_or("")
        );
    }
    if let Some(file) = report {
        std::fs::write(file, serde_json::to_vec_pretty(&serde_json::json!({"schema": 1, "rows": rows}))?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Durable puts a second, beside SQLite in WAL mode with synchronous=FULL: rounds interleaved by the measuring program,
/// which is run once a round so that each value is known.
fn store() -> Result<Vec<Row>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::root()).args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "dayzero-store",
        "--example",
        "puts",
    ]);
    shell::run(&mut cargo)?;
    let puts = paths::target().join("x86_64-unknown-linux-gnu/release/examples/puts");
    let dir = paths::cache().join("bench-store");
    std::fs::create_dir_all(&dir)?;
    let mut measured: Vec<(u64, f64, f64)> = Vec::new();
    for _ in 0..5 {
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
        anyhow::ensure!(ours.len() == 5, "{id}: {} of 5 runs were measured", ours.len());
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
        })
    };
    [("store.puts", 32, Some(8.0)), ("store.puts.w1", 1, None)].into_iter().map(row).collect()
}

/// Seconds of each step of one demo run (it takes over five minutes, so it is run once).
fn demo_steps() -> Result<Vec<Row>> {
    packages::ensure()?;
    let file = paths::cache().join("bench-demo.json");
    demo::run(&DemoArgs { once: true, report: Some(file.clone()), ..DemoArgs::default() })?;
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

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
