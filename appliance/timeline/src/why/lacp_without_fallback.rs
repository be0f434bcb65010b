//! The ports wait for LACP before they forward, and firmware sends none. That is never seen itself: the sentence says what was,
//! and what is not known.

use super::{Finding, Hop, WhyContext, no_dhcp, no_link};
use crate::text;
use dayzero_model::event::Event;

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
    let links = no_link::links(events, powered);
    evidence.extend(links.values().map(|(_, event)| text::line(event)));
    let link = match links.values().filter(|(up, _)| *up).count() {
        0 => "whether its NICs have a link is not known (its BMC does not tell)".to_owned(),
        up if up == links.len() => "its NICs have a link".to_owned(),
        up => format!("{up} of its {} NICs has a link", links.len()),
    };
    let inventory = context.facts.and_then(|facts| facts.inventory.as_ref());
    let heard = inventory.map_or(&[][..], |inventory| &inventory.neighbours);
    let heard = heard.iter().find(|one| links.contains_key(&one.nic_mac)).or(heard.first());
    evidence.extend(heard.map(|one| {
        format!(
            "{} heard LLDP of {} port {} when it was inventoried",
            one.nic_mac, one.system_name, one.port_id
        )
    }));
    let switch = heard.map_or_else(
        || "whether a switch is at their other end is not known (no LLDP was heard yet)".to_owned(),
        |one| format!("{} heard a switch by LLDP when it was inventoried", one.nic_mac),
    );
    Some(Finding {
        rule: "lacp-without-fallback",
        hop: Hop::Link,
        sentence: format!(
            "the host has power, and none of its pod NICs asked by DHCP; {link}; {switch}; ports of a bond may wait for LACP, which firmware does not speak{}",
            no_dhcp::patience(powered, context)
        ),
        evidence,
        next_action:
            "switch LACP fallback (\"no lacp suspend-individual\", \"lacp force-up\") on at both ports".into(),
    })
}
