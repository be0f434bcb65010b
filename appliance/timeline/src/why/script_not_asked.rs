//! Our loader runs and has its address, and never asked for its script.

use super::answer_not_sent::unsent;
use super::{Finding, Hop, PATIENCE, SCRIPTED, WhyContext, is_script, overdue, reached, told};
use crate::text;
use dayzero_model::event::Event;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (at, answer) = told(events, is_script)?;
    if reached(events, at, SCRIPTED) || unsent(events, answer) || !overdue(answer, context, PATIENCE) {
        return None;
    }
    Some(Finding {
        rule: "script-not-asked",
        hop: Hop::Script,
        sentence: "iPXE has its address and never asked for its script".to_owned(),
        evidence: vec![text::line(answer)],
        next_action: "look for a filter of TCP 8080 between host and appliance, and at iPXE's error on the host's screen".into(),
    })
}
