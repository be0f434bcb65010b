//! Kernel and initramfs were fetched, and the agent never asked for a certificate.

use super::{Finding, WhyContext, follows, last, overdue};
use crate::text;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (script, _) = last(events, |what| matches!(what, What::Script { .. }))?;
    let fetched = |what: &What| matches!(what, What::HttpFile { status: 200..=299, .. });
    let (at, file) = last(events, fetched).filter(|(at, _)| *at > script)?;
    let silent = !follows(events, at, |what| matches!(what, What::Enrol { .. } | What::Agent { .. }));
    if !silent || !overdue(file, context, Millis(60_000)) {
        return None;
    }
    Some(Finding {
        rule: "agent-silent",
        sentence: "the discovery image was fetched, but its agent never asked for a certificate".to_owned(),
        evidence: vec![text::line(file)],
        next_action: "look at the host's serial console: a kernel panic (too little memory?), a NIC without driver in the image, or no DHCP answer to the running kernel".to_owned(),
    })
}
