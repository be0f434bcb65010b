//! The ports wait for LACP before they forward, and firmware sends none.

use super::{Finding, WhyContext, no_dhcp};
use dayzero_model::event::Event;

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    if !context.lacp {
        return None;
    }
    let powered = no_dhcp::silent_since(events, context)?;
    Some(Finding {
        rule: "lacp-without-fallback",
        sentence: "the host's ports probably wait for LACP, which firmware does not speak".to_owned(),
        evidence: vec![
            "the plan bonds the pod NICs by 802.3ad".to_owned(),
            format!("power on since {powered}, no DHCP message of a pod NIC since"),
        ],
        next_action:
            "switch LACP fallback (\"no lacp suspend-individual\", \"lacp force-up\") on at both ports"
                .to_owned(),
    })
}
