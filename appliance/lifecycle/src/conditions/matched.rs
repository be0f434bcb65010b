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
            let seen = inventory.map_or_else(String::new, |i| {
                let slots: Vec<&str> = i.nics.iter().filter_map(|nic| nic.slot.as_deref()).collect();
                let disks: Vec<String> = i.disks.iter().map(|disk| disk.size.to_string()).collect();
                format!(
                    "{} thread(s), {}, {} DIMM(s), disks: {}, NIC slots: {}",
                    i.cpu.threads,
                    i.memory,
                    i.dimms.len(),
                    listed(&disks),
                    listed(&slots)
                )
            });
            let rests_on = (profile, inventory.map(|i| (&i.cpu, &i.dimms, &i.disks, &i.firmware)));
            let nics: Vec<_> =
                inventory.into_iter().flat_map(|i| &i.nics).map(|nic| (nic.mac, &nic.slot)).collect();
            Outcome::met(format!("profile {profile} matches ({seen}): no drift"), &(rests_on, nics))
        }
        Some(drift) => Outcome::Failed(profile_drift(host, profile.as_str(), drift)),
    }
}

fn listed<T: AsRef<str>>(all: &[T]) -> String {
    let all: Vec<&str> = all.iter().map(AsRef::as_ref).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
