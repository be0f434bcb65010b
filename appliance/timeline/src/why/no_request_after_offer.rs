//! We offered an address, and no REQUEST came.

use super::{Finding, PATIENCE, WhyContext, follows, last, overdue};
use crate::text;
use dayzero_model::event::{Event, What};

fn is(what: &What, wanted: &str) -> bool {
    matches!(what, What::DhcpIn { kind, .. } | What::DhcpOut { kind, .. } if kind == wanted)
}

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (at, offer) = last(events, |what| is(what, "OFFER"))?;
    if follows(events, at, |what| is(what, "REQUEST") || is(what, "ACK"))
        || !overdue(offer, context, PATIENCE)
    {
        return None;
    }
    let tries = events.iter().filter(|event| is(&event.what, "DISCOVER")).count();
    Some(Finding {
        rule: "no-request-after-offer",
        sentence: "the client never took our DHCP offer".to_owned(),
        evidence: vec![format!("{tries} DISCOVER(s) in"), text::line(offer)],
        next_action: "our answer does not reach it, or another DHCP server answered first: set the port to spanning-tree edge (portfast), check relay and DHCP snooping (our port must be trusted), and look for a second DHCP server".to_owned(),
    })
}
