//! A condition stopped with a cause: it says itself what was expected, observed, and what to do.

use super::{Finding, Hop, WhyContext};
use dayzero_model::condition::{Condition, State};
use dayzero_model::event::Event;

pub(super) const NAME: &str = "condition-failed";

pub(super) fn apply(_: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let phase = context.conditions?.phase()?;
    let State::Failed(cause) = &phase.state else { return None };
    let hop = match phase.condition {
        Condition::Found => Hop::Dhcp,
        Condition::Vouched if cause.code == "vouch-timeout" => Hop::Vouching,
        Condition::Vouched => Hop::Loader,
        _ => Hop::After,
    };
    Some(Finding {
        rule: NAME,
        hop,
        sentence: format!("{} stopped ({}): {}", phase.condition, cause.code, cause.sentence),
        evidence: vec![format!("expected: {}", cause.expected), format!("observed: {}", cause.observed)],
        next_action: cause.next_action.clone().into(),
    })
}
