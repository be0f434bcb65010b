//! We offered an address, and no REQUEST came.

use super::{Finding, Hop, PATIENCE, WhyContext, is_firmware, last, overdue};
use crate::text;
use dayzero_model::event::{Event, What};

fn is(what: &What, wanted: &str) -> bool {
    matches!(what, What::DhcpIn { kind, .. } | What::DhcpOut { kind, .. } if kind == wanted)
}

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    // Of an address: a proxy's offer gives none, and the REQUEST after it is another server's.
    let (at, offer) =
        last(events, |what| matches!(what, What::DhcpOut { kind, address: Some(_), .. } if kind == "OFFER"))?;
    let same = |event: &&Event| event.mac == offer.mac;
    let asked =
        events[..at].iter().rev().filter(same).find(|event| matches!(event.what, What::DhcpIn { .. }));
    let bare = matches!(offer.what, What::DhcpOut { file: None, .. });
    if bare && asked.is_some_and(|event| is_firmware(&event.what)) {
        // Firmware takes no offer without a boot file; why there was none has its own rule.
        return None;
    }
    let taken = |event: &Event| is(&event.what, "REQUEST") || is(&event.what, "ACK");
    if events.iter().skip(at + 1).filter(same).any(taken) || !overdue(offer, context, PATIENCE) {
        return None;
    }
    let tries = events.iter().filter(same).filter(|event| is(&event.what, "DISCOVER")).count();
    Some(Finding {
        rule: "no-request-after-offer",
        hop: Hop::Dhcp,
        sentence: "the client never took our DHCP offer".to_owned(),
        evidence: vec![format!("{tries} DISCOVER(s) in"), text::line(offer)],
        next_action: "our answer does not reach it, or another DHCP server answered first: set the port to spanning-tree edge (portfast), check relay and DHCP snooping (our port must be trusted), and look for a second DHCP server".into(),
    })
}
