//! The conditions, one file each, and what holds for all of them: which failures new facts have overtaken, and what it
//! is called when time runs out.

pub mod baselined;
pub mod burned_in;
pub mod cabled;
pub mod found;
pub mod identified;
pub mod imaged;
pub mod inventoried;
pub mod joined;
pub mod matched;
pub mod proven;
pub mod vouched;
pub mod wired;

#[cfg(test)]
mod tests;

use crate::cause::{cause, timeout};
use crate::deadlines;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::condition::{Cause, Condition};
use dayzero_model::facts::{Failure, HostFacts};
use dayzero_model::units::Millis;

/// One condition's step.
pub fn step(condition: Condition, s: &Snapshot<'_>) -> Outcome {
    match condition {
        Condition::Found => found::step(s),
        Condition::Identified => identified::step(s),
        Condition::Vouched => vouched::step(s),
        Condition::Inventoried => inventoried::step(s),
        Condition::Matched => matched::step(s),
        Condition::Baselined => baselined::step(s),
        Condition::Cabled => cabled::step(s),
        Condition::BurnedIn => burned_in::step(s),
        Condition::Imaged => imaged::step(s),
        Condition::Wired => wired::step(s),
        Condition::Proven => proven::step(s),
        Condition::Joined => joined::step(s),
    }
}

/// A failure that newer facts contradict stops nobody: a BMC that was unreachable and has just taken its lease, a host
/// that was given up and enrolled after all, an agent that came back.
pub fn overtaken(failure: &Failure, facts: &HostFacts) -> bool {
    let came_back = || facts.agent.as_ref().is_some_and(|agent| agent.connected && agent.since > failure.at);
    match failure.cause.code.as_str() {
        "bmc-unreachable" => facts.bmc_lease.is_some_and(|lease| lease > failure.at),
        "boot-timeout" | "vouch-timeout" => facts.vouch.as_ref().is_some_and(|vouch| vouch.at > failure.at),
        "agent-silent" => came_back(),
        _ => false,
    }
}

/// The cause when a condition's time has run out.
pub(crate) fn timed_out(condition: Condition, s: &Snapshot<'_>, waits_for: &str, after: Millis) -> Cause {
    let host = &s.placed.host.name;
    let (code, observed) = match condition {
        Condition::Found => ("bmc-unreachable", found::observed(s)),
        Condition::Vouched => vouched::last_hop(s),
        Condition::Inventoried | Condition::Joined => ("agent-silent", agent_text(s)),
        Condition::Imaged if s.facts.install.is_some() => ("disk-boot-timeout", agent_text(s)),
        Condition::Imaged => ("install-timeout", agent_text(s)),
        _ => ("timeout", agent_text(s)),
    };
    timeout(host, code, waits_for, after.0 / 1000, observed)
}

/// What is known of the agent, as text.
pub(crate) fn agent_text(s: &Snapshot<'_>) -> String {
    match &s.facts.agent {
        None => "no agent of this host has ever connected".to_owned(),
        Some(agent) => {
            let state = if agent.connected { "connected" } else { "gone" };
            let from = if agent.installed { "installed system" } else { "discovery image" };
            format!("the agent of the {from} is {state} since {}", agent.since)
        }
    }
}

/// The connected agent is needed; if it is not there, this is what the host waits for.
pub(crate) fn agent_or_wait(s: &Snapshot<'_>, installed: bool) -> Option<Outcome> {
    let there = s.facts.agent.as_ref().is_some_and(|agent| agent.connected && agent.installed == installed);
    if there {
        return None;
    }
    let from = if installed { "installed system" } else { "discovery image" };
    Some(Outcome::wait(format!("the agent of the {from} to connect"), deadlines::AGENT))
}

/// What a condition shows that asks nothing yet.
pub(crate) const ASKS_NOTHING: &str = "asks nothing yet";

/// Paths that should carry traffic and do not.
pub(crate) fn degraded(s: &Snapshot<'_>, what: &[String]) -> Outcome {
    Outcome::Failed(cause(
        "path-degraded",
        "not every path is usable",
        "all legs of the bond and all storage paths usable",
        what.join("; "),
        format!(
            "check cable and switch port of the named path; it goes on by itself (`dayzero why {}` shows when it broke)",
            s.placed.host.name
        ),
    ))
}
