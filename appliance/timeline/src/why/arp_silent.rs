//! We cannot send to a client, since it does not answer ARP for the address that we gave it.

use super::{ASKED, Finding, Hop, LOADED, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let (at, event) = last(events, |what| matches!(what, What::ArpSilent { .. }))?;
    let What::ArpSilent { address } = event.what else { return None };
    if reached(events, at, LOADED) {
        return None;
    }
    let asked = last(&events[..at], |what| super::stage(what) >= ASKED).map(|(_, event)| text::line(event));
    let mut evidence: Vec<String> = asked.into_iter().collect();
    evidence.push(text::line(event));
    Some(Finding {
        rule: "arp-silent",
        hop: Hop::Arp,
        sentence: format!("{} has {address} and asks us, but does not answer ARP for it", super::who(event.mac)),
        evidence,
        next_action: "our ARP does not reach it, or its answer does not reach us: look for ARP inspection or private VLANs on its switch (the appliance's port must be trusted), and for a second NIC of the host that answers elsewhere".into(),
    })
}
