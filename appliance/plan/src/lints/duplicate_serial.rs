//! `DZ011`: serial numbers, UUIDs and OS disks are one host's own, since hosts and disks are known by them.

use super::{Lint, Plan, shared, twice};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint = Lint {
    code: "DZ011",
    name: "duplicate-serial",
    about: "no two hosts share a serial number, a UUID or an OS disk",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut keys = Vec::new();
    for at in plan.hosts() {
        let host = at.host;
        let mut add = |what: &'static str, value: String, path| {
            keys.push(((what, value), path, format!("host {}", host.name)));
        };
        add("serial", host.serial.trim().to_uppercase(), at.path.key("serial"));
        if let Some(uuid) = &host.uuid {
            add("UUID", uuid.to_lowercase(), at.path.key("uuid"));
        }
        let disk = at.path.key("os_disk");
        if let Some(serial) = &host.os_disk.serial {
            add("disk serial", serial.trim().to_uppercase(), disk.key("serial"));
        }
        if let Some(wwn) = &host.os_disk.wwn {
            add("disk WWN", wwn.to_string(), disk.key("wwn"));
        }
    }
    let luns = plan.storages().filter_map(|(storage, path)| {
        Some((
            ("disk WWN", storage.wwn.as_ref()?.to_string()),
            path.key("wwn"),
            format!("primary storage {}", storage.name),
        ))
    });
    keys.extend(luns);
    for ((what, value), places) in shared(keys.into_iter()) {
        out.push(twice(
            LINT.code,
            &format!("{what} `{value}`"),
            &places,
            "read it again from the label or the BMC: it tells one machine or disk from another",
        ));
    }
}
