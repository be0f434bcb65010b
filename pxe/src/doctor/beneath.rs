//! The ports beneath an interface (a bridge's, a bond's legs, what a VLAN lies on), and whether each has a link.
//!
//! Invariants: it reads sysfs and nothing else, of at most [`DEVICES`] devices beneath one interface.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Finding, Severity};
use crate::config::ServedInterface;

/// Devices of this network namespace.
pub(super) const SYS: &str = "/sys/class/net";
/// Devices that are looked at beneath one interface.
const DEVICES: usize = 32;
/// `IFF_UP` (`linux/if.h`).
const UP: u32 = 1;

/// What the kernel says of a device's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// It has a carrier.
    Carrier,
    /// It is up, and has none.
    NoCarrier,
    /// It is switched off on this machine.
    Down,
}

/// A device and those beneath it; with each, whether it is the lowest, the port itself.
pub(super) fn stack(sys: &Path, device: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let (mut next, mut seen) = (vec![device.to_owned()], BTreeSet::new());
    while let Some(device) = next.pop() {
        if found.len() == DEVICES || !seen.insert(device.clone()) {
            continue;
        }
        let entries = std::fs::read_dir(sys.join(&device)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut lower: Vec<String> =
            names.filter_map(|name| name.strip_prefix("lower_").map(str::to_owned)).collect();
        lower.sort_unstable_by(|a, b| b.cmp(a));
        found.push((device, lower.is_empty()));
        next.append(&mut lower);
    }
    found
}

/// Whether nothing can be heard on a device, since it has no link.
pub(super) fn is_dead(sys: &Path, device: &str) -> bool {
    matches!(link(sys, device), Some(Link::NoCarrier | Link::Down))
}

/// The links of the ports beneath an interface. One that is its own port has none beneath it.
pub(super) fn links(sys: &Path, interface: &ServedInterface) -> Vec<Finding> {
    let beneath = stack(sys, &interface.device).into_iter();
    let ports = beneath.filter(|(name, leaf)| *leaf && *name != interface.device && !is_guests(sys, name));
    let ports: Vec<(String, Link)> =
        ports.filter_map(|(name, _)| link(sys, &name).map(|link| (name, link))).collect();
    let reached = ports.iter().any(|(_, link)| *link == Link::Carrier);
    ports.into_iter().map(|(name, link)| judge(&name, link, reached).on(interface)).collect()
}

/// A tap is the port of a program, such as a virtual machine, and has no cable.
fn is_guests(sys: &Path, device: &str) -> bool {
    sys.join(device).join("tun_flags").exists()
}

fn link(sys: &Path, device: &str) -> Option<Link> {
    let read = |name: &str| std::fs::read_to_string(sys.join(device).join(name)).ok();
    let flags = read("flags")?;
    let flags = u32::from_str_radix(flags.trim().strip_prefix("0x")?, 16).ok()?;
    // The kernel tells no carrier of a device that is down.
    if flags & UP == 0 {
        return Some(Link::Down);
    }
    match read("carrier")?.trim() {
        "1" => Some(Link::Carrier),
        "0" => Some(Link::NoCarrier),
        _ => None,
    }
}

/// `reached`: another port of the same interface has a link, so that it works yet.
fn judge(port: &str, link: Link, reached: bool) -> Finding {
    let bad = if reached { Severity::Warning } else { Severity::Fault };
    match link {
        Link::Carrier => Finding::new("link", Severity::Good, format!("its port {port} has a link"), ""),
        Link::NoCarrier => {
            let action = "plug in its cable, or enable the switch port";
            Finding::new("link", bad, format!("its port {port} has no carrier"), action)
        }
        Link::Down => {
            let action = format!("ip link set {port} up");
            Finding::new("link", bad, format!("its port {port} is down"), action)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::interface;
    use dayzero_model::site::NetworkRole;

    #[test]
    fn the_ports_beneath_an_interface_are_found() {
        let sys = tempfile::tempdir().unwrap();
        for path in
            ["br0/lower_bond0", "br0/lower_vnet0", "bond0/lower_eno2", "bond0/lower_eno1", "eno1", "vnet0"]
        {
            std::fs::create_dir_all(sys.path().join(path)).unwrap();
        }
        // A circle ends, and what is not there is the port itself.
        std::fs::create_dir_all(sys.path().join("eno2/lower_br0")).unwrap();
        let names = |device: &str| -> Vec<String> {
            let each = |(name, leaf): (String, bool)| if leaf { format!("{name}!") } else { name };
            stack(sys.path(), device).into_iter().map(each).collect()
        };
        assert_eq!(names("br0"), ["br0", "bond0", "eno1!", "eno2", "vnet0!"]);
        assert_eq!(names("eno9"), ["eno9!"]);
    }

    /// A bridge on a bond of two legs, and on a virtual machine's tap.
    #[test]
    fn each_port_s_link_is_told() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        for path in ["br0/lower_bond0", "br0/lower_vnet0", "bond0/lower_eno1", "bond0/lower_eno2"] {
            std::fs::create_dir_all(sys.join(path)).unwrap();
        }
        let set = |device: &str, flags: &str, carrier: &str| {
            std::fs::create_dir_all(sys.join(device)).unwrap();
            std::fs::write(sys.join(device).join("flags"), format!("{flags}\n")).unwrap();
            std::fs::write(sys.join(device).join("carrier"), format!("{carrier}\n")).unwrap();
        };
        set("vnet0", "0x1003", "0");
        std::fs::write(sys.join("vnet0/tun_flags"), "0x1002\n").unwrap();
        let on = |device: &str| ServedInterface { device: device.into(), ..interface(NetworkRole::Bmc) };
        let told = |device: &str| -> Vec<(Severity, String, String)> {
            let each = |finding: Finding| {
                assert_eq!((finding.check, finding.interface.as_deref()), ("link", Some(device)));
                (finding.severity, finding.found, finding.action)
            };
            links(sys, &on(device)).into_iter().map(each).collect()
        };
        let row = |severity, found: &str, action: &str| (severity, found.to_owned(), action.to_owned());
        let plug = "plug in its cable, or enable the switch port";

        set("eno1", "0x1803", "1");
        set("eno2", "0x1803", "0");
        assert_eq!(
            told("br0"),
            [
                row(Severity::Good, "its port eno1 has a link", ""),
                row(Severity::Warning, "its port eno2 has no carrier", plug),
            ],
            "the other leg carries it, and a tap has no cable"
        );
        assert!(is_dead(sys, "eno2") && !is_dead(sys, "eno1") && !is_dead(sys, "bond0"), "who can be heard");

        // The kernel refuses to tell the carrier of what is down: the file cannot be read.
        set("eno1", "0x1002", "");
        set("eno2", "0x1803", "0");
        assert_eq!(
            told("br0"),
            [
                row(Severity::Fault, "its port eno1 is down", "ip link set eno1 up"),
                row(Severity::Fault, "its port eno2 has no carrier", plug),
            ],
            "nothing carries it, though a guest's tap keeps a bridge running"
        );
        assert_eq!(told("eno2"), [], "what is said of the interface itself is said once");
        assert_eq!(told("nope0"), []);
    }
}
