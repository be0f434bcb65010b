//! The loader is fetched again and again, and never comes to its script.

use super::{Finding, Hop, WhyContext, is_script, loader};
use crate::text;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

/// So many loaders, within so long, are a loop.
const TIMES: usize = 3;
const WITHIN: Millis = Millis(600_000);

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (_, name) = loader(events)?;
    // Who is acknowledged its script and does not come for it has another fault, and starts again.
    let came = |event: &Event| match &event.what {
        What::Script { .. } => true,
        What::DhcpOut { kind, file: Some(file), .. } => (kind == "ACK" || kind == "REPLY") && is_script(file),
        _ => false,
    };
    let since = events.iter().rposition(came).map_or(0, |at| at + 1);
    let fetched: Vec<&Event> = events[since..]
        .iter()
        .filter(|event| is_whole(&event.what, name) && !super::overdue(event, context, WITHIN))
        .collect();
    if fetched.len() < TIMES {
        return None;
    }
    Some(Finding {
        rule: "ipxe-loop",
        hop: Hop::Script,
        sentence: format!("{name} was fetched {} times, and never asked for its script", fetched.len()),
        evidence: fetched.iter().rev().take(TIMES).rev().map(|event| text::line(event)).collect(),
        next_action: "it is given the loader again by another DHCP server or proxy, or it starts and fails at once: look at the host's screen, and for a second server (`dayzero doctor --listen-only 60`)".into(),
    })
}

/// This file was fetched whole, from whatever directory: loaders are told apart by their names.
pub(super) fn is_whole(what: &What, name: &str) -> bool {
    match what {
        What::TftpEnd { file, error: None, .. } => file.rsplit('/').next() == Some(name),
        What::HttpFile { path, status: 200, .. } => path.rsplit('/').next() == Some(name),
        _ => false,
    }
}
