//! The client took the offer of a DHCP server that is not ours.

use super::{Finding, Hop, WhyContext, last};
use crate::text;
use dayzero_model::event::{Event, Ignored, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let other = |what: &What| matches!(what, What::DhcpIgnored { why: Ignored::OtherServer { .. }, .. });
    let (at, event) = last(events, other)?;
    let What::DhcpIgnored { why: Ignored::OtherServer { address }, .. } = event.what else { return None };
    // Its next boot may have taken ours.
    let ours = events.iter().skip(at + 1);
    if ours.clone().any(|later| later.mac == event.mac && super::stage(&later.what) >= super::ADDRESSED) {
        return None;
    }
    let offered = |what: &What| super::stage(what) == super::OFFERED;
    let mut evidence: Vec<String> =
        last(&events[..at], offered).map(|(_, event)| text::line(event)).into_iter().collect();
    evidence.push(text::line(event));
    Some(Finding {
        rule: "other-dhcp-server",
        hop: Hop::Dhcp,
        sentence: format!("{} took the offer of {address}, a DHCP server that is not ours", super::who(event.mac)),
        evidence,
        next_action: format!("find {address} (its switch port: `dayzero doctor --listen-only 60` names servers that it hears) and switch its DHCP off there, or say `dhcp: proxy` for this network in the plan if it is meant to give the addresses").into(),
    })
}
