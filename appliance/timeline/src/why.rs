//! Why a host does not go on: rules over its timeline, one file each.
//!
//! Where do I add a rule: one file in `why/`, one row in [`RULES`].

mod agent_silent;
mod clone_refused;
mod condition_failed;
mod dhcp_not_answered;
mod kernel_silent;
mod lacp_without_fallback;
mod no_dhcp;
mod no_request_after_offer;
mod secure_boot_refused;
mod tftp_stopped;

#[cfg(test)]
mod tests;

use dayzero_model::condition::Conditions;
use dayzero_model::event::{Event, What};
use dayzero_model::facts::HostFacts;
use dayzero_model::units::{Millis, Timestamp};

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

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong.
    pub sentence: String,
    /// What was observed: event lines or facts.
    pub evidence: Vec<String>,
    /// What a person can do next.
    pub next_action: String,
}

type Rule = fn(&[Event], &WhyContext<'_>) -> Option<Finding>;

/// All rules, the most telling first.
const RULES: [Rule; 10] = [
    condition_failed::apply,
    clone_refused::apply,
    tftp_stopped::apply,
    secure_boot_refused::apply,
    no_request_after_offer::apply,
    kernel_silent::apply,
    agent_silent::apply,
    lacp_without_fallback::apply,
    no_dhcp::apply,
    dhcp_not_answered::apply,
];

/// What the rules find in a host's or MAC's events (oldest first).
pub fn why(events: &[Event], context: &WhyContext<'_>) -> Vec<Finding> {
    RULES.iter().filter_map(|rule| rule(events, context)).collect()
}

/// A hop that has taken longer than this has not just begun.
pub(crate) const PATIENCE: Millis = Millis(15_000);

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
