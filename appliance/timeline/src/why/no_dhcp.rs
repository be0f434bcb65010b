//! Power is on, and the firmware never asked by DHCP.

use super::{Finding, Hop, WhyContext};
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

/// A usual POST is over by then.
const POST: Millis = Millis(120_000);
/// And so is the longest.
const LONG_POST: Millis = Millis(1_800_000);

/// Since when the host has power in an open window without any DHCP message from its pod NICs.
pub(super) fn silent_since(events: &[Event], context: &WhyContext<'_>) -> Option<dayzero_model::Timestamp> {
    let powered = context.facts?.window.as_ref()?.powered?;
    let asked = events.iter().any(|event| event.at >= powered && event.mac.is_some() && is_dhcp(&event.what));
    (!asked && context.now.since(powered) >= POST).then_some(powered)
}

/// What is said beside, as long as the firmware may still be at its POST.
pub(super) fn patience(powered: dayzero_model::Timestamp, context: &WhyContext<'_>) -> &'static str {
    if context.now.since(powered) < LONG_POST {
        "; the firmware may still be at its POST, which takes up to 30 minutes with much memory: its console shows it"
    } else {
        ""
    }
}

fn is_dhcp(what: &What) -> bool {
    super::boots(what) || matches!(what, What::DhcpIgnored { .. })
}

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let powered = silent_since(events, context)?;
    if context.lacp || super::no_link::apply(events, context).is_some() {
        // Those rules say more.
        return None;
    }
    Some(Finding {
        rule: "no-dhcp",
        hop: Hop::Dhcp,
        sentence: format!("the host has power, but none of its pod NICs asked by DHCP{}", patience(powered, context)),
        evidence: vec![format!("power on since {powered}, no DHCP message of a pod NIC since")],
        next_action: "check that network boot is on in the firmware's setup, that the planned MACs are right, and that the ports carry the management network untagged".into(),
    })
}
