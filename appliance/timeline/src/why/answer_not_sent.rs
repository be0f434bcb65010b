//! Our answer by DHCP could not leave: its client is not at fault.

use super::{ASKED, Finding, Hop, OFFERED, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, What};

/// Whether this answer, one of the events, could not leave.
pub(super) fn unsent(events: &[Event], answer: &Event) -> bool {
    let What::DhcpOut { kind, .. } = &answer.what else { return false };
    let of_it = |later: &Event| {
        later.mac == answer.mac
            && matches!(&later.what, What::DhcpUnsent { kind: unsent, .. } if unsent == kind)
    };
    events.iter().skip_while(|event| !std::ptr::eq(*event, answer)).any(of_it)
}

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let (at, event) = last(events, |what| matches!(what, What::DhcpUnsent { .. }))?;
    let What::DhcpUnsent { kind, to, error } = &event.what else { return None };
    // A later one left, or another NIC of the host boots.
    let mut later = events.iter().skip(at + 1).filter(|later| later.mac == event.mac);
    if later.any(|later| super::stage(&later.what) >= OFFERED) || reached(events, at, ASKED) {
        return None;
    }
    Some(Finding {
        rule: "answer-not-sent",
        hop: Hop::Dhcp,
        sentence: format!("our {kind} to {} could not leave the appliance: {error}", super::who(event.mac)),
        evidence: vec![text::line(event)],
        next_action: format!("look at the appliance itself: whether its interface is up and has its address (`ip addr`), its way to {to} (`ip route get {to}`), and its firewall (`nft list ruleset`: DHCP's answers go out from UDP 67, by IPv6 from 547); \"Operation not permitted\" is a firewall's word, \"Network is unreachable\" a missing route's").into(),
    })
}
