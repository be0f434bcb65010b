//! `DZ012`: a MAC address is one NIC's own; it is also how a NIC that is bonded and used for storage shows.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint =
    Lint { code: "DZ012", name: "duplicate-mac", about: "no two NICs or BMCs share a MAC address", check };

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut macs = Vec::new();
    for at in plan.hosts() {
        let host = at.host;
        let who = |what: &dyn std::fmt::Display| format!("{what} of host {}", host.name);
        macs.push((host.bmc.mac, at.path.key("bmc").key("mac"), who(&"the BMC")));
        let legs = at.path.key("bond").key("nics");
        for (i, nic) in host.bond.nics.iter().enumerate() {
            macs.push((nic.mac, legs.at(i).key("mac"), who(&format!("bond leg {}", nic.role))));
        }
        let storage = at.path.key("storage_nics");
        for (i, nic) in host.storage_nics.iter().enumerate() {
            // A storage NIC that is a bond leg of the same host is `mpio-bonded`'s matter.
            if !host.bond.nics.iter().any(|leg| leg.mac == nic.mac) {
                macs.push((nic.mac, storage.at(i).key("mac"), who(&format!("storage NIC {}", nic.role))));
            }
        }
    }
    for (network, path) in plan.networks() {
        for (i, one) in network.reservations.iter().enumerate() {
            let Some(mac) = one.mac else { continue };
            // A machine with VLANs has its MAC on several networks; twice on one is the lint `dhcp`'s matter.
            if !plan
                .networks()
                .any(|(other, _)| other.reservations.iter().any(|o| o.mac == one.mac && o != one))
            {
                let path = path.key("reservations").at(i).key("mac");
                macs.push((mac, path, format!("the reservation of {}", one.name)));
            }
        }
    }
    for (mac, places) in shared(macs.into_iter()) {
        out.push(twice(
            LINT.code,
            &format!("MAC address {mac}"),
            &places,
            "read it again from the label: each NIC and each BMC has its own",
        ));
    }
}
