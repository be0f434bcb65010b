//! The boot script was served, and kernel or initramfs were never fetched whole.

use super::{Finding, Hop, PATIENCE, WhyContext, last, overdue};
use crate::text;
use dayzero_model::boot::BootAction;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let discovery = |what: &What| matches!(what, What::Script { action: BootAction::Discovery { .. }, .. });
    let (at, script) = last(events, discovery)?;
    let later = events.get(at + 1..).unwrap_or_default();
    let files: Vec<_> = later.iter().filter(|event| matches!(event.what, What::HttpFile { .. })).collect();
    let fetched = files.iter().filter(|e| matches!(e.what, What::HttpFile { status: 200..=299, .. })).count();
    let went_on = later.iter().any(|event| matches!(event.what, What::Enrol { .. } | What::Agent { .. }));
    // What was refused, or broke off, has its own rule.
    let told = |event: &&Event| matches!(event.what, What::HttpBroken { .. } | What::HttpFile { status: 400..=502 | 504..=599, .. });
    if later.iter().any(|event| told(&event)) {
        return None;
    }
    // Who was told to come again later (503) waits as long as it was told, and then anew.
    let heard = files.last().copied().unwrap_or(script);
    if fetched >= 2 || went_on || !overdue(heard, context, Millis(PATIENCE.0 * 2)) {
        return None;
    }
    let mut evidence = vec![text::line(script)];
    evidence.extend(files.iter().map(|event| text::line(event)));
    Some(Finding {
        rule: "kernel-not-fetched",
        hop: Hop::Kernel,
        sentence: "iPXE got its script, but kernel and discovery image were not fetched whole".to_owned(),
        evidence,
        next_action: "look at the host's screen for iPXE's error; HTTP to the appliance's port 8080 must pass, and the host needs memory for twice the image".into(),
    })
}
