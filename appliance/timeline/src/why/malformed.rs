//! A client asks by DHCP, and what it sends breaks the protocol's rules: it cannot be answered.

use super::{ADDRESSED, ASKED, Finding, Hop, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, Ignored, What};

fn is_broken(what: &What) -> bool {
    matches!(what, What::DhcpIgnored { why: Ignored::Malformed, .. })
}

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let (at, event) = last(events, is_broken)?;
    let What::DhcpIgnored { reason, .. } = &event.what else { return None };
    let same = |other: &&Event| other.mac == event.mac;
    // Another message of it may be right, and another NIC of its host may boot.
    let addressed =
        events.iter().skip(at + 1).filter(same).any(|later| super::stage(&later.what) >= ADDRESSED);
    if addressed || reached(events, at, ASKED) {
        return None;
    }
    let count = events.iter().filter(same).filter(|event| is_broken(&event.what)).count();
    let asked = |event: &&Event| matches!(event.what, What::DhcpIn { .. });
    let asked = events[..at].iter().rev().filter(same).find(asked);
    let who = super::who(event.mac);
    Some(Finding {
        rule: "malformed-dhcp",
        hop: Hop::Dhcp,
        sentence: format!("{who} asked by DHCP and got no answer, {count} time(s) or more: {reason}"),
        evidence: asked.into_iter().chain([event]).map(text::line).collect(),
        next_action: format!("update the firmware of that NIC or board (of its relay, if what is wrong is option 82), and report the fault to its vendor with the datagrams: `dayzero pcap {who} --write FILE`, for Wireshark; until then let it boot another way that its firmware offers: UEFI HTTP boot, IPv6, virtual media").into(),
    })
}
