//! A key came with a nonce, or for a boot window, that holds no longer: the machine took too long, or booted an old medium.

use super::{Finding, Hop, RUNNING, WhyContext, last};
use crate::text;
use dayzero_model::event::{Event, What};

/// What trust's refusals of that kind say.
const OVER: [&str; 3] = ["boot window is over", "no boot window of that id", "nonce is not the one"];

/// Whether a refusal is of that kind.
pub(super) fn late(reason: &str) -> bool {
    OVER.iter().any(|words| reason.contains(words))
}

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let over = |what: &What| match what {
        What::Enrol { granted: false, reason, .. } => late(reason),
        _ => false,
    };
    let (at, event) = last(events, over)?;
    let granted = |event: &Event| match event.what {
        What::Enrol { granted, .. } => granted,
        _ => super::stage(&event.what) >= RUNNING,
    };
    if events.iter().skip(at + 1).any(granted) {
        return None;
    }
    Some(Finding {
        rule: "nonce-expired",
        hop: Hop::Vouching,
        sentence: "the agent asked for a certificate with a nonce, or for a boot window, that holds no longer".to_owned(),
        evidence: vec![text::line(event)],
        next_action: "`dayzero host retry HOST` opens a new window, with a new nonce on a new medium; if it happens again, the BMC keeps an old medium (eject it there), or the boot takes longer than the window".into(),
    })
}
