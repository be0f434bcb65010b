//! What a retry, and a reset, forget: the failure, and what must be observed again so that the same step does not just
//! fail on old facts.

use dayzero_model::condition::{Condition, Conditions};
use dayzero_model::facts::{CredentialPhase, HostFacts};
use dayzero_model::install::DiskFinding;

/// Forgets what the first unmet condition stands on. Nothing that is met and true is lost: a host in the middle of its
/// life goes on from there.
pub fn retry(facts: &mut HostFacts, conditions: &Conditions) {
    facts.failure = None;
    facts.lost = None;
    let connected = facts.agent.as_ref().is_some_and(|agent| agent.connected);
    let installed = facts.install.is_some();
    let Some(phase) = conditions.phase() else { return };
    match phase.condition {
        Condition::Found | Condition::Identified => facts.bmc = None,
        Condition::Vouched => facts.window = None,
        Condition::Inventoried
        | Condition::Matched
        | Condition::Baselined
        | Condition::Cabled
        | Condition::BurnedIn => observe_again(facts, connected, installed),
        Condition::Imaged => {
            // A consent stays with the finding that it was given for: the work that uses it may be under way.
            let consented = |finding: &DiskFinding| {
                facts.consent.as_ref().is_some_and(|consent| consent.finding == finding.digest)
            };
            facts.finding = facts.finding.take().filter(consented);
            (facts.boot_order_at, facts.started) = (None, None);
            if !installed && !connected {
                boot_again(facts);
            }
        }
        Condition::Wired => {
            facts.network_basis = None;
            facts.luns_basis = None;
        }
        Condition::Proven => {
            facts.proof = None;
            facts.proof_basis = None;
        }
        Condition::Joined => facts.capacity = None,
    }
}

/// Hardware is read again: by the connected agent, or by another network boot; an installed host's network is read back.
fn observe_again(facts: &mut HostFacts, connected: bool, installed: bool) {
    if installed {
        facts.network_basis = None;
    }
    if connected {
        facts.inventory = None;
        facts.inventory_at = None;
    } else if !installed {
        boot_again(facts);
    }
}

fn boot_again(facts: &mut HostFacts) {
    facts.vouch = None;
    facts.window = None;
    facts.agent = None;
    facts.inventory = None;
    facts.inventory_at = None;
}

/// Forgets everything from the network boot on; keeps BMC, credential and what was refused.
pub fn reset(facts: &mut HostFacts) {
    *facts = HostFacts {
        bmc_lease: facts.bmc_lease,
        bmc: facts.bmc.take().filter(|_| facts.credential >= CredentialPhase::Factory),
        credential: facts.credential,
        refused_keys: std::mem::take(&mut facts.refused_keys),
        ..HostFacts::default()
    };
}
