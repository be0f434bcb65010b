//! A host's life: twelve conditions in order. The phase is the first that is not met.

use crate::ids::Sha256;
use crate::units::Timestamp;
use serde::{Deserialize, Serialize};

/// A condition of a host's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// Its BMC answers at its planned address, with our credential.
    Found,
    /// The BMC's and the plan's identity agree.
    Identified,
    /// It holds a certificate for a key that its BMC vouched for.
    Vouched,
    /// Its agent reported its hardware.
    Inventoried,
    /// The hardware matches the profile.
    Matched,
    /// Firmware settings are as the profile wants (asks nothing yet).
    Baselined,
    /// Each cable ends where the plan says (LLDP).
    Cabled,
    /// Burn-in passed (asks nothing yet).
    BurnedIn,
    /// The operating system is on its disk and started from there.
    Imaged,
    /// Network and storage paths are as wanted, read back.
    Wired,
    /// Every path was pulled while traffic ran.
    Proven,
    /// It is in its cluster with measured capacity.
    Joined,
}

impl Condition {
    /// All, in order.
    pub const ALL: [Condition; 12] = [
        Condition::Found,
        Condition::Identified,
        Condition::Vouched,
        Condition::Inventoried,
        Condition::Matched,
        Condition::Baselined,
        Condition::Cabled,
        Condition::BurnedIn,
        Condition::Imaged,
        Condition::Wired,
        Condition::Proven,
        Condition::Joined,
    ];
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// Why a host stopped: what was expected, what was seen, what a person can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Stable word, such as `wrong-credential`, `serial-mismatch`, `cable-swapped`, `chunk-corrupt`, `foreign-disk`.
    pub code: String,
    /// One sentence.
    pub sentence: String,
    /// What was expected.
    pub expected: String,
    /// What was observed.
    pub observed: String,
    /// Next action for a person.
    pub next_action: String,
}

/// State of one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not begun, or no longer true.
    Unmet,
    /// Someone of ours works on it.
    Working {
        /// What it waits for.
        waits_for: String,
        /// When it counts as failed.
        deadline: Timestamp,
    },
    /// True.
    Met {
        /// What was observed.
        evidence: String,
        /// Hash of the facts that it rests on.
        facts: Sha256,
    },
    /// Stopped: a person (or a changed fact) may end this.
    Failed(Cause),
}

/// One condition of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionRecord {
    /// Which.
    pub condition: Condition,
    /// State.
    pub state: State,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// When work on it last began: start of the step's time.
    pub began: Option<Timestamp>,
}

/// All conditions of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions(pub Vec<ConditionRecord>);

impl Conditions {
    /// All unmet since `now`.
    pub fn new(now: Timestamp) -> Self {
        let unmet = |condition| ConditionRecord { condition, state: State::Unmet, since: now, began: None };
        Self(Condition::ALL.map(unmet).to_vec())
    }

    /// One condition's record.
    pub fn get(&self, condition: Condition) -> Option<&ConditionRecord> {
        self.0.iter().find(|record| record.condition == condition)
    }

    /// Is it met?
    pub fn is_met(&self, condition: Condition) -> bool {
        matches!(self.get(condition), Some(ConditionRecord { state: State::Met { .. }, .. }))
    }

    /// The host's phase: the first condition that is not met; none = all are.
    pub fn phase(&self) -> Option<&ConditionRecord> {
        self.0.iter().find(|record| !matches!(record.state, State::Met { .. }))
    }
}
