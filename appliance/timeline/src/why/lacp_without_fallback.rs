//! The ports wait for LACP before they forward, and firmware sends none.

use super::{Finding, Hop, WhyContext, last, no_dhcp, no_link};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    if !context.lacp {
        return None;
    }
    let powered = no_dhcp::silent_since(events, context)?;
    if no_link::apply(events, context).is_some() {
        return None;
    }
    let mut evidence = vec![
        "the plan bonds the pod NICs by 802.3ad".to_owned(),
        format!("power on since {powered}, no DHCP message of a pod NIC since"),
    ];
    let link = last(events, |what| matches!(what, What::Link { up: true, .. }))
        .filter(|(_, event)| event.at >= powered);
    evidence.extend(link.map(|(_, event)| text::line(event)));
    let inventory = context.facts.and_then(|facts| facts.inventory.as_ref());
    let heard = inventory.and_then(|inventory| inventory.neighbours.first());
    evidence.extend(heard.map(|one| {
        format!(
            "{} heard LLDP of {} port {} when it was inventoried",
            one.nic_mac, one.system_name, one.port_id
        )
    }));
    Some(Finding {
        rule: "lacp-without-fallback",
        hop: Hop::Link,
        sentence: format!(
            "the host's ports probably wait for LACP, which firmware does not speak{}",
            no_dhcp::patience(powered, context)
        ),
        evidence,
        next_action:
            "switch LACP fallback (\"no lacp suspend-individual\", \"lacp force-up\") on at both ports".into(),
    })
}
