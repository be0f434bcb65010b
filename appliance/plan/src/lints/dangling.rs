//! `DZ017`: what the plan refers to exists.

use super::{Lint, Plan, listed};
use crate::diagnostic::Finding;
use crate::source::Path;
use dayzero_model::Name;
use std::fmt::Display;

pub(super) const LINT: Lint = Lint {
    code: "DZ017",
    name: "dangling",
    about: "networks, switches, racks, storage, stores, profiles and credentials that are named exist",
    check,
};

/// What exists of one kind.
struct Kind {
    noun: &'static str,
    names: Vec<String>,
    /// Where a missing one is to be written.
    where_to: String,
}

impl Kind {
    fn of(noun: &'static str, where_to: &str, names: impl Iterator<Item = impl Display>) -> Self {
        Self { noun, names: names.map(|name| name.to_string()).collect(), where_to: where_to.to_owned() }
    }

    fn need(&self, name: &Name, path: &Path, out: &mut Vec<Finding>) {
        if self.names.iter().any(|known| known == name.as_str()) {
            return;
        }
        let known = match self.names.len() {
            0 => format!("there is none; {}", self.where_to),
            1..=12 => format!("there are: {}; {}", self.names.join(", "), self.where_to),
            many => format!("there are {many}, and it is none of them; {}", self.where_to),
        };
        out.push(
            Finding::error(LINT.code, format!("no {} is named `{name}`", self.noun))
                .help(known)
                .at(path, "nothing has this name"),
        );
    }
}

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let site = plan.site;
    let networks =
        Kind::of("network", "networks stand under `networks`", site.networks.iter().map(|one| &one.name));
    let switches =
        Kind::of("switch", "switches stand under `switches`", site.switches.iter().map(|one| &one.name));
    let storages = Kind::of(
        "primary storage",
        "it stands under `primary_storage`",
        site.primary_storage.iter().map(|one| &one.name),
    );
    let stores = Kind::of(
        "secondary storage",
        "it stands under `secondary_storage`",
        site.secondary_storage.iter().map(|one| &one.name),
    );
    let profiles = plan.known.profiles.as_ref().map(|names| {
        Kind::of(
            "hardware profile",
            "profiles are the files of `hardware-profiles`, without .toml",
            names.iter(),
        )
    });
    let credentials =
        plan.known.credentials.as_ref().map(|names| {
            Kind::of("credential", &format!("credentials stand in {}", site.secrets), names.iter())
        });
    for (template, path) in listed(&site.templates, "templates") {
        stores.need(&template.store, &path.key("store"), out);
    }
    for (storage, path) in plan.storages() {
        for (i, portal) in storage.portals.iter().enumerate() {
            networks.need(&portal.network, &path.key("portals").at(i).key("network"), out);
        }
    }
    for at in plan.pods() {
        networks.need(&at.pod.network, &at.path.key("network"), out);
        networks.need(&at.pod.bmc_network, &at.path.key("bmc_network"), out);
    }
    for at in plan.clusters() {
        for (i, name) in at.cluster.primary_storage.iter().enumerate() {
            storages.need(name, &at.path.key("primary_storage").at(i), out);
        }
        if let Some(name) = &at.cluster.guest_network {
            networks.need(name, &at.path.key("guest_network"), out);
        }
        if let Some(profiles) = &profiles {
            profiles.need(&at.cluster.profile, &at.path.key("profile"), out);
        }
    }
    for at in plan.hosts() {
        let host = at.host;
        if !at.pod.racks.iter().any(|rack| rack.name == host.rack) {
            let where_to = format!("racks stand under `racks` of pod {}", at.pod.name);
            Kind::of("rack of this pod", &where_to, at.pod.racks.iter().map(|rack| &rack.name)).need(
                &host.rack,
                &at.path.key("rack"),
                out,
            );
        }
        if let Some(credentials) = &credentials {
            credentials.need(&host.bmc.credential, &at.path.key("bmc").key("credential"), out);
        }
        for (i, nic) in host.bond.nics.iter().enumerate() {
            switches.need(
                &nic.port.switch,
                &at.path.key("bond").key("nics").at(i).key("port").key("switch"),
                out,
            );
        }
        for (i, nic) in host.storage_nics.iter().enumerate() {
            let path = at.path.key("storage_nics").at(i);
            switches.need(&nic.port.switch, &path.key("port").key("switch"), out);
            networks.need(&nic.network, &path.key("network"), out);
        }
    }
}
