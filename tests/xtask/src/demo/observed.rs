//! What the demo saw: read-backs, consoles, counts. The checks judge this and nothing else.

use super::client::HostView;
use super::shown::Shown;
use crate::secrets::Secret;
use crate::shell::Said;
use dayzero_model::facts::RefusedKey;
use dayzero_model::proof::ProofReport;
use dayzero_model::vm::Vm;

/// Everything that was observed in one run.
#[derive(Default)]
pub struct Observed {
    /// What the README shows of it.
    pub shown: Shown,
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
    pub left: Option<Vec<String>>,
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
    /// VM after its host's power was cut.
    pub after_power_cut: Option<Vm>,
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
