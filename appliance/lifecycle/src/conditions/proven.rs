//! Proven: every leg and path was pulled, by cable and by dead switch, while traffic ran, and all bounds held.

use super::agent_or_wait;
use crate::action::Action;
use crate::cause::cause;
use crate::deadlines;
use crate::desired;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::condition::Cause;
use dayzero_model::proof::{Probe, ProofReport, Trial};

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let order = match desired::proof(s.site, &s.placed) {
        Ok(order) => order,
        Err(cause) => return Outcome::Failed(cause),
    };
    if let Some(report) = s.facts.proof.as_ref().filter(|_| s.facts.proof_basis == Some(order.basis)) {
        if report.held {
            return Outcome::met(evidence(report), &(order.basis, report.started));
        }
        return Outcome::Failed(not_held(s, report));
    }
    if order.storage.is_some() && !s.around.volume_group {
        let by = s.around.elected.as_ref().map_or("the elected host".to_owned(), ToString::to_string);
        return Outcome::wait(format!("{by} to make the volume group"), deadlines::OTHER_HOST);
    }
    let work = || Outcome::work(Action::Prove(Box::new(order)), "the proof: every path is pulled in turn");
    agent_or_wait(s, true).unwrap_or_else(work)
}

/// One trial as a sentence.
pub fn trial_text(trial: &Trial) -> String {
    let what = match trial.probe {
        Probe::Ping => "longest gap",
        Probe::Writer => "longest stall",
    };
    let how = match trial.how {
        dayzero_model::proof::Break::Cable => "cable",
        dayzero_model::proof::Break::DeadSwitch => "dead switch",
    };
    format!("{} {how}: {what} {} of {} ({})", trial.path, trial.gap, trial.bound, trial.bound_is)
}

fn evidence(report: &ProofReport) -> String {
    let worst = |probe: Probe| {
        report.trials.iter().filter(|trial| trial.probe == probe).map(|trial| trial.gap.0).max()
    };
    let (gap, stall) = (worst(Probe::Ping).unwrap_or(0), worst(Probe::Writer).unwrap_or(0));
    format!(
        "{} trials held: longest gap {gap} ms, longest stall {stall} ms, no wrong block",
        report.trials.len()
    )
}

fn not_held(s: &Snapshot<'_>, report: &ProofReport) -> Cause {
    let retry = format!("then `dayzero host retry {}`", s.placed.host.name);
    if let Some(why) = &report.refused {
        let next = format!("restore what is named, {retry}");
        return cause(
            "proof-refused",
            "the proof did not start or stopped early",
            "a host with every path usable",
            why,
            next,
        );
    }
    let broken: Vec<_> = report.trials.iter().filter(|trial| !trial.held).collect();
    let shown = |trial: &&Trial| {
        let mut text = trial_text(trial);
        if trial.probe == Probe::Writer && (trial.lost > 0 || trial.wrong_blocks > 0) {
            text = format!("{text}, {} I/O error(s), {} wrong block(s)", trial.lost, trial.wrong_blocks);
        }
        if trial.recovered.is_none() {
            text = format!("{text}, the path did not come back");
        }
        text
    };
    cause(
        "proof-failed",
        format!("{} of {} trials broke a bound", broken.len(), report.trials.len()),
        "every gap and stall within its bound, no I/O error, no wrong block",
        broken.iter().map(shown).collect::<Vec<_>>().join("; "),
        format!("check the named paths' switches (LACP timeout, spanning tree, second path), {retry}"),
    )
}
