//! A key was refused a certificate: somebody on the boot network claims to be this host.

use super::{Finding, Hop, WhyContext};
use dayzero_model::event::Event;
use dayzero_model::facts::{HostFacts, RefusedKey};

/// The keys of machines that are not this host: not its own, when it came late or with an old medium. Which of them that is
/// shows once the BMC has vouched for a key.
pub fn clones(facts: &HostFacts) -> Vec<&RefusedKey> {
    let other = |key: &&RefusedKey| match &facts.vouch {
        Some(vouched) => vouched.key != key.key,
        None => !super::nonce_expired::late(&key.reason),
    };
    facts.refused_keys.iter().filter(other).collect()
}

pub(super) fn apply(_: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let refused = clones(context.facts?);
    let last = refused.last()?;
    let shown = refused.iter().rev().take(5).map(|key| {
        let fingerprint = key.key.to_string();
        format!("key {} from {} at {}: {}", &fingerprint[..16], key.peer, key.at, key.reason)
    });
    Some(Finding {
        rule: "clone-refused",
        hop: Hop::Vouching,
        sentence: format!("{} key(s) were refused a certificate in this host's name", refused.len()),
        evidence: shown.collect(),
        next_action: format!(
            "find the machine that had address {} on the boot network: it shows this host's MAC and is not it",
            last.peer
        )
        .into(),
    })
}
