//! The firmware boots from the network although it should boot from its disk: each time it is sent on to the disk, by a
//! script or, under Secure Boot, by getting no boot file.

use super::{Finding, Hop, WhyContext};
use crate::text;
use dayzero_model::boot::BootAction;
use dayzero_model::event::{Event, Ignored, What};
use dayzero_model::units::Millis;

/// Once happens after a window that was closed just then.
const TIMES: usize = 2;
/// With a shorter pause between them they are one boot's: firmware repeats its question, with pauses of up to 32 s, and
/// tries one NIC by PXE, then by HTTP and by IPv6.
const ONE_BOOT: Millis = Millis(60_000);

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    if context.facts?.window.is_some() {
        return None;
    }
    let bare = |what: &What| matches!(what, What::DhcpIgnored { why: Ignored::NoWindow, .. });
    let leaves = |what: &What| matches!(what, What::Script { action: BootAction::LocalDisk, .. });
    let boots = |what: &What| matches!(what, What::Script { .. }) || bare(what);
    let last = events.iter().rev().find(|event| boots(&event.what))?;
    let sent_on = |event: &&Event| bare(&event.what) || leaves(&event.what);
    if !sent_on(&last) {
        return None;
    }
    // Of one NIC: firmware tries them one after the other, in one boot.
    let (mut times, mut before): (Vec<&Event>, Option<&Event>) = (Vec::new(), None);
    for event in events.iter().filter(sent_on).filter(|event| event.mac == last.mac) {
        if before.is_none_or(|before| event.at.since(before.at) >= ONE_BOOT) {
            times.push(event);
        }
        before = Some(event);
    }
    if times.len() < TIMES {
        return None;
    }
    Some(Finding {
        rule: "network-first",
        hop: Hop::After,
        sentence: format!("the firmware booted from the network {} times without need, and was sent on to its disk", times.len()),
        evidence: times.iter().rev().take(3).rev().map(|event| text::line(event)).collect(),
        next_action: "put the disk before the network in the firmware's boot order: each start waits for the network, and cannot do without the appliance".into(),
    })
}
