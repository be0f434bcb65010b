//! DHCP messages came in and were not answered, or not as their client wished: each cause with its own name and remedy.

use super::{ADDRESSED, Finding, Hop, WhyContext, last};
use crate::text;
use dayzero_model::event::{Event, Ignored, What};
use std::borrow::Cow;

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let ours = |why: &Ignored| !matches!(why, Ignored::OtherServer { .. } | Ignored::NoLoader { .. });
    let (at, event) = last(events, |what| matches!(what, What::DhcpIgnored { why, .. } if ours(why)))?;
    let What::DhcpIgnored { reason, why } = &event.what else { return None };
    let later = events.iter().skip(at + 1).filter(|later| later.mac == event.mac);
    let out = |later: &Event| matches!(later.what, What::DhcpOut { .. });
    let passed = match why {
        // An answer went out beside these: only more than an answer shows that they matter no longer.
        Ignored::OtherMachine | Ignored::NothingSigned => {
            later.clone().any(|later| super::stage(&later.what) > ADDRESSED)
        }
        Ignored::InUse { .. } | Ignored::Declined { .. } => {
            later.clone().any(|l| super::stage(&l.what) > ADDRESSED)
        }
        _ => later.clone().any(out),
    };
    if passed {
        return None;
    }
    let same = |event: &&Event| matches!(&event.what, What::DhcpIgnored { why: other, .. } if other == why);
    let count = events.iter().filter(same).count();
    let (rule, hop, sentence, next_action) = words(why, reason, count, &super::who(event.mac));
    Some(Finding { rule, hop, sentence, evidence: vec![text::line(event)], next_action })
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
            format!("{count} DHCP message(s) came by the relay {relay}, which the plan does not list for that network"),
            format!("if it is yours, add {relay} to the network's `relays` in the plan and apply it; else find out who forwards DHCP to us").into(),
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
            "a board or NIC was swapped, or two cables: correct the UUID in the plan, or the cable".into(),
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
            "reserve an address for it in the plan, or give the network a `pool` with `open_pool: true`".into(),
        ),
        Ignored::Pending | Ignored::Other | Ignored::OtherServer { .. } | Ignored::NoLoader { .. } => (
            "dhcp-not-answered",
            Hop::Dhcp,
            format!("{count} DHCP message(s) were not answered: {reason}"),
            "if this machine belongs here, put its MAC into the plan and apply it; else find out whose it is".into(),
        ),
    }
}
