//! `DZ010`: every name is one's own among things of its kind.

use super::{Lint, Plan, listed, shared, twice};
use crate::diagnostic::Finding;
use crate::source::Path;
use dayzero_model::Name;

pub(super) const LINT: Lint = Lint {
    code: "DZ010",
    name: "duplicate-name",
    about: "names are unique within their kind, over the whole site",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let site = plan.site;
    let mut names: Vec<((&str, &Name), Path, String)> = Vec::new();
    let mut add =
        |kind: &'static str, name, path: Path| names.push(((kind, name), path.key("name"), kind.to_owned()));
    site.zones.iter().zip(0..).for_each(|(zone, i)| add("zone", &zone.name, Path::root().key("zones").at(i)));
    listed(&site.networks, "networks").for_each(|(one, path)| add("network", &one.name, path));
    listed(&site.switches, "switches").for_each(|(one, path)| add("switch", &one.name, path));
    listed(&site.primary_storage, "primary_storage")
        .for_each(|(one, path)| add("primary storage", &one.name, path));
    listed(&site.secondary_storage, "secondary_storage")
        .for_each(|(one, path)| add("secondary storage", &one.name, path));
    listed(&site.offerings, "offerings").for_each(|(one, path)| add("offering", &one.name, path));
    listed(&site.templates, "templates").for_each(|(one, path)| add("template", &one.name, path));
    for at in plan.pods() {
        add("pod", &at.pod.name, at.path.clone());
        at.pod
            .racks
            .iter()
            .zip(0..)
            .for_each(|(rack, i)| add("rack", &rack.name, at.path.key("racks").at(i)));
    }
    plan.clusters().for_each(|at| add("cluster", &at.cluster.name, at.path));
    plan.hosts().for_each(|at| add("host", &at.host.name, at.path));
    for (network, path) in plan.networks() {
        // DNS answers to the names of both.
        let list = path.key("reservations");
        network.reservations.iter().zip(0..).for_each(|(one, i)| add("host", &one.name, list.at(i)));
    }
    for ((kind, name), places) in shared(names.into_iter()) {
        out.push(twice(
            LINT.code,
            &format!("{kind} `{name}`"),
            &places,
            "give each one a name of its own; the plan refers to it by this name",
        ));
    }
}
