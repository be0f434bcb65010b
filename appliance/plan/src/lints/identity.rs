//! `DZ016`: what a host and its OS disk are known by says something.

use super::{Lint, Plan};
use crate::diagnostic::Finding;

pub(super) const LINT: Lint = Lint {
    code: "DZ016",
    name: "identity",
    about: "serials and UUIDs are no filler of a vendor's template, and each host names its OS disk",
    check,
};

/// What firmware holds when nobody wrote the serial, in upper case.
const FILLERS: [&str; 12] = [
    "TO BE FILLED BY O.E.M.",
    "SYSTEM SERIAL NUMBER",
    "DEFAULT STRING",
    "NOT SPECIFIED",
    "NOT APPLICABLE",
    "NONE",
    "N/A",
    "UNKNOWN",
    "0123456789",
    "123456789",
    "1234567890",
    "O.E.M.",
];

fn is_filler(text: &str) -> bool {
    let upper = text.trim().to_uppercase();
    let same = upper.chars().next().is_some_and(|first| upper.chars().all(|c| c == first));
    FILLERS.contains(&upper.as_str()) || same
}

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for at in plan.hosts() {
        let host = at.host;
        if is_filler(&host.serial) {
            out.push(
                Finding::error(LINT.code, format!("host {}: serial `{}` is a vendor's filler, which many machines have", host.name, host.serial))
                    .help("write the serial from the label; if the firmware has none, set it with the vendor's tool first")
                    .at(&at.path.key("serial"), "identifies nothing"),
            );
        }
        if let Some(uuid) = host
            .uuid
            .as_ref()
            .filter(|uuid| is_filler(&uuid.replace('-', "")) || uuid.starts_with("03000200-0400-0500-0006-"))
        {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("host {}: UUID {uuid} is a vendor's filler, which many machines have", host.name),
                )
                .help("leave `uuid` out: the serial identifies the host")
                .at(&at.path.key("uuid"), "identifies nothing"),
            );
        }
        if host.os_disk.serial.is_none() && host.os_disk.wwn.is_none() {
            out.push(
                Finding::error(LINT.code, format!("host {}: os_disk names no disk", host.name))
                    .help("write its `serial`, its `wwn` or both; without, no disk is ever written to")
                    .at(&at.path.key("os_disk"), "needs `serial` or `wwn`"),
            );
        }
    }
}
