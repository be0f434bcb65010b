//! `cargo xtask bench demo`: the seconds of each step of day zero, and what the control plane took for it.

use super::row::Row;
use crate::demo::{self, DemoArgs};
use crate::{packages, paths};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Runs, where one takes over a minute.
const RUNS: usize = 3;
/// A run that takes longer is made once.
const LONG_S: f64 = 300.0;

/// One value of one run, and the most that it may be.
#[derive(Debug, PartialEq)]
struct Figure {
    id: String,
    what: String,
    unit: &'static str,
    value: f64,
    most: Option<f64>,
}

/// What demo runs give, each value the median.
pub fn rows() -> Result<Vec<Row>> {
    packages::ensure()?;
    let mut runs: Vec<Vec<Figure>> = Vec::new();
    while runs.len() < RUNS {
        let (figures, seconds) = run()?;
        runs.push(figures);
        if seconds > LONG_S {
            break;
        }
    }
    over(&runs)
}

/// One run: its values, and how long it took without build and images.
fn run() -> Result<(Vec<Figure>, f64)> {
    let file = paths::cache().join("bench-demo.json");
    let done = demo::run(&DemoArgs { once: true, report: Some(file.clone()), ..DemoArgs::default() })?;
    // The seconds of a run that failed are no measurement.
    ensure!(
        done == ExitCode::SUCCESS,
        "the demo's checks did not all hold: see above and {}",
        file.display()
    );
    let report: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let seconds = report["seconds"].as_f64().context("no seconds in the report")?;
    Ok((figures(&report)?, seconds))
}

/// The figures of a report.
fn figures(report: &Value) -> Result<Vec<Figure>> {
    let figure = |id: &str, what: &str, unit, value, most| Figure {
        id: id.to_owned(),
        what: what.to_owned(),
        unit,
        value,
        most: Some(most),
    };
    let mut steps = Vec::new();
    let mut joined: f64 = 0.0;
    for host in report["hosts"].as_array().into_iter().flatten() {
        let name = host["name"].as_str().context("a host without a name in the report")?;
        for step in host["steps"].as_array().into_iter().flatten() {
            let at =
                |key: &str| step[key].as_f64().with_context(|| format!("a step of {name} without {key}"));
            let (start, end) = (at("start_s")?, at("end_s")?);
            let word = step["step"].as_str().context("a step without a name in the report")?;
            let id = format!("demo.{name}.{}", word.to_lowercase());
            steps.push(Figure {
                id,
                what: format!("{word} of {name}"),
                unit: "s",
                value: end - start,
                most: None,
            });
            if word == "Joined" {
                joined = joined.max(end);
            }
        }
    }
    let seconds = report["seconds"].as_f64().context("no seconds in the report")?;
    let rss = report["rss_mib"].as_f64().context("no rss_mib in the report")?;
    let answers = answered(report).context("no time of an answer after SIGKILL in the report")?;
    let mut all = vec![
        figure("demo.joined", "rack up to both hosts joined, proof included", "s", joined, 480.0),
        figure("demo.vm", "rack up to the VM's line and the controls", "s", seconds, 600.0),
        figure("demo.rss", "peak memory of dayzero serve", "MiB", rss, 64.0),
        figure(
            "demo.answers",
            "dayzero serve answers after its start on the store of a run",
            "ms",
            answers,
            200.0,
        ),
    ];
    all.extend(steps);
    Ok(all)
}

/// Milliseconds until the control plane answered after the demo had killed it: the check's evidence tells them.
fn answered(report: &Value) -> Option<f64> {
    let check = report["checks"].as_array()?.iter().find(|check| check["name"] == "sigkill-survived")?;
    let (_, after) = check["evidence"].as_str()?.split_once("answered again after ")?;
    after.split_once(" ms")?.0.parse().ok()
}

/// A row of each figure that the first run has.
fn over(runs: &[Vec<Figure>]) -> Result<Vec<Row>> {
    let first = runs.first().context("no run of the demo")?;
    let row = |figure: &Figure| {
        let of = |run: &Vec<Figure>| run.iter().find(|f| f.id == figure.id).map(|f| f.value);
        let values: Option<Vec<f64>> = runs.iter().map(of).collect();
        let values = values.with_context(|| format!("{}: not in each run", figure.id))?;
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let ours = sorted[sorted.len() / 2];
        let Figure { id, what, unit, most, .. } = figure;
        Ok(Row {
            id: id.clone(),
            what: what.clone(),
            unit: (*unit).to_owned(),
            ours,
            peer: None,
            peer_value: None,
            ratio: None,
            ask: most.map(|most| format!("at most {most} {unit}")),
            held: most.map(|most| ours <= most),
            runs: values,
            peers: BTreeMap::new(),
        })
    };
    first.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(joined: f64, rss: u64) -> Value {
        json!({
            "seconds": 283.5, "rss_mib": rss,
            "checks": [{"name": "sigkill-survived", "ok": true,
                "evidence": "killed while installing; answered again after 93 ms; conditions met before 4, after 4"}],
            "hosts": [{"name": "host1", "steps": [{"step": "Joined", "start_s": joined - 2.0, "end_s": joined}]}],
        })
    }

    #[test]
    fn a_row_is_the_median_of_the_runs_and_is_held_against_the_aim() {
        let runs: Vec<_> =
            [(210.0, 34), (490.0, 70), (217.0, 66)].map(|(s, m)| figures(&report(s, m)).unwrap()).into();
        let rows = over(&runs).unwrap();
        let told = rows.iter().map(|row| (row.id.as_str(), row.ours, row.held)).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                ("demo.joined", 217.0, Some(true)),
                ("demo.vm", 283.5, Some(true)),
                ("demo.rss", 66.0, Some(false)),
                ("demo.answers", 93.0, Some(true)),
                ("demo.host1.joined", 2.0, None),
            ]
        );
        assert_eq!(rows[0].runs, [210.0, 490.0, 217.0]);
    }

    #[test]
    fn a_report_without_a_figure_is_no_measurement() {
        let mut report = report(210.0, 34);
        report["checks"] = json!([]);
        assert!(figures(&report).unwrap_err().to_string().contains("SIGKILL"));
    }
}
