//! Our loader runs and has its address, and never asked for its script.

use super::{Finding, Hop, PATIENCE, SCRIPTED, WhyContext, is_script, last, overdue, reached};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let acknowledged = |what: &What| matches!(what, What::DhcpOut { kind, file: Some(file), .. } if kind == "ACK" && is_script(file));
    let (at, ack) = last(events, acknowledged)?;
    if reached(events, at, SCRIPTED) || !overdue(ack, context, PATIENCE) {
        return None;
    }
    Some(Finding {
        rule: "script-not-asked",
        hop: Hop::Script,
        sentence: "iPXE has its address and never asked for its script".to_owned(),
        evidence: vec![text::line(ack)],
        next_action: "look for a filter of TCP 8080 between host and appliance, and at iPXE's error on the host's screen".into(),
    })
}
