//! The boot script was served, and kernel or initramfs were never fetched whole, or are such that iPXE cannot start them.

use super::{Finding, Hop, PATIENCE, WhyContext, last, overdue};
use crate::text;
use dayzero_model::boot::BootAction;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

/// Our script asks for itself again when what it names cannot be loaded or started; so many in one start of iPXE are a
/// circle.
const TIMES: usize = 3;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (at, script) = last(events, is_discovery)?;
    let later = events.get(at + 1..).unwrap_or_default();
    if later.iter().any(|event| matches!(event.what, What::Enrol { .. } | What::Agent { .. })) {
        return None;
    }
    // What was refused, or broke off, has its own rule.
    let before = events[..at].iter().rposition(|event| is_discovery(&event.what)).unwrap_or(at);
    let told = |event: &Event| matches!(event.what, What::HttpBroken { .. } | What::HttpFile { status: 400..=502 | 504..=599, .. });
    if events[before..].iter().any(told) {
        return None;
    }
    let times = times_asked(events, at);
    let files: Vec<_> = later.iter().filter(|event| matches!(event.what, What::HttpFile { .. })).collect();
    let fetched = files.iter().filter(|e| matches!(e.what, What::HttpFile { status: 200..=299, .. })).count();
    // Who was told to come again later (503) waits as long as it was told, and then anew.
    let heard = files.last().copied().unwrap_or(script);
    let late = fetched < 2 && overdue(heard, context, Millis(PATIENCE.0 * 2));
    if !late && times < TIMES {
        return None;
    }
    let sentence = if times < TIMES {
        "iPXE got its script, but kernel and discovery image were not fetched whole".to_owned()
    } else {
        format!(
            "iPXE asked for its script {times} times: what that names was not fetched whole, or cannot be started"
        )
    };
    let mut evidence = vec![text::line(script)];
    evidence.extend(files.iter().map(|event| text::line(event)));
    Some(Finding {
        rule: "kernel-not-fetched",
        hop: Hop::Kernel,
        sentence,
        evidence,
        next_action: "look at the host's screen for iPXE's error; HTTP to the appliance's port 8080 must pass, the host needs memory for twice the image, and the kernel that serve.toml names must be one".into(),
    })
}

fn is_discovery(what: &What) -> bool {
    matches!(what, What::Script { action: BootAction::Discovery { .. }, .. })
}

/// How often the script at place `at` was asked for since its loader asked by DHCP; 0 if it had to wait in between.
fn times_asked(events: &[Event], at: usize) -> usize {
    let begun = events[..at].iter().rposition(|event| matches!(event.what, What::DhcpIn { .. }));
    let since = &events[begun.unwrap_or(0)..];
    if since.iter().any(|event| matches!(event.what, What::HttpFile { status: 503, .. })) {
        return 0;
    }
    since.iter().filter(|event| is_discovery(&event.what)).count()
}
