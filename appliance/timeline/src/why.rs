//! Why a host does not go on: rules over its timeline, one file each. A rule names the hop that failed, what was observed,
//! and what a person can do next.
//!
//! Where do I add a rule: one file in `why/`, one row in [`RULES`], a fault in `why/tests.rs`. Invariants: a rule is a pure
//! function of the events (oldest first) and the context; it finds nothing once the boot has passed its hop.

mod agent_silent;
mod answer_not_sent;
mod arp_silent;
mod clock_off;
mod clone_refused;
mod condition_failed;
mod dhcp_not_answered;
mod http_refused;
mod http_stalled;
mod ipxe_loop;
mod kernel_silent;
mod lacp_without_fallback;
mod loader_not_asked;
mod loader_not_started;
mod malformed;
mod network_first;
mod no_dhcp;
mod no_link;
mod no_request_after_offer;
mod nonce_expired;
mod other_server;
mod script_not_asked;
mod secure_boot_refused;
mod tftp_stopped;
mod wrong_architecture;

pub use clone_refused::clones;

#[cfg(test)]
mod tests;

use dayzero_model::condition::Conditions;
use dayzero_model::event::{Event, What};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::MacAddr;
use dayzero_model::units::{Millis, Timestamp};
use std::borrow::Cow;

/// What is known beside the events.
#[derive(Clone, Copy, Debug)]
pub struct WhyContext<'a> {
    /// Now.
    pub now: Timestamp,
    /// The host's conditions, where it is about a host.
    pub conditions: Option<&'a Conditions>,
    /// Its facts.
    pub facts: Option<&'a HostFacts>,
    /// The plan bonds its pod NICs by LACP.
    pub lacp: bool,
}

/// Where on its way a boot failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// From the NIC to its switch port.
    Link,
    /// From the firmware's first question to its address.
    Dhcp,
    /// Whose an address is, and where.
    Arp,
    /// Fetching our loader.
    Loader,
    /// Starting it.
    Firmware,
    /// Fetching the boot script.
    Script,
    /// Fetching kernel and initramfs.
    Kernel,
    /// The agent in the discovery image.
    Agent,
    /// From the agent's request to its certificate.
    Vouching,
    /// What follows the boot.
    After,
}

impl Hop {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Hop::Link => "link",
            Hop::Dhcp => "DHCP",
            Hop::Arp => "ARP",
            Hop::Loader => "fetching the loader",
            Hop::Firmware => "starting the loader",
            Hop::Script => "fetching the boot script",
            Hop::Kernel => "fetching kernel and initramfs",
            Hop::Agent => "starting the agent",
            Hop::Vouching => "vouching",
            Hop::After => "after the boot",
        }
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// The hop that failed.
    pub hop: Hop,
    /// What is wrong.
    pub sentence: String,
    /// What was observed: event lines or facts.
    pub evidence: Vec<String>,
    /// What a person can do next.
    pub next_action: Cow<'static, str>,
}

