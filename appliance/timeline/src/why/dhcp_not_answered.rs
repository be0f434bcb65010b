//! DHCP messages came in and were not answered, or not as their client wished: each cause with its own name and remedy.

use super::{ADDRESSED, Finding, Hop, WhyContext, last};
use crate::text;
use dayzero_model::event::{Event, Ignored, What};
use std::borrow::Cow;
use std::net::IpAddr;

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    // The others have rules of their own.
    let ours = |why: &Ignored| {
        !matches!(
            why,
            Ignored::OtherServer { .. }
                | Ignored::OtherServer6 { .. }
                | Ignored::NoLoader { .. }
                | Ignored::NoWindow
                | Ignored::Malformed
        )
    };
    let (at, event) = last(events, |what| matches!(what, What::DhcpIgnored { why, .. } if ours(why)))?;
    let What::DhcpIgnored { reason, why } = &event.what else { return None };
    let mut later = events.iter().skip(at + 1).filter(|later| later.mac == event.mac);
    if later.any(|later| is_over(why, &later.what)) {
        return None;
    }
    let same = |event: &&Event| matches!(&event.what, What::DhcpIgnored { why: other, .. } if other == why);
    let count = events.iter().filter(same).count();
    let (rule, hop, sentence, next_action) = words(why, reason, count, &super::who(event.mac));
    Some(Finding { rule, hop, sentence, evidence: vec![text::line(event)], next_action })
}

/// Whether what came later shows that this matters no longer.
fn is_over(why: &Ignored, later: &What) -> bool {
    let went_on = super::stage(later) > ADDRESSED;
    let given = match later {
        What::DhcpOut { kind, address, .. } if kind == "ACK" => *address,
        _ => None,
    };
    match why {
        // An answer went out beside these: only more than an answer says so, or that no boot is to be.
        Ignored::OtherMachine | Ignored::NothingSigned => {
            went_on || matches!(later, What::DhcpIgnored { why: Ignored::NoWindow, .. })
        }
        Ignored::InUse { address, .. } => went_on || given.is_some_and(|given| given != *address),
        Ignored::Declined { address: IpAddr::V4(address) } => {
            went_on || given.is_some_and(|given| given != *address)
        }
        Ignored::Declined { .. } => went_on,
        // An offer needs no store.
        Ignored::NotStored => super::stage(later) >= ADDRESSED,
        _ => matches!(later, What::DhcpOut { .. }),
    }
}

type Words = (&'static str, Hop, String, Cow<'static, str>);

fn words(why: &Ignored, reason: &str, count: usize, who: &str) -> Words {
    match why {
        Ignored::InUse { address, by } => (
            "address-in-use",
            Hop::Arp,
            format!("{address} is to be {who}'s, and {by} answers ARP for it"),
            format!("find the machine with MAC {by} (the switches' address tables have its port) and take {address} from it, or give this host another address in the plan").into(),
        ),
        Ignored::Declined { address } => (
            "declined",
            Hop::Arp,
            format!("{who} declined {address}, {count} time(s): it found somebody else there, or dislikes our answer"),
            format!("ping {address} with this host off: whoever answers has to give it up; else look at the host's screen").into(),
        ),
        Ignored::PoolUsedUp => (
            "pool-used-up",
            Hop::Dhcp,
            format!("{count} DHCP message(s) found no address left in the network's pool"),
            "make the network's `pool` larger in the plan and apply it; machines that are gone give theirs back when their leases end".into(),
        ),
        Ignored::UnknownRelay { relay } => (
            "unknown-relay",
            Hop::Dhcp,
            format!("{count} DHCP message(s) named the relay {relay} and were not taken from it: {reason}"),
            format!("if the relay is yours, list {relay} under the network's `relays` in the plan, and an address that it sends from beside that one under `relay_sources`, and apply it; else find out who forwards DHCP to us").into(),
        ),
        Ignored::WrongNetwork => (
            "wrong-network",
            Hop::Dhcp,
            format!("{who} asks on a network that it is not planned on: {reason}"),
            "check its cable, and the VLAN of its switch port".into(),
        ),
        Ignored::OtherMachine => (
            "other-machine",
            Hop::Dhcp,
            "the machine that asks has this host's NIC and another UUID".to_owned(),
            "a board or NIC was swapped, or two cables: correct the cable, or write the machine's UUID into the plan (it counts before the one that the BMC tells)".into(),
        ),
        Ignored::NothingSigned => (
            "nothing-signed",
            Hop::Dhcp,
            format!("{who} boots under Secure Boot and was given no boot file: {reason}"),
            "set `secure` under [files] in serve.toml to the directory with the signed boot files, and restart; or write another `secure_boot` for this host into the plan".into(),
        ),
        Ignored::NotStored => (
            "lease-not-stored",
            Hop::Dhcp,
            "our store refused the lease, so that we did not answer".to_owned(),
            "look at the appliance's log and disk (`dayzero store verify`)".into(),
        ),
        Ignored::NoPool => (
            "no-pool",
            Hop::Dhcp,
            format!("{count} DHCP message(s) were not answered: {reason}"),
            "reserve an address for it in the plan, or give the network a `pool` (for machines that nobody planned, with `open_pool: true`)".into(),
        ),
        Ignored::Pending
        | Ignored::Other
        | Ignored::OtherServer { .. }
        | Ignored::OtherServer6 { .. }
        | Ignored::NoLoader { .. }
        | Ignored::NoWindow
        | Ignored::Malformed => (
            "dhcp-not-answered",
            Hop::Dhcp,
            format!("{count} DHCP message(s) were not answered: {reason}"),
            "if this machine belongs here, put its MAC into the plan and apply it; else find out whose it is".into(),
        ),
    }
}
