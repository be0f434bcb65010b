//! The run as a table and as JSON.

use super::checks::{self, Check};
use super::leftovers::Snapshot;
use super::observed::{Left, Observed};
use crate::paths;
use anyhow::Result;
use dayzero_model::condition::State;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Checks whose step is not real yet.
pub const NOT_REAL: &[&str] = &[];

/// One step of one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub step: String,
    pub start_s: f64,
    pub end_s: f64,
    pub evidence: String,
}

/// One host's steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostSteps {
    pub name: String,
    pub firmware: String,
    pub steps: Vec<Step>,
}

/// One run.
pub struct Run {
    pub seconds: f64,
    pub build_s: f64,
    pub rss_mib: u64,
    pub observed: Observed,
    /// A secret lies where it does not belong, or it could not be looked for.
    pub leaks: bool,
    /// What ended the play early.
    pub broken: Option<String>,
    checks: Vec<Check>,
    hosts: Vec<HostSteps>,
}

/// What `--stop` needs of a run that was left running.
#[derive(Serialize, Deserialize)]
struct Saved {
    seconds: f64,
    build_s: f64,
    rss_mib: u64,
    checks: Vec<Check>,
    hosts: Vec<HostSteps>,
    before: Snapshot,
    /// Where `--report` asked for it.
    report: Option<PathBuf>,
}

impl Run {
    /// A run whose zero is `zero_ms` since 1970 by the same clock as the conditions' moments.
    pub fn new(zero_ms: u64, seconds: f64, mut observed: Observed) -> Self {
        let hosts: Vec<HostSteps> = observed.joined.iter().map(|host| steps(zero_ms, host)).collect();
        let mut shown = std::mem::take(&mut observed.shown);
        shown.tables(&observed, &hosts);
        observed.shown = shown;
        let checks = checks::all(&observed);
        Self { seconds, build_s: 0.0, rss_mib: 0, observed, leaks: false, broken: None, checks, hosts }
    }

    /// A run whose rack could not be raised: no check was reached, and each says why.
    pub fn not_raised(seconds: f64, reason: &str) -> Self {
        let mut run = Self::new(0, seconds, Observed::default());
        for check in &mut run.checks {
            (check.ok, check.evidence) = (false, format!("not reached: {reason}"));
        }
        run.broken = Some(reason.to_owned());
        run
    }

    /// After the tear-down: what is left, and the peak of the control plane's memory.
    pub fn finish(&mut self, rss_mib: u64, before: &Snapshot) -> Result<()> {
        let now = Snapshot::take()?;
        self.rss_mib = rss_mib;
        self.observed.left = Some(Left { compared: now.count(), added: now.added_since(before) });
        let fresh = checks::all(&self.observed);
        for check in &mut self.checks {
            if check.name == "nothing-left" {
                check.clone_from(&fresh[fresh.len() - 1]);
            }
        }
        Ok(())
    }

    pub fn ok(&self) -> bool {
        !self.leaks && self.broken.is_none() && self.checks.iter().all(|check| check.ok)
    }

    /// Keeps the run for `--stop`, with the file that its report is to go to.
    pub fn save(&self, before: &Snapshot, report: Option<&Path>) -> Result<()> {
        let saved = Saved {
            seconds: self.seconds,
            build_s: self.build_s,
            rss_mib: self.rss_mib,
            checks: self.checks.clone(),
            hosts: self.hosts.clone(),
            before: before.clone(),
            report: report.map(std::path::absolute).transpose()?,
        };
        std::fs::write(file(), serde_json::to_vec(&saved)?)?;
        Ok(())
    }

    /// Keeps the report itself for `--stop`, once secrets were looked for: the tear-down has removed the directory by then,
    /// and `--stop` removes it again.
    pub fn hand_on(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        Ok(std::fs::write(dir.join(JUDGED), serde_json::to_vec(&self.json())?)?)
    }

