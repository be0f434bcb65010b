//! The client took the offer of a DHCP server that is not ours.

use super::{Finding, Hop, WhyContext, last};
use crate::text;
use dayzero_model::event::{Event, Ignored, What};

/// Who it is, and where to switch it off.
fn server(why: &Ignored) -> Option<(String, String)> {
    let elsewhere = "or say `dhcp: proxy` for this network in the plan if it is meant to give the addresses";
    match why {
        Ignored::OtherServer { address } => Some((
            format!("{address}, a DHCP server that is not ours"),
            format!(
                "find {address} (its switch port: `dayzero doctor --listen-only 60` names servers that it hears) and switch its DHCP off there, {elsewhere}"
            ),
        )),
        Ignored::OtherServer6 { duid, mac } => {
            let who =
                mac.map_or_else(|| format!("with DUID {duid}"), |mac| format!("of MAC {mac} (DUID {duid})"));
            Some((
                format!("a DHCPv6 server that is not ours, {who}"),
                format!(
                    "find it (`dayzero doctor` asks for DHCPv6 servers and names their addresses; the switches' tables have the port of its MAC) and switch its DHCPv6 off there, {elsewhere}"
                ),
            ))
        }
        _ => None,
    }
}

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let of = |what: &What| match what {
        What::DhcpIgnored { why, .. } => server(why),
        _ => None,
    };
    let (at, event) = last(events, |what| of(what).is_some())?;
    let (server, next_action) = of(&event.what)?;
    // Its next boot may have taken ours.
    let ours = events.iter().skip(at + 1);
    if ours.clone().any(|later| later.mac == event.mac && super::stage(&later.what) >= super::ADDRESSED) {
        return None;
    }
    let offered = |what: &What| super::stage(what) == super::OFFERED;
    let mut evidence: Vec<String> =
        last(&events[..at], offered).map(|(_, event)| text::line(event)).into_iter().collect();
    evidence.push(text::line(event));
    Some(Finding {
        rule: "other-dhcp-server",
        hop: Hop::Dhcp,
        sentence: format!("{} took the offer of {server}", super::who(event.mac)),
        evidence,
        next_action: next_action.into(),
    })
}
