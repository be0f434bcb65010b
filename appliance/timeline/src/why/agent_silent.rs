//! Kernel and initramfs were fetched, and the agent never asked for a certificate.

use super::{Finding, Hop, WhyContext, follows, last, overdue};
use crate::text;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    // What the agent's TLS, or its clock, said has its own rule.
    let (script, _) = last(events, |what| matches!(what, What::Script { .. }))?;
    let fetched = |what: &What| matches!(what, What::HttpFile { status: 200..=299, .. });
    let (at, file) = last(events, fetched).filter(|(at, _)| *at > script)?;
    let silent = !follows(events, at, |what| {
        matches!(what, What::Enrol { .. } | What::Agent { .. } | What::TlsRefused { clock: true, .. })
    });
    // One of two files: kernel and initramfs are fetched one after the other.
    let broke = follows(events, script, |what| matches!(what, What::HttpBroken { .. }));
    let files = events[script..].iter().filter(|event| fetched(&event.what)).count();
    if broke || files < 2 {
        return None;
    }
    if !silent || !overdue(file, context, Millis(60_000)) {
        return None;
    }
    let refused = events[at..].iter().filter(|event| matches!(event.what, What::TlsRefused { .. }));
    let mut evidence = vec![text::line(file)];
    evidence.extend(refused.take(3).map(text::line));
    Some(Finding {
        rule: "agent-silent",
        hop: Hop::Agent,
        sentence: "the discovery image was fetched, but its agent never asked for a certificate".to_owned(),
        evidence,
        next_action: "look at the host's serial console: a kernel panic (too little memory?), a NIC without driver in the image, or no DHCP answer to the running kernel".into(),
    })
}
