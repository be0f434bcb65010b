//! `DZ045`: each host of a cluster reaches the cluster's storage by a NIC of its own on the storage's network.

use super::{Lint, Plan};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint = Lint {
    code: "DZ045",
    name: "storage-reach",
    about: "each host has an interface on a network of each storage that its cluster uses",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.hosts() {
        for storage in at.cluster.primary_storage.iter().filter_map(|name| plan.site.storage(name)) {
            let reached = storage.portals.is_empty()
                || storage.portals.iter().any(|portal| {
                    portal.network == at.pod.network
                        || at.host.storage_nics.iter().any(|nic| nic.network == portal.network)
                });
            // Some but not all paths of a multipath storage are `mpio-subnets`' matter.
            let told = storage.multipath && at.host.storage_nics.is_empty();
            if !reached && !told {
                let networks = storage
                    .portals
                    .iter()
                    .map(|portal| portal.network.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                out.push(
                    Finding::error(
                        LINT.code,
                        format!(
                            "host {} has no interface on a network of primary storage {} ({networks})",
                            at.host.name, storage.name
                        ),
                    )
                    .help(format!("add a storage NIC on {networks}"))
                    .at(&at.path.key("storage_nics"), "none of these reaches it"),
                );
            }
        }
    }
}
