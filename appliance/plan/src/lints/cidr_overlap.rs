//! `DZ030`: networks do not overlap.

use super::{Lint, Plan};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint =
    Lint { code: "DZ030", name: "cidr-overlap", about: "no two networks share addresses", check };

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut networks: Vec<_> = plan.networks().collect();
    networks.sort_by_key(|(network, _)| (network.cidr.network(), network.cidr.prefix_len()));
    for (i, (wide, wide_path)) in networks.iter().enumerate() {
        // Sorted by start, so that those within `wide` follow it at once.
        let within =
            networks[i + 1..].iter().take_while(|(other, _)| other.cidr.network() <= wide.cidr.broadcast());
        for (narrow, narrow_path) in within {
            let (network, other) = (wide.cidr, narrow.cidr);
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "networks {} ({network}) and {} ({other}) overlap: both have {} to {}",
                        wide.name,
                        narrow.name,
                        other.network(),
                        other.broadcast()
                    ),
                )
                .help("give each network a prefix of its own: a host could not tell where an address is")
                .at(&narrow_path.key("cidr"), narrow.name.to_string())
                .at(&wide_path.key("cidr"), wide.name.to_string()),
            );
        }
    }
}