    /// The run that was left running, if any.
    pub fn load() -> Result<Option<(Self, Snapshot, Option<PathBuf>)>> {
        let Ok(bytes) = std::fs::read(file()) else { return Ok(None) };
        let saved: Saved = serde_json::from_slice(&bytes)?;
        let run = Self {
            seconds: saved.seconds,
            build_s: saved.build_s,
            rss_mib: saved.rss_mib,
            observed: Observed::default(),
            leaks: false,
            broken: None,
            checks: saved.checks,
            hosts: saved.hosts,
        };
        Ok(Some((run, saved.before, saved.report)))
    }

    /// The report's JSON, schema 1.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "schema": 1,
            "ok": self.ok(),
            "seconds": round(self.seconds),
            "build_s": round(self.build_s),
            "checks": self.checks,
            "hosts": self.hosts,
            "rss_mib": self.rss_mib,
        })
    }
}

fn file() -> PathBuf {
    paths::demo().join("run.json")
}

/// The report of a run that was stopped from elsewhere.
const JUDGED: &str = "judged.json";

fn stopping_file() -> PathBuf {
    paths::demo().join("stopping")
}

/// Tells the demo that runs that `--stop` waits for its report.
pub fn stopping() -> Result<()> {
    std::fs::create_dir_all(paths::demo())?;
    Ok(std::fs::write(stopping_file(), [])?)
}

/// Whether `--stop` waits for the report.
pub fn is_stopping() -> bool {
    stopping_file().exists()
}

/// The report of a run that was stopped from elsewhere, for who stopped it.
pub fn judged(dir: &Path) -> Option<serde_json::Value> {
    let bytes = std::fs::read(dir.join(JUDGED)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn steps(zero_ms: u64, host: &super::observed::Seen) -> HostSteps {
    let at = |ms: u64| round(ms.saturating_sub(zero_ms) as f64 / 1000.0);
    let met = host.view.conditions.iter().filter_map(|record| match &record.state {
        State::Met { evidence, .. } => Some(Step {
            step: record.condition.to_string(),
            start_s: at(record.began.unwrap_or(record.since).0),
            end_s: at(record.since.0),
            evidence: evidence.clone(),
        }),
        _ => None,
    });
    let mode = host.view.facts.inventory.as_ref().map(|inventory| inventory.boot_mode);
    let firmware =
        mode.and_then(|mode| serde_json::to_value(mode).ok()).and_then(|v| v.as_str().map(str::to_owned));
    HostSteps { name: host.name.clone(), firmware: firmware.unwrap_or_default(), steps: met.collect() }
}

/// Prints the summary; false if some steps are not real yet.
pub fn print(run: &Run) -> bool {
    println!();
    for host in &run.hosts {
        println!("{} ({})", host.name, host.firmware);
        for step in &host.steps {
            let took = step.end_s - step.start_s;
            println!(
                "  {:<12} {:>6.1} s to {:>6.1} s  {:>6.1} s  {}",
                step.step,
                step.start_s,
                step.end_s,
                took,
                clip(&step.evidence, 70)
            );
        }
    }
    println!();
    for check in &run.checks {
        let later = check.name == "nothing-left" && run.observed.left.is_none();
        let word = match (check.ok, later) {
            (true, _) => "held",
            (false, true) => "later",
            (false, false) => "NOT HELD",
        };
        println!("{:<24} {:<9} {}", check.name, word, clip(&check.evidence, 160));
    }
    println!();
    println!(
        "{:.0} s from the start of the rack; builds and images {:.0} s before it; control plane's peak memory {} MiB",
        run.seconds, run.build_s, run.rss_mib
    );
    if !NOT_REAL.is_empty() {
        println!("not real yet: {}", NOT_REAL.join(", "));
    }
    NOT_REAL.is_empty()
}

fn clip(text: &str, most: usize) -> String {
    let one_line = text.replace('\n', " ");
    if one_line.chars().count() <= most {
        one_line
    } else {
        one_line.chars().take(most - 1).collect::<String>() + "…"
    }
}
