//! A condition stopped with a cause: it says itself what was expected, observed, and what to do.

use super::{Finding, WhyContext};
use dayzero_model::condition::State;
use dayzero_model::event::Event;

pub(super) fn apply(_: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let phase = context.conditions?.phase()?;
    let State::Failed(cause) = &phase.state else { return None };
    Some(Finding {
        rule: "condition-failed",
        sentence: format!("{} stopped ({}): {}", phase.condition, cause.code, cause.sentence),
        evidence: vec![format!("expected: {}", cause.expected), format!("observed: {}", cause.observed)],
        next_action: cause.next_action.clone(),
    })
}
