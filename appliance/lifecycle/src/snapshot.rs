//! What a step may look at, and what it may answer.

use crate::action::{Action, ActionKind};
use dayzero_model::condition::{Cause, Conditions};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::{HostName, Sha256};
use dayzero_model::site::{Placed, Site};
use dayzero_model::units::Millis;
use serde::Serialize;
use std::net::SocketAddr;

/// What is around a host that its steps need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Agents' listener.
    pub agent_server: SocketAddr,
    /// Enrolment listener.
    pub enrol_server: SocketAddr,
    /// URL of the host image's manifest.
    pub manifest_url: String,
    /// URL under which its chunks lie.
    pub chunks_url: String,
    /// SHA-256 of the manifest; none = there is no image.
    pub manifest_sha256: Option<Sha256>,
    /// The cluster's host that alone changes volume metadata.
    pub elected: Option<HostName>,
    /// The cluster's volume group is there.
    pub volume_group: bool,
    /// Differences between inventory and profile, as sentences; none = there is no such profile.
    pub drift: Option<Vec<String>>,
}

/// All that a step may look at.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The plan.
    pub site: &'a Site,
    /// The host in it.
    pub placed: Placed<'a>,
    /// What is known of it.
    pub facts: &'a HostFacts,
    /// Its conditions.
    pub conditions: &'a Conditions,
    /// Hash of the plan.
    pub plan_hash: Sha256,
    /// What is around it.
    pub around: &'a Surroundings,
    /// Action in flight.
    pub busy: Option<ActionKind>,
}

/// What a step answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// True.
    Met {
        /// What was observed.
        evidence: String,
        /// Hash of the facts that it rests on.
        facts: Sha256,
    },
    /// To be done now.
    Work {
        /// What.
        action: Action,
        /// What the host then waits for.
        waits_for: String,
        /// Time for it.
        within: Millis,
    },
    /// Something of others is awaited.
    Wait {
        /// What.
        waits_for: String,
        /// Time for it.
        within: Millis,
    },
    /// Stopped.
    Failed(Cause),
}

impl Outcome {
    /// Work with the action's own time.
    pub(crate) fn work(action: Action, waits_for: impl Into<String>) -> Self {
        let within = Millis(action.kind().timeout().0 + crate::deadlines::SLACK.0);
        Self::Work { action, waits_for: waits_for.into(), within }
    }

    /// Met, resting on these facts.
    pub(crate) fn met(evidence: impl Into<String>, facts: &impl Serialize) -> Self {
        Self::Met { evidence: evidence.into(), facts: basis(facts) }
    }

    /// A wait.
    pub(crate) fn wait(waits_for: impl Into<String>, within: Millis) -> Self {
        Self::Wait { waits_for: waits_for.into(), within }
    }
}

/// Hash of facts: of their JSON, which for these types is one text for one value.
pub fn basis(facts: &impl Serialize) -> Sha256 {
    match serde_json::to_vec(facts) {
        Ok(text) => Sha256::of(&text),
        Err(error) => Sha256::of(error.to_string().as_bytes()),
    }
}
