//! Vouched: the host booted the discovery image, and holds a certificate for a key that its BMC vouched for.

use crate::action::Action;
use crate::deadlines;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::boot::Chain;
use dayzero_model::facts::WindowFacts;
use dayzero_model::units::Millis;

/// The hop that a network boot is at: what is waited for, for how long, and what was seen last.
fn hop(window: &WindowFacts) -> (String, Millis, String) {
    let signed = window.chain != Chain::Ipxe;
    let (waits_for, within, seen) = if let Some(at) = window.enrol_asked {
        let waits = format!("the BMC to vouch for the agent's key by {}", window.channel);
        (waits, deadlines::VOUCH, format!("the agent asked for a certificate at {at}"))
    } else if let Some(at) = window.kernel_served {
        let waits = "the discovery image's agent to ask for a certificate".to_owned();
        (waits, deadlines::KERNEL, format!("kernel and initramfs were served at {at}"))
    } else if let (Some(at), true) = (window.script_served, signed) {
        let waits = "the discovery image's agent to ask for a certificate".to_owned();
        (waits, deadlines::KERNEL, format!("the agent asked what boot this is at {at}"))
    } else if let (Some(_), Some(at)) = (window.script_served, window.told_to_wait) {
        // Each time that it is told so, it waits for something new: its time begins again, within the condition's limit.
        let waits = format!(
            "kernel and discovery image to be fetched, once the link has room (told to wait at {at})"
        );
        (
            waits,
            deadlines::BOOT_HOP,
            format!("the link was full, and the host was told to come back, at {at}"),
        )
    } else if let Some(at) = window.script_served {
        let waits = "kernel and discovery image to be fetched".to_owned();
        (waits, deadlines::BOOT_HOP, format!("the boot script was served at {at}"))
    } else if let (Some(at), true) = (window.ipxe_served, signed) {
        let waits = "the signed loader to start, and its agent to ask what boot this is".to_owned();
        (waits, deadlines::KERNEL, format!("{} was transferred at {at}", loader(window.chain)))
    } else if let Some(at) = window.ipxe_served {
        let waits = "iPXE to fetch its boot script".to_owned();
        (waits, deadlines::BOOT_HOP, format!("our iPXE was transferred at {at}"))
    } else if let Some(at) = window.dhcp_seen {
        let waits = format!("the firmware to fetch {}", fetched(window.chain));
        let within = if signed { deadlines::SIGNED } else { deadlines::BOOT_HOP };
        (waits, within, format!("the firmware asked by DHCP at {at}, no completed transfer since"))
    } else {
        let waits = "the firmware to ask by DHCP".to_owned();
        let at = window.powered.unwrap_or(window.opened);
        (
            waits,
            deadlines::POST,
            format!("power was switched on at {at}, no DHCP message of the firmware since"),
        )
    };
    (waits_for, within, seen)
}

fn fetched(chain: Chain) -> &'static str {
    match chain {
        Chain::Ipxe => "our iPXE",
        Chain::Uki => "the signed discovery image",
        Chain::Mok | Chain::Shim => "shim, and what it starts",
    }
}

fn loader(chain: Chain) -> &'static str {
    match chain {
        Chain::Ipxe => "our iPXE",
        Chain::Uki => "the signed discovery image",
        Chain::Mok | Chain::Shim => "shim, or what it starts,",
    }
}

/// Code and observation when time runs out.
pub(crate) fn last_hop(s: &Snapshot<'_>) -> (&'static str, String) {
    match &s.facts.window {
        Some(window) if window.enrol_asked.is_some() => ("vouch-timeout", hop(window).2),
        Some(window) => ("boot-timeout", hop(window).2),
        None => ("boot-timeout", "no boot window was opened".to_owned()),
    }
}

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    if let Some(vouch) = &s.facts.vouch {
        let key = vouch.key.to_string();
        let evidence =
            format!("the BMC vouched for key {} by {} in boot {}", &key[..16], vouch.channel, vouch.boot);
        return Outcome::met(evidence, &(vouch.key, vouch.certificate));
    }
    match s.facts.window.as_ref().filter(|window| window.powered.is_some()) {
        None => {
            Outcome::work(Action::BootDiscovery, "one-time network boot to be set, read back, and power on")
        }
        Some(window) => {
            let (waits_for, within, _) = hop(window);
            Outcome::wait(waits_for, within)
        }
    }
}
