//! `DZ031`: a gateway is reachable: within its network's prefix.

use super::{Lint, Plan};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint = Lint {
    code: "DZ031",
    name: "gateway-outside",
    about: "a gateway lies within its network's prefix, and is a host address",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (network, path) in plan.networks() {
        let Some(gateway) = network.gateway else { continue };
        let Some(problem) = super::address_outside::problem(gateway, network) else { continue };
        out.push(
            Finding::error(LINT.code, format!("the gateway of network {} {problem}", network.name))
                .help(format!(
                    "write an address of {}, such as {}",
                    network.cidr,
                    super::address_outside::example(network)
                ))
                .at(&path.key("gateway"), "not reachable from this network")
                .at(&path.key("cidr"), "its prefix"),
        );
    }
}
