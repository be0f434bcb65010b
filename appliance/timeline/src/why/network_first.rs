//! The firmware boots from the network although it should boot from its disk: each time it is sent on to the disk.

use super::{Finding, Hop, WhyContext};
use crate::text;
use dayzero_model::boot::BootAction;
use dayzero_model::event::{Event, What};

/// Once happens after a window that was closed just then.
const TIMES: usize = 2;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    if context.facts?.window.is_some() {
        return None;
    }
    let sent_on = |event: &&Event| matches!(event.what, What::Script { action: BootAction::LocalDisk, .. });
    let last = events.iter().rposition(|event| matches!(event.what, What::Script { .. }))?;
    let times: Vec<&Event> = events.iter().filter(sent_on).collect();
    if times.len() < TIMES || !sent_on(&&events[last]) {
        return None;
    }
    Some(Finding {
        rule: "network-first",
        hop: Hop::After,
        sentence: format!("the firmware booted from the network {} times without need, and was sent on to its disk", times.len()),
        evidence: times.iter().rev().take(3).rev().map(|event| text::line(event)).collect(),
        next_action: "put the disk before the network in the firmware's boot order: each start waits for the network, and cannot do without the appliance".into(),
    })
}
