//! Power is on, nothing asked by DHCP, and the BMC says that the pod NICs have no link.

use super::{Finding, Hop, WhyContext, no_dhcp};
use crate::text;
use dayzero_model::event::{Event, What};
use dayzero_model::ids::MacAddr;
use dayzero_model::units::Timestamp;
use std::collections::BTreeMap;

/// What was said last of each NIC since then: that it has a link, or none.
pub(super) fn links(events: &[Event], since: Timestamp) -> BTreeMap<MacAddr, (bool, &Event)> {
    let told = |event: &Event| match &event.what {
        What::Link { nic, up, .. } if event.at >= since => Some((*nic, *up)),
        _ => None,
    };
    events.iter().filter_map(|event| told(event).map(|(nic, up)| (nic, (up, event)))).collect()
}

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let powered = no_dhcp::silent_since(events, context)?;
    let nics = links(events, powered);
    if nics.is_empty() || nics.values().any(|(up, _)| *up) {
        return None;
    }
    Some(Finding {
        rule: "no-link",
        hop: Hop::Link,
        sentence: "the host has power, and none of its NICs has a link".to_owned(),
        evidence: nics.values().map(|(_, event)| text::line(event)).collect(),
        next_action: "look at the cables and transceivers of its pod NICs, and whether their switch ports are switched on".into(),
    })
}
