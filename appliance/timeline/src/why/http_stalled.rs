//! An HTTP answer broke off in the middle.

use super::{Finding, Hop, RUNNING, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let (at, event) = last(events, |what| matches!(what, What::HttpBroken { .. }))?;
    let What::HttpBroken { path, bytes, length, .. } = &event.what else { return None };
    let again = events.iter().skip(at + 1).any(|event| match &event.what {
        What::HttpFile { path: later, status: 200..=299, .. } => later == path,
        _ => false,
    });
    if again || reached(events, at, RUNNING) {
        return None;
    }
    let file = path.rsplit('/').next().unwrap_or(path);
    Some(Finding {
        rule: "http-stalled",
        hop: if path.starts_with("/images/") { Hop::After } else { Hop::Kernel },
        sentence: format!("HTTP of {file} stopped after {bytes} of {length} bytes"),
        evidence: vec![text::line(event)],
        next_action: "look for packet loss and for an MTU that differs on the way (large packets stop, small ones pass), and at the host's screen: too little memory for the image ends it too".into(),
    })
}
