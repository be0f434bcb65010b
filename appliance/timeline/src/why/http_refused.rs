//! A boot file was asked for and not served.

use super::{Finding, Hop, RUNNING, SCRIPTED, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    // 503: it was told when to come back.
    let refused = |what: &What| matches!(what, What::HttpFile { status: 400..=502 | 504..=599, .. });
    let (at, event) = last(events, refused)?;
    if reached(events, at, RUNNING) || (super::follows(events, at, |what| super::stage(what) == SCRIPTED + 1))
    {
        return None;
    }
    let What::HttpFile { path, status, .. } = &event.what else { return None };
    let (why, next_action) = match status {
        404 => (
            "there is no such file",
            "is the boot image built, and named in serve.toml? `dayzero doctor` looks at each boot file; a name that is not ours comes from another DHCP server's boot options",
        ),
        500..=599 => ("it could not be read", "the appliance's log says why; look at its disk"),
        _ => ("the request was not understood", "it is no client of ours: find out what asks"),
    };
    Some(Finding {
        rule: "http-refused",
        hop: Hop::Kernel,
        sentence: format!("{path} was answered by {status}: {why}"),
        evidence: vec![text::line(event)],
        next_action: next_action.into(),
    })
}
