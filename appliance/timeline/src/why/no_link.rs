//! Power is on, nothing asked by DHCP, and the BMC says that the pod NICs have no link.

use super::{Finding, Hop, WhyContext, no_dhcp};
use crate::text;
use dayzero_model::event::{Event, What};
use dayzero_model::ids::MacAddr;
use std::collections::BTreeMap;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let powered = no_dhcp::silent_since(events, context)?;
    // What was said last of each NIC.
    let mut nics: BTreeMap<MacAddr, (bool, &Event)> = BTreeMap::new();
    for event in events.iter().filter(|event| event.at >= powered) {
        if let What::Link { nic, up, .. } = &event.what {
            nics.insert(*nic, (*up, event));
        }
    }
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
