//! `DZ018`: nothing is left that `plan init` could not know.

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use crate::source::Path;
use dayzero_model::MacAddr;

pub(super) const LINT: Lint = Lint {
    code: "DZ018",
    name: "placeholder",
    about: "no placeholder of `plan init` is left in the plan",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let mut left = |what: String, shown: &dyn std::fmt::Display, path: Path, help: &str| {
        out.push(
            Finding::error(LINT.code, format!("{what} is still the placeholder {shown}"))
                .help(help)
                .at(&path, "fill this in"),
        );
    };
    let label = "read it from the label, the shipping list or the BMC";
    for (storage, path) in plan.storages() {
        if let Some(target) = storage.target.as_ref().filter(|target| target.contains("CHANGE-ME")) {
            left(
                format!("the target of primary storage {}", storage.name),
                target,
                path.key("target"),
                "the storage shows it",
            );
        }
        if let Some(wwn) =
            storage.wwn.as_ref().filter(|wwn| wwn.as_str().bytes().skip(1).all(|byte| byte == b'0'))
        {
            left(
                format!("the WWN of primary storage {}", storage.name),
                wwn,
                path.key("wwn"),
                "the storage shows it",
            );
        }
    }
    let is_placeholder = |mac: &MacAddr| mac.0[..4] == [2, 0, 0, 0];
    for at in plan.hosts() {
        let host = at.host;
        if host.serial.starts_with("CHANGE-ME") {
            left(format!("the serial of host {}", host.name), &host.serial, at.path.key("serial"), label);
        }
        if let Some(serial) = host.os_disk.serial.as_ref().filter(|serial| serial.starts_with("CHANGE-ME")) {
            let help = "read it from the disk or the BMC; it is the one disk that will be written to";
            left(
                format!("the OS disk of host {}", host.name),
                serial,
                at.path.key("os_disk").key("serial"),
                help,
            );
        }
        if is_placeholder(&host.bmc.mac) {
            left(
                format!("the BMC's MAC of host {}", host.name),
                &host.bmc.mac,
                at.path.key("bmc").key("mac"),
                label,
            );
        }
        for (i, nic) in host.bond.nics.iter().enumerate().filter(|(_, nic)| is_placeholder(&nic.mac)) {
            let path = at.path.key("bond").key("nics").at(i).key("mac");
            left(format!("the MAC of {} of host {}", nic.role, host.name), &nic.mac, path, label);
        }
        for (i, nic) in host.storage_nics.iter().enumerate().filter(|(_, nic)| is_placeholder(&nic.mac)) {
            let path = at.path.key("storage_nics").at(i).key("mac");
            left(format!("the MAC of {} of host {}", nic.role, host.name), &nic.mac, path, label);
        }
    }
}
