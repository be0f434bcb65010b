//! What control shows: plain, serialisable views. `-o json`, REST and the console are these same types.
//!
//! Invariants: no secret is in any of them; every view can be read back (`Deserialize`), so that the CLI is a client
//! like any other. They are made in one go from the store and hold no reference to it.

use dayzero_model::condition::{ConditionRecord, State};
use dayzero_model::event::Event;
use dayzero_model::facts::{Capacity, HostFacts};
use dayzero_model::ids::{HostName, MacAddr, Name, Sha256};
use dayzero_model::site::Hypervisor;
use dayzero_model::units::Timestamp;
use dayzero_model::vm::Vm;
pub use dayzero_pxe::doctor::Severity;
use serde::{Deserialize, Serialize};

/// What an apply would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanPreview {
    /// Hash of the plan in the store; none = there is no plan yet. Hand it to apply, so that nobody's change is lost.
    pub base: Option<Sha256>,
    /// Hash of the new plan.
    pub new: Sha256,
    /// Nothing would change.
    pub empty: bool,
    /// One line a change, `+`, `-` or `~` first, as a person reads it.
    pub text: String,
    /// The same for tools (`dayzero_plan::PlanDiff`).
    pub diff: serde_json::Value,
    /// What the change means for hosts that are already under way, as sentences.
    pub consequences: Vec<String>,
}

/// What an apply did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Hash of the plan that is in the store now.
    pub hash: Sha256,
    /// False = it was there already.
    pub changed: bool,
    /// One line a change.
    pub text: String,
}

/// The whole site at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Site's name; none = no plan applied yet.
    pub site: Option<Name>,
    /// Hash of the plan.
    pub plan: Option<Sha256>,
    /// Now, by the appliance's clock.
    pub now: Timestamp,
    /// Racks in plan order.
    pub racks: Vec<RackView>,
    /// What a person must do now, oldest first.
    pub todo: Vec<Todo>,
    /// Clients on the boot network that are not in the plan, newest first.
    pub pending: Vec<Pending>,
    /// Clusters.
    pub clusters: Vec<ClusterView>,
    /// VMs.
    pub vms: Vec<Vm>,
}

/// One rack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RackView {
    /// Its name.
    pub name: Name,
    /// Pod it stands in.
    pub pod: Name,
    /// Height in rack units.
    pub units: u8,
    /// Hosts in it, from the top down.
    pub hosts: Vec<HostSummary>,
}

/// How a host fares, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Someone of ours works on it.
    Working,
    /// Stopped: a person must do something.
    Failed,
    /// All conditions are met.
    Ready,
    /// It was ready and its power is off or its agent is gone.
    Lost,
}

/// One host in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostSummary {
    /// Its name.
    pub name: HostName,
    /// Rack.
    pub rack: Name,
    /// Lowest rack unit that it fills.
    pub u: u8,
    /// Cluster.
    pub cluster: Name,
    /// The first condition that is not met; `Joined` when all are.
    pub phase: String,
    /// One word.
    pub health: Health,
    /// What it waits for, why it stopped, or what it has.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
    /// When the current work counts as failed.
    pub deadline: Option<Timestamp>,
    /// How far the action under way is, where it tells.
    pub progress: Option<Progress>,
    /// Conditions met, of twelve.
    pub met: usize,
}

/// Progress of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub what: String,
    /// Done so far.
    pub done: u64,
    /// Of so many; 0 = unknown.
    pub total: u64,
}

/// All of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// In a line.
    pub summary: HostSummary,
    /// Hypervisor.
    pub hypervisor: Hypervisor,
    /// Conditions in order.
    pub conditions: Vec<ConditionRecord>,
    /// Facts.
    pub facts: HostFacts,
    /// The last events, oldest first.
    pub timeline: Vec<Event>,
    /// The same as text, one line an event.
    pub timeline_text: Vec<String>,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Its name.
    pub name: Name,
    /// Hypervisor.
    pub hypervisor: Hypervisor,
    /// Hosts of the plan.
    pub hosts: usize,
    /// Hosts that joined, with their measured capacity.
    pub joined: Vec<(HostName, Capacity)>,
    /// Host that alone changes volume metadata.
    pub elected: Option<HostName>,
    /// VMs placed in it.
    pub vms: usize,
}

/// Something that only a person can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// Host, where it is about one.
    pub host: Option<HostName>,
    /// Stable word of the cause, such as `cable-swapped`.
    pub code: String,
    /// What is wrong, one sentence.
    pub sentence: String,
    /// What was expected and what was observed, where it is about a host that stopped.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// What to do.
    pub next_action: String,
    /// Since when.
    pub since: Timestamp,
}

/// A client on the boot network that is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its MAC.
    pub mac: MacAddr,
    /// First seen.
    pub first: Timestamp,
    /// Last seen.
    pub last: Timestamp,
    /// How often it asked.
    pub count: u64,
    /// What it said of itself (interface, vendor class, UUID).
    pub said: String,
}

/// Answer of `dayzero why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// Host or MAC that was asked about.
    pub subject: String,
    /// Where it stands, one sentence.
    pub standing: String,
    /// What is most likely wrong, best first: the first is the verdict.
    pub findings: Vec<WhyFinding>,
    /// The boot flight recorder, oldest first.
    pub events: Vec<Event>,
    /// The same as text, one line an event.
    pub text: Vec<String>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyFinding {
    /// Rule that found it, such as `no-request-after-offer`.
    pub rule: String,
    /// The hop of the boot that failed, in words, such as `DHCP`.
    #[serde(default)]
    pub hop: String,
    /// What is wrong, one sentence.
    pub sentence: String,
    /// What was observed.
    pub evidence: Vec<String>,
    /// What to do.
    pub next_action: String,
}

/// One finding of the doctor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorFinding {
    /// What was looked at, such as `port` or `other-dhcp`.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// Interface, where it is about one.
    pub interface: Option<String>,
    /// What was seen.
    pub found: String,
    /// What a person can do; empty where nothing is to be done.
    pub action: String,
}

/// What is asked for with a new VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRequest {
    /// Its name.
    pub name: Name,
    /// Offering.
    pub offering: Name,
    /// Template.
    pub template: Name,
    /// Cluster; none = the first with room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Name>,
}

/// Text of a state, for one line.
pub fn state_text(state: &State) -> (&'static str, String) {
    match state {
        State::Unmet => ("unmet", String::new()),
        State::Working { waits_for, .. } => ("working", waits_for.clone()),
        State::Met { evidence, .. } => ("met", evidence.clone()),
        State::Failed(cause) => ("failed", format!("{}: {}", cause.code, cause.sentence)),
    }
}