type Rule = fn(&[Event], &WhyContext<'_>) -> Option<Finding>;

/// All rules, the most telling first.
const RULES: &[Rule] = &[
    condition_failed::apply,
    clone_refused::apply,
    nonce_expired::apply,
    clock_off::apply,
    wrong_architecture::apply,
    arp_silent::apply,
    tftp_stopped::apply,
    ipxe_loop::apply,
    http_stalled::apply,
    http_refused::apply,
    secure_boot_refused::apply,
    loader_not_started::apply,
    answer_not_sent::apply,
    other_server::apply,
    malformed::apply,
    dhcp_not_answered::apply,
    no_request_after_offer::apply,
    loader_not_asked::apply,
    script_not_asked::apply,
    kernel_silent::apply,
    agent_silent::apply,
    no_link::apply,
    lacp_without_fallback::apply,
    no_dhcp::apply,
    network_first::apply,
];

/// What the rules find in a host's or MAC's events (oldest first), the verdict first.
pub fn why(events: &[Event], context: &WhyContext<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().filter_map(|rule| rule(events, context)).collect();
    // That a boot ran out of time is true, and what stopped it is the news.
    if let [condition, network, ..] = findings.as_mut_slice()
        && condition.rule == condition_failed::NAME
        && condition.hop != Hop::After
    {
        std::mem::swap(condition, network);
    }
    findings
}

/// A hop that has taken longer than this has not just begun.
pub(crate) const PATIENCE: Millis = Millis(15_000);

/// How far a boot had come when this was seen; 0: it does not say.
fn stage(what: &What) -> u8 {
    match what {
        What::DhcpIn { .. } => 1,
        What::DhcpOut { kind, .. } if kind == "OFFER" || kind == "ADVERTISE" => 2,
        What::DhcpOut { kind, .. } if kind == "ACK" || kind == "REPLY" => 3,
        What::TftpStart { .. } => 4,
        What::TftpEnd { error: None, .. } => 5,
        What::Script { .. } => 6,
        What::HttpFile { status: 200..=299, .. } => 7,
        What::Enrol { .. } | What::Agent { .. } => 8,
        _ => 0,
    }
}

const OFFERED: u8 = 2;
const ADDRESSED: u8 = 3;
const ASKED: u8 = 4;
const LOADED: u8 = 5;
const SCRIPTED: u8 = 6;
const RUNNING: u8 = 8;

/// Whether something after place `at` shows that the boot has come to this stage.
pub(crate) fn reached(events: &[Event], at: usize, least: u8) -> bool {
    follows(events, at, |what| stage(what) >= least)
}

/// The last event that `test` accepts, with its place.
pub(crate) fn last(events: &[Event], test: impl Fn(&What) -> bool) -> Option<(usize, &Event)> {
    events.iter().enumerate().rev().find(|(_, event)| test(&event.what))
}

/// Whether an event that `test` accepts comes after place `at`.
pub(crate) fn follows(events: &[Event], at: usize, test: impl Fn(&What) -> bool) -> bool {
    events.iter().skip(at + 1).any(|event| test(&event.what))
}

/// Enough time has passed since an event for its successor to be missed.
pub(crate) fn overdue(event: &Event, context: &WhyContext<'_>, patience: Millis) -> bool {
    context.now.since(event.at) >= patience
}

/// Firmware or a loader asks by DHCP, and no operating system or BMC. Old firmware names no architecture.
pub(crate) fn boots(what: &What) -> bool {
    what.asks_to_boot()
}

/// The same, and it is no iPXE.
pub(crate) fn is_firmware(what: &What) -> bool {
    boots(what) && !matches!(what, What::DhcpIn { ipxe: true, .. })
}

/// Where a client last had both its address and the name of such a boot file, and the answer that named it: our ACK, or,
/// beside another server, our offer. That server's ACK is its client's alone, but the REQUEST before it is broadcast.
pub(crate) fn told(events: &[Event], fits: impl Fn(&str) -> bool) -> Option<(usize, &Event)> {
    let named = |what: &What, beside: bool| match what {
        What::DhcpOut { kind, address, file: Some(file) } if fits(file) => match &**kind {
            "ACK" | "REPLY" => !beside,
            "OFFER" => beside && address.is_none(),
            _ => false,
        },
        _ => false,
    };
    let offered = last(events, |what| named(what, true)).and_then(|(at, offer)| {
        let request = |event: &Event| {
            event.mac == offer.mac && matches!(&event.what, What::DhcpIn { kind, .. } if kind == "REQUEST")
        };
        let chosen = events.iter().skip(at + 1).position(request)?;
        Some((at + 1 + chosen, offer))
    });
    let acknowledged = last(events, |what| named(what, false));
    acknowledged.into_iter().chain(offered).max_by_key(|(at, _)| *at)
}

/// The client of an event, for a sentence.
pub(crate) fn who(mac: Option<MacAddr>) -> String {
    mac.map_or_else(|| "the client".to_owned(), |mac| mac.to_string())
}

/// The loader that a client was last told to fetch, and where that stands.
pub(crate) fn loader(events: &[Event]) -> Option<(usize, &str)> {
    let (at, event) =
        last(events, |what| matches!(what, What::DhcpOut { file: Some(file), .. } if !is_script(file)))?;
    match &event.what {
        What::DhcpOut { file: Some(file), .. } => Some((at, file.rsplit('/').next().unwrap_or(file))),
        _ => None,
    }
}

/// A boot file that is our script, not a loader.
pub(crate) fn is_script(file: &str) -> bool {
    file.contains("/boot/script")
}
