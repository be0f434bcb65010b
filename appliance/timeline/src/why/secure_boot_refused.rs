//! Firmware fetched a loader whole, and nothing of it was ever heard: Secure Boot refused it.
//!
//! Only where Secure Boot is known to matter: the BMC tells that it is enforced, or the loader is one for it.

use super::{Finding, Hop, WhyContext, last, overdue};
use crate::text;
use dayzero_model::boot::Chain;
use dayzero_model::event::{Event, What};
use dayzero_model::units::Millis;

/// What firmware may need from the last byte of a loader to the first word of what the loader starts.
const STARTS: Millis = Millis(60_000);

/// A loader's name and which chain it begins.
fn loader(what: &What) -> Option<(&str, Chain)> {
    let name = match what {
        What::TftpEnd { file, error: None, .. } => file.as_str(),
        What::HttpFile { path, status: 200..=299, .. } => path.strip_prefix("/boot/file/")?,
        _ => return None,
    };
    let ipxe = name.ends_with(".efi").then_some(Chain::Ipxe);
    Some((name, Chain::of_file(name).or(ipxe)?))
}

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (at, fetched) = last(events, |what| loader(what).is_some())?;
    let (name, chain) = loader(&fetched.what)?;
    let later = events.get(at + 1..).unwrap_or_default();
    // iPXE asks by DHCP again, GRUB fetches its script, our agent asks what boot it is; firmware's DISCOVER is no sign of life.
    let lives = |what: &What| match what {
        What::Script { .. } | What::Enrol { .. } | What::Agent { .. } | What::TftpStart { .. } => true,
        What::HttpFile { .. } => true,
        What::DhcpIn { ipxe, .. } => *ipxe,
        _ => false,
    };
    let bmc = context.facts.and_then(|facts| facts.bmc.as_ref()).and_then(|bmc| bmc.secure_boot);
    let enforced = bmc.is_some_and(|told| told.enforced);
    if !(enforced || chain != Chain::Ipxe)
        || later.iter().any(|event| lives(&event.what))
        || !overdue(fetched, context, STARTS)
    {
        return None;
    }
    let mut evidence = vec![text::line(fetched)];
    let silent = context.now.since(fetched.at).0 / 1000;
    evidence.push(format!("nothing that it starts was heard in the {silent} s since"));
    evidence.extend(later.iter().find(|event| asks_again(&event.what)).map(text::line));
    evidence.push(match bmc {
        Some(told) if told.enforced => "the BMC tells that Secure Boot is enforced".to_owned(),
        Some(_) => "the BMC tells that Secure Boot is not enforced".to_owned(),
        None => "the BMC tells nothing of Secure Boot; the loader is one for it".to_owned(),
    });
    let (who, next_action) = advice(name, chain);
    Some(Finding {
        rule: "secure-boot-refused",
        hop: Hop::Firmware,
        sentence: format!("{name} was fetched whole and never started: refused by Secure Boot, at {who}"),
        evidence,
        next_action: next_action.into(),
    })
}

fn asks_again(what: &What) -> bool {
    matches!(what, What::DhcpIn { kind, ipxe: false, .. } if kind == "DISCOVER")
}

/// Which hop refuses a loader, and what a person does about it.
fn advice(name: &str, chain: Chain) -> (&'static str, &'static str) {
    match (chain, chain.second() == Some(name)) {
        (Chain::Ipxe, _) => (
            "the firmware: nobody signed this loader",
            "write `secure_boot: uki` (or mok, shim) for this host into the plan and apply it, or switch Secure Boot off in its firmware; its screen says \"Access Denied\" or \"Security Violation\"",
        ),
        (Chain::Uki, _) => (
            "the firmware: it does not know the site's key, or the file was changed",
            "enrol secure-boot.pem of the appliance's data directory into the firmware's db (by its BMC, or its setup), or write `secure_boot: shim` into the plan; if its screen says nothing of \"Access Denied\", look for a kernel panic there",
        ),
        (Chain::Mok, true) => (
            "shim: it does not know the site's key, or the file was changed",
            "enrol secure-boot.pem of the appliance's data directory as a machine owner's key (mokutil --import, then MokManager at the next start), or write `secure_boot: shim` into the plan",
        ),
        (Chain::Shim, true) => (
            "shim: it refuses this GRUB",
            "rebuild the boot files with today's Debian packages: shim and GRUB of one release fit, an older GRUB is revoked",
        ),
        (Chain::Mok | Chain::Shim, false) => (
            "the firmware: it does not know Microsoft's key for other systems, or has revoked this shim",
            "switch \"Microsoft 3rd party UEFI CA\" on in the firmware's setup, or enrol the site's key there and write `secure_boot: uki` into the plan",
        ),
    }
}
