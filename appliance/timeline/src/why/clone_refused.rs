//! A key was refused a certificate: somebody on the boot network claims to be this host.

use super::{Finding, Hop, WhyContext};
use dayzero_model::event::Event;

pub(super) fn apply(_: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let refused = &context.facts?.refused_keys;
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
