//! One row of a report: ours beside the best peer of the same run.
//!
//! Invariants: values are medians of the runs; a ratio is ours divided by the peer's; an ask is judged by that ratio (or
//! by our own value, where there is no peer); what was not measured has no row, but a reason in the report.

use anyhow::{Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// How often each value is measured.
pub const RUNS: usize = 5;

/// One row of a report.
#[derive(Debug, Serialize)]
pub struct Row {
    pub id: String,
    pub what: String,
    pub unit: String,
    pub ours: f64,
    pub peer: Option<String>,
    pub peer_value: Option<f64>,
    pub ratio: Option<f64>,
    pub ask: Option<String>,
    pub held: Option<bool>,
    pub runs: Vec<f64>,
    /// The median of every peer of the row, by name; the best one is `peer`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<String, f64>,
}

impl Row {
    /// A row that explains another one: nothing is asked of it.
    pub fn unasked(self) -> Self {
        Self { ask: None, held: None, ..self }
    }
}

/// What is asked of a ratio; it also says which peer is the best one.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// More is better: ours at least so many times the best peer's.
    AtLeast(f64),
    /// Less is better: ours at most so many times the best peer's.
    AtMost(f64),
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::AtLeast(bound) => write!(f, "at least {bound} x"),
            Ask::AtMost(bound) => write!(f, "at most {bound} x"),
        }
    }
}

impl Ask {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Ask::AtLeast(bound) => ratio >= bound,
            Ask::AtMost(bound) => ratio <= bound,
        }
    }

    fn best(self, peers: &[(String, f64)]) -> Option<&(String, f64)> {
        let by = |a: &&(String, f64), b: &&(String, f64)| a.1.total_cmp(&b.1);
        match self {
            Ask::AtLeast(_) => peers.iter().max_by(by),
            Ask::AtMost(_) => peers.iter().min_by(by),
        }
    }
}

/// What a row is about.
#[derive(Clone, Debug)]
pub struct About {
    pub id: &'static str,
    pub what: String,
    pub unit: &'static str,
}

/// A row from the runs of ours and of each peer. `flawless`: no run of ours had a failure (else no ask is held).
///
/// # Errors
/// If a run is missing.
pub fn compare(
    about: About,
    ours: &[f64],
    peers: &[(String, Vec<f64>)],
    ask: Ask,
    flawless: bool,
) -> Result<Row> {
    ensure!(ours.len() == RUNS, "{} of {RUNS} runs of ours were measured", ours.len());
    for (name, runs) in peers {
        ensure!(runs.len() == RUNS, "{} of {RUNS} runs of {name} were measured", runs.len());
    }
    let medians: Vec<(String, f64)> = peers.iter().map(|(name, runs)| (name.clone(), median(runs))).collect();
    let own = median(ours);
    let best = ask.best(&medians);
    let ratio = best.map(|(_, value)| own / value);
    Ok(Row {
        id: about.id.to_owned(),
        what: about.what,
        unit: about.unit.to_owned(),
        ours: own,
        peer: best.map(|(name, _)| name.clone()),
        peer_value: best.map(|(_, value)| *value),
        ratio,
        ask: Some(ask.to_string()),
        held: ratio.map(|ratio| flawless && ask.holds(ratio)),
        runs: ours.to_vec(),
        peers: medians.iter().cloned().collect(),
    })
}

/// The middle one of an odd number of values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The rows as a table.
pub fn print(rows: &[Row]) {
    println!("{:<20} {:>10} {:>10} {:<10} {:>7}  {:<8} ask", "id", "ours", "peer", "", "ratio", "unit");
    for row in rows {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let held = match row.held {
            Some(true) => " (held)",
            Some(false) => " (NOT HELD)",
            None => "",
        };
        println!(
            "{:<20} {:>10.2} {:>10} {:<10} {:>7}  {:<8} {}{held}",
            row.id,
            row.ours,
            number(row.peer_value),
            row.peer.as_deref().unwrap_or_default(),
            number(row.ratio),
            row.unit,
            row.ask.as_deref().unwrap_or("")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { id: "x", what: String::new(), unit: "s" }
    }

    #[test]
    fn the_best_peer_is_the_one_that_counts() {
        let peers = [("slow".to_owned(), vec![1.0; 5]), ("fast".to_owned(), vec![3.0, 9.0, 4.0, 4.0, 1.0])];
        let row = compare(about(), &[8.0, 1.0, 8.0, 9.0, 20.0], &peers, Ask::AtLeast(2.0), true).unwrap();
        assert_eq!((row.ours, row.peer.as_deref(), row.ratio), (8.0, Some("fast"), Some(2.0)));
        assert_eq!(row.held, Some(true));
        let row = compare(about(), &[2.0; 5], &peers, Ask::AtMost(1.5), true).unwrap();
        assert_eq!((row.peer.as_deref(), row.held), (Some("slow"), Some(false)));
        let row = compare(about(), &[8.0; 5], &peers, Ask::AtLeast(2.0), false).unwrap();
        assert_eq!(row.held, Some(false), "a failure of ours holds no ask");
    }

    #[test]
    fn a_missing_run_makes_no_row() {
        let peers = [("p".to_owned(), vec![1.0; 4])];
        assert!(compare(about(), &[1.0; 5], &peers, Ask::AtLeast(1.0), true).is_err());
        assert!(compare(about(), &[1.0; 4], &[], Ask::AtLeast(1.0), true).is_err());
    }
}
