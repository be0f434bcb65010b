//! Matched: the hardware is as the cluster's profile says.

use crate::cause::{cause, profile_drift};
use crate::snapshot::{Outcome, Snapshot};

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let (host, profile) = (&s.placed.host.name, &s.placed.cluster.profile);
    match &s.around.drift {
        None => Outcome::Failed(cause(
            "profile-missing",
            format!("there is no hardware profile {profile}"),
            format!("hardware-profiles/{profile}.toml"),
            "no such profile",
            format!("add it or correct the plan, then `dayzero host retry {host}`"),
        )),
        Some(drift) if drift.is_empty() => {
            let inventory = s.facts.inventory.as_ref();
            let rests_on = (profile, inventory.map(|i| (&i.cpu, &i.dimms, &i.disks, &i.firmware)));
            let nics: Vec<_> =
                inventory.into_iter().flat_map(|i| &i.nics).map(|nic| (nic.mac, &nic.slot)).collect();
            Outcome::met(format!("profile {profile} matches: no drift"), &(rests_on, nics))
        }
        Some(drift) => Outcome::Failed(profile_drift(host, profile.as_str(), drift)),
    }
}
