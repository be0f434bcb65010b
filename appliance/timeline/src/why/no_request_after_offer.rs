//! We offered an address, by IPv4 or IPv6, and no REQUEST came.

use super::answer_not_sent::unsent;
use super::{Finding, Hop, OFFERED, PATIENCE, WhyContext, is_firmware, last, overdue, stage};
use crate::text;
use dayzero_model::event::{Event, What};

fn asks(what: &What, kinds: &[&str]) -> bool {
    matches!(what, What::DhcpIn { kind, .. } if kinds.contains(&&**kind))
}

/// It takes an offer, ours or another server's, or was given its address.
fn takes(what: &What) -> bool {
    asks(what, &["REQUEST", "REQUEST6"])
        || matches!(what, What::DhcpOut { kind, address: Some(_), .. } if kind == "ACK" || kind == "REPLY")
}

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    // Of an address: a proxy's offer gives none, and the REQUEST after it is another server's.
    let offers =
        |what: &What| stage(what) == OFFERED && matches!(what, What::DhcpOut { address: Some(_), .. });
    let (at, offer) = last(events, offers)?;
    if unsent(events, offer) {
        // It never left.
        return None;
    }
    let same = |event: &&Event| event.mac == offer.mac;
    let asked =
        events[..at].iter().rev().filter(same).find(|event| matches!(event.what, What::DhcpIn { .. }));
    let bare = matches!(offer.what, What::DhcpOut { file: None, .. });
    if bare && asked.is_some_and(|event| is_firmware(&event.what)) {
        // Firmware takes no offer without a boot file; why there was none has its own rule.
        return None;
    }
    if events.iter().skip(at + 1).filter(same).any(|event| takes(&event.what))
        || !overdue(offer, context, PATIENCE)
    {
        return None;
    }
    let six = matches!(&offer.what, What::DhcpOut { kind, .. } if kind == "ADVERTISE");
    let (question, sentence, next_action) = if six {
        (
            "SOLICIT",
            "the client never took our DHCPv6 offer",
            "our answer does not reach it, or another DHCPv6 server answered first: set the port to spanning-tree edge (portfast), check relay, DHCPv6 guard and RA guard (our port must be trusted), and look for a second DHCPv6 server",
        )
    } else {
        (
            "DISCOVER",
            "the client never took our DHCP offer",
            "our answer does not reach it, or another DHCP server answered first: set the port to spanning-tree edge (portfast), check relay and DHCP snooping (our port must be trusted), and look for a second DHCP server",
        )
    };
    let tries = events.iter().filter(same).filter(|event| asks(&event.what, &[question])).count();
    Some(Finding {
        rule: "no-request-after-offer",
        hop: Hop::Dhcp,
        sentence: sentence.to_owned(),
        evidence: vec![format!("{tries} {question}(s) in"), text::line(offer)],
        next_action: next_action.into(),
    })
}
