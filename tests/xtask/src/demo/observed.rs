//! What the demo saw: read-backs, consoles, counts. The checks judge this and nothing else.

use super::client::HostView;
use super::shown::Shown;
use crate::secrets::Secret;
use crate::shell::Said;
use dayzero_model::facts::RefusedKey;
use dayzero_model::proof::ProofReport;
use dayzero_model::site::Site;
use dayzero_model::vm::Vm;
use std::collections::BTreeMap;

/// Everything that was observed in one run.
#[derive(Default)]
pub struct Observed {
    /// What the README shows of it.
    pub shown: Shown,
    /// The plan that was applied.
    pub site: Option<Site>,
    /// Sizes of the loaders that TFTP serves, by file name, bytes.
    pub loaders: BTreeMap<String, u64>,
    /// Chunks that the host image's manifest lists, with and without content.
    pub chunks: (u64, u64),
    /// `dayzero plan check` of the lab's plan.
    pub plan_good: Said,
    /// The same of a copy with one fault.
    pub plan_bad: Said,
    /// Each host when all had joined, for the times of its steps.
    pub joined: Vec<Seen>,
    /// Each host at the end.
    pub hosts: Vec<Seen>,
    /// Tries of the factory credential by a foreign client: host, refused, what the client said.
    pub factory: Vec<(String, bool, String)>,
    /// A machine whose MAC is in no plan.
    pub stranger: Option<Stranger>,
    /// A machine that cloned a host's MAC, serial and UUID inside its boot window.
    pub clone: Option<Clone>,
    /// Proofs with one leg missing: host, report.
    pub controls: Vec<(String, ProofReport)>,
    /// The VM.
    pub vm: VmSeen,
    /// `dayzero serve` killed while a host was installing.
    pub sigkill: Option<Sigkill>,
    /// The web console in a browser.
    pub web: Option<Web>,
    /// Secrets that the run itself made or was given: the console's password and session.
    pub secrets: Vec<Secret>,
    /// What was left after the tear-down; none = not torn down yet.
    pub left: Option<Left>,
}

/// A comparison of the machine with what it was before the run.
pub struct Left {
    /// Namespaces, links, mounts, loop devices, firewall rules and processes that are there now.
    pub compared: usize,
    /// Those that were not there before.
    pub added: Vec<String>,
}

/// One host.
pub struct Seen {
    pub name: String,
    pub view: HostView,
}

pub struct Stranger {
    pub mac: String,
    /// Listed as pending.
    pub pending: bool,
    /// DHCP messages of it that came in.
    pub asked: usize,
    /// Answers that went out to it.
    pub answered: usize,
}

pub struct Clone {
    pub of: String,
    /// Keys that were refused for that host.
    pub refused: Vec<RefusedKey>,
    /// The clone's console.
    pub console: String,
}

#[derive(Default)]
pub struct VmSeen {
    pub vm: Option<Vm>,
    /// SHA-256 of the template file.
    pub template_sha256: String,
    /// VM after a storage path was pulled while it ran.
    pub after_pull: Option<Vm>,
    /// Newest tick that the guest had printed before that, and those that it printed while the path was away.
    pub ticks: (u64, Vec<Tick>),
    /// Most paths of the host that were seen inactive meanwhile.
    pub inactive: usize,
    /// VM after its host's power was cut.
    pub after_power_cut: Option<Vm>,
}

/// A sign of life that the guest prints after it read its disk past every cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    pub number: u64,
    pub readable: bool,
}

/// The ticks on a guest's console.
pub fn ticks(console: &[String]) -> Vec<Tick> {
    let tick = |line: &String| {
        let says = |key: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        Some(Tick { number: says("tick=")?.parse().ok()?, readable: says("disk=")? == "readable" })
    };
    console.iter().filter_map(tick).collect()
}

pub struct Sigkill {
    /// Host that was installing, and how far it was.
    pub during: String,
    /// The new process answered after so many milliseconds.
    pub answered_ms: u64,
    /// Phases before, and right after the restart.
    pub before: Vec<(String, usize)>,
    pub after: Vec<(String, usize)>,
}

pub struct Web {
    /// Title of the page behind the login.
    pub title: String,
    /// A host's phase as first seen on the page, and later, with the mark that a reload would have wiped.
    pub first: String,
    pub later: String,
    pub same_page: bool,
}
