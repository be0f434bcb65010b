//! The loader was fetched whole, and the next that is heard is the firmware again, or nothing: it was not started.
//!
//! A loader that is refused (wrong architecture, Secure Boot) looks just so; what says which it was has its own rule.

use super::ipxe_loop::is_whole;
use super::{Finding, Hop, SCRIPTED, WhyContext, follows, last, loader, overdue, reached};
use crate::text;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

/// iPXE's start and the search for its NICs.
const START: Millis = Millis(60_000);

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (_, name) = loader(events)?;
    let (at, fetched) = last(events, |what| is_whole(what, name))?;
    // iPXE asks by DHCP; shim fetches what it starts.
    let spoke = |what: &What| match what {
        What::DhcpIn { ipxe, .. } => *ipxe,
        What::TftpStart { file } => file.rsplit('/').next() != Some(name),
        _ => false,
    };
    let told = |what: &What| matches!(what, What::WrongLoader { .. });
    if follows(events, at, spoke) || follows(events, at, told) || reached(events, at, SCRIPTED) {
        return None;
    }
    let asks = |event: &&Event| super::is_firmware(&event.what) && event.mac == fetched.mac;
    let again = events.iter().skip(at + 1).find(asks);
    if again.is_none() && !overdue(fetched, context, START) {
        return None;
    }
    let mut evidence = vec![text::line(fetched)];
    evidence.extend(again.map(text::line));
    let then = if again.is_some() { "its firmware asked again" } else { "nothing was heard of it" };
    Some(Finding {
        rule: "loader-not-started",
        hop: Hop::Firmware,
        sentence: format!("{name} was fetched whole, and then {then}: it was not started"),
        evidence,
        next_action: "look at the host's screen: Secure Boot refuses what it does not trust (\"Access Denied\", \"Security Violation\"), a broken NIC driver hangs; a firmware update helps the latter".into(),
    })
}
