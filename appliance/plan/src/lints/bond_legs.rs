//! `DZ051`: a bond is redundant: two legs, on two switches of the access network.

use super::{Lint, Plan, count};
use crate::diagnostic::Finding;
use dayzero_model::Name;
use dayzero_model::site::{SwitchPort, SwitchRole};
use std::collections::BTreeSet;

pub(super) const LINT: Lint = Lint {
    code: "DZ051",
    name: "bond-legs",
    about: "a bond has two legs on two switches; NICs end on switches of their kind; roles are one NIC's own",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.hosts() {
        let (host, legs) = (at.host, at.path.key("bond").key("nics"));
        let switches: BTreeSet<&Name> = host.bond.nics.iter().map(|leg| &leg.port.switch).collect();
        if host.bond.nics.len() < 2 {
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "host {}: the bond has {}; it needs 2",
                        host.name,
                        count(host.bond.nics.len(), "leg")
                    ),
                )
                .help(
                    "add the second pod NIC: one leg cannot take over from itself, and the proof would fail",
                )
                .at(&legs, "not redundant"),
            );
        } else if let (1, Some(switch)) = (switches.len(), switches.first()) {
            out.push(
                Finding::warning(LINT.code, format!("host {}: all legs of the bond end on switch {switch}", host.name))
                    .help("cable the second leg to the other member of the stack: this switch's failure takes the host off the network")
                    .at(&legs.at(1).key("port"), "the same switch"),
            );
        }
        let mut kind = |port: &SwitchPort, wanted: SwitchRole, path: crate::source::Path, what: &str| {
            let Some(switch) = plan.site.switches.iter().find(|switch| switch.name == port.switch) else {
                return;
            };
            if switch.role != wanted {
                out.push(
                    Finding::error(LINT.code, format!("host {}: {what} is cabled to {}, a switch of another kind", host.name, port))
                        .help("pod NICs end on access switches, storage NICs on storage switches; correct the port, or the switch's role")
                        .at(&path, format!("{} is no {what}'s switch", switch.name)),
                );
            }
        };
        for (i, leg) in host.bond.nics.iter().enumerate() {
            kind(&leg.port, SwitchRole::Access, legs.at(i).key("port"), "pod NIC");
        }
        for (i, nic) in host.storage_nics.iter().enumerate() {
            kind(
                &nic.port,
                SwitchRole::Storage,
                at.path.key("storage_nics").at(i).key("port"),
                "storage NIC",
            );
        }
        roles(&at, out);
    }
}

fn roles(at: &super::HostAt<'_>, out: &mut Vec<Finding>) {
    let legs = at
        .host
        .bond
        .nics
        .iter()
        .enumerate()
        .map(|(i, nic)| (&nic.role, at.path.key("bond").key("nics").at(i).key("role")));
    let storage = at
        .host
        .storage_nics
        .iter()
        .enumerate()
        .map(|(i, nic)| (&nic.role, at.path.key("storage_nics").at(i).key("role")));
    let all = legs.chain(storage).map(|(role, path)| (role, path, "a NIC".to_owned()));
    for (role, places) in super::shared(all) {
        let what = format!("NIC role {role} of host {}", at.host.name);
        out.push(super::twice(
            LINT.code,
            &what,
            &places,
            "a role is one slot of the hardware profile: each NIC has its own",
        ));
    }
}
