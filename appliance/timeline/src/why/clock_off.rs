//! The host's clock and ours differ, and it did not enrol: our certificates are valid from 2000 on, so that a clock that lost its
//! battery mostly does no harm; one of 1970 or 1980 does, and so does ours, if it is the one that is off.

use super::{Finding, Hop, WhyContext, last};
use crate::text;
use dayzero_model::event::{Event, What};

/// A difference that a time server does not leave, seconds.
const DAY: u64 = 86_400;
const YEAR: u64 = 31_556_952;

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let granted = |what: &What| matches!(what, What::Enrol { granted: true, .. });
    let told = last(events, |what| matches!(what, What::Clock { ahead, .. } if ahead.unsigned_abs() >= DAY));
    let refused = last(events, |what| matches!(what, What::TlsRefused { clock: true, .. }));
    let at = told.map(|(at, _)| at).max(refused.map(|(at, _)| at))?;
    if super::follows(events, at, granted) {
        return None;
    }
    let sentence = match told.map(|(_, event)| &event.what) {
        Some(What::Clock { whose, ahead }) => {
            let side = if *ahead < 0 { "behind" } else { "ahead of" };
            format!("{whose}'s clock is {} {side} ours", span(ahead.unsigned_abs()))
        }
        _ => {
            "the host holds our certificate to be not valid at its time: its clock and ours differ".to_owned()
        }
    };
    Some(Finding {
        rule: "clock-off",
        hop: Hop::Vouching,
        sentence,
        evidence: [told, refused].into_iter().flatten().map(|(_, event)| text::line(event)).collect(),
        next_action: "compare both with a watch: `date` on the appliance (then its time server), and the date in the host's firmware setup; a clock that starts at its firmware's year has an empty battery".into(),
    })
}

fn span(seconds: u64) -> String {
    match seconds {
        YEAR.. => format!("{}.{} years", seconds / YEAR, seconds % YEAR * 10 / YEAR),
        _ => format!("{} days", seconds / DAY),
    }
}
