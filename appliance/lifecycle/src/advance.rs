//! The host's next step: met conditions are looked at again, then the first unmet one is worked on.

use crate::action::{Action, ActionKind};
use crate::conditions;
use crate::deadlines;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::condition::{Cause, Condition, ConditionRecord, Conditions, State};
use dayzero_model::facts::Failure;
use dayzero_model::units::{Millis, Timestamp};

/// What is to be recorded and done.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    /// Conditions whose record changed.
    pub changes: Vec<ConditionRecord>,
    /// All conditions after it.
    pub conditions: Conditions,
    /// Time ran out: to be kept in the facts until a retry.
    pub failure: Option<Failure>,
    /// To be carried out now; none while another action is in flight.
    pub action: Option<Action>,
    /// Look again at this moment, also if no fact changed.
    pub wake: Option<Timestamp>,
}

/// Decides one host's next step.
pub fn advance(s: &Snapshot<'_>, now: Timestamp) -> Advance {
    let mut out = Advance {
        changes: Vec::new(),
        conditions: s.conditions.clone(),
        failure: None,
        action: None,
        wake: None,
    };
    let mut open = true;
    for condition in Condition::ALL {
        let before = record(s.conditions, condition, now);
        let after = if open {
            let (after, goes_on) = one(s, &before, now, &mut out);
            open = goes_on;
            after
        } else {
            resting(&before, now)
        };
        if after != before || s.conditions.get(condition).is_none() {
            replace(&mut out.conditions, after.clone());
            out.changes.push(after);
        }
    }
    out
}

fn record(conditions: &Conditions, condition: Condition, now: Timestamp) -> ConditionRecord {
    let new = || ConditionRecord { condition, state: State::Unmet, since: now, began: None };
    conditions.get(condition).cloned().unwrap_or_else(new)
}

fn replace(conditions: &mut Conditions, after: ConditionRecord) {
    match conditions.0.iter_mut().find(|record| record.condition == after.condition) {
        Some(record) => *record = after,
        None => conditions.0.push(after),
    }
}

/// Behind the phase: what is met stays so (it is looked at again once its turn comes), the rest is not begun.
fn resting(before: &ConditionRecord, now: Timestamp) -> ConditionRecord {
    match before.state {
        State::Met { .. } | State::Unmet => before.clone(),
        State::Working { .. } | State::Failed(_) => {
            ConditionRecord { state: State::Unmet, since: now, began: None, condition: before.condition }
        }
    }
}

/// While paths are pulled on purpose, what the paths show is not judged.
fn frozen(busy: Option<ActionKind>, condition: Condition) -> bool {
    busy == Some(ActionKind::Prove) && condition < Condition::Proven
}

fn one(
    s: &Snapshot<'_>,
    before: &ConditionRecord,
    now: Timestamp,
    out: &mut Advance,
) -> (ConditionRecord, bool) {
    let condition = before.condition;
    if frozen(s.busy, condition) && matches!(before.state, State::Met { .. }) {
        return (before.clone(), true);
    }
    let outcome = match &s.facts.failure {
        Some(failure) if failure.condition == condition && !conditions::overtaken(failure, s.facts) => {
            Outcome::Failed(failure.cause.clone())
        }
        _ => conditions::step(condition, s),
    };
    match outcome {
        Outcome::Met { evidence, facts } => (met(before, evidence, facts, now), true),
        Outcome::Failed(cause) => (failed(before, cause, now), false),
        Outcome::Work { action, waits_for, within } => {
            let after = working(s, before, waits_for, within, now, out);
            if s.busy.is_none() && matches!(after.state, State::Working { .. }) {
                out.action = Some(action);
            }
            (after, false)
        }
        Outcome::Wait { waits_for, within } => (working(s, before, waits_for, within, now, out), false),
    }
}

fn met(
    before: &ConditionRecord,
    evidence: String,
    facts: dayzero_model::Sha256,
    now: Timestamp,
) -> ConditionRecord {
    let since = match &before.state {
        State::Met { facts: old, .. } if *old == facts => return before.clone(),
        _ => now,
    };
    let began = before.began.or(Some(now));
    ConditionRecord { condition: before.condition, state: State::Met { evidence, facts }, since, began }
}

fn failed(before: &ConditionRecord, cause: Cause, now: Timestamp) -> ConditionRecord {
    let state = State::Failed(cause);
    if before.state == state {
        return before.clone();
    }
    ConditionRecord { condition: before.condition, state, since: now, began: before.began.or(Some(now)) }
}

/// Same work: the deadline stays. Other work of the same condition: a new deadline, within the condition's limit.
fn working(
    s: &Snapshot<'_>,
    before: &ConditionRecord,
    waits_for: String,
    within: Millis,
    now: Timestamp,
    out: &mut Advance,
) -> ConditionRecord {
    let condition = before.condition;
    let going = matches!(before.state, State::Working { .. });
    let began = before.began.filter(|_| going).unwrap_or(now);
    let (deadline, since) = match &before.state {
        State::Working { waits_for: same, deadline } if *same == waits_for => (*deadline, before.since),
        _ => (now.plus(within).min(began.plus(deadlines::limit(condition))), now),
    };
    if now >= deadline {
        let cause = conditions::timed_out(condition, s, &waits_for, now.since(since));
        out.failure = Some(Failure { condition, cause: cause.clone(), at: now });
        return ConditionRecord { condition, state: State::Failed(cause), since: now, began: Some(began) };
    }
    out.wake = Some(deadline);
    ConditionRecord { condition, state: State::Working { waits_for, deadline }, since, began: Some(began) }
}
