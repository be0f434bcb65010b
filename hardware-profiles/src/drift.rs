//! What a host has against what its profile and its plan say, as sentences with expected and observed.
//!
//! Invariants: no drift means that everything the profile asks was observed; a section that could not be read is a
//! drift of its own. NICs are matched by slot, disks by size and kind, neither by kernel name.

use crate::profile::{DiskRule, Profile};
use dayzero_model::inventory::{BootMode, Disk, Inventory, Nic};
use dayzero_model::site::Host;
use dayzero_model::{Bytes, Name};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One difference. `Display` is the sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What differs, such as `memory` or `NIC pod-a`.
    pub what: String,
    /// What the profile or the plan says.
    pub expected: String,
    /// What was observed.
    pub observed: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, observed {}", self.what, self.expected, self.observed)
    }
}

fn drift(what: impl Into<String>, expected: impl Into<String>, observed: impl Into<String>) -> Drift {
    Drift { what: what.into(), expected: expected.into(), observed: observed.into() }
}

/// Bounds of a nominal value, percent around it.
fn bounds(size: u64, tolerance: u32) -> (u64, u64) {
    let part = u64::try_from(u128::from(size) * u128::from(tolerance) / 100).unwrap_or(u64::MAX);
    (size.saturating_sub(part), size.saturating_add(part))
}

/// What a host differs in from its profile; empty = it matches.
pub fn match_host(profile: &Profile, inventory: &Inventory) -> Vec<Drift> {
    let mut drifts = Vec::new();
    system(profile, inventory, &mut drifts);
    cpu(profile, inventory, &mut drifts);
    memory(profile, inventory, &mut drifts);
    for rule in &profile.disks {
        disks(rule, inventory, &mut drifts);
    }
    nics(profile, inventory, &mut drifts);
    drifts
}

/// What a host differs in from its plan: each planned NIC in its role's slot, and the disk for the operating system there.
pub fn match_plan(profile: &Profile, inventory: &Inventory, host: &Host) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for (role, mac, _) in host.nics() {
        let what = format!("NIC {role}");
        let found = inventory.nics.iter().find(|nic| nic.mac == mac);
        match (nic_of_role(profile, inventory, role), found) {
            (Some(nic), _) if nic.mac == mac => {}
            (Some(nic), Some(other)) => {
                let slot = other.slot.as_deref().unwrap_or("a slot that is not known");
                drifts.push(drift(
                    what,
                    format!("MAC {mac}"),
                    format!("{} there; {mac} is in {slot}", nic.mac),
                ));
            }
            (Some(nic), None) => {
                drifts.push(drift(what, format!("MAC {mac}"), format!("{}; no NIC has {mac}", nic.mac)));
            }
            (None, _) => drifts.push(drift(what, format!("MAC {mac}"), "no NIC in this role's slot")),
        }
    }
    let wanted = &host.os_disk;
    let same = |disk: &&Disk| {
        wanted
            .serial
            .as_ref()
            .is_none_or(|serial| disk.serial.as_deref().map(str::trim) == Some(serial.trim()))
            && wanted.wwn.as_ref().is_none_or(|wwn| disk.wwn.as_ref() == Some(wwn))
    };
    if !inventory.disks.iter().any(|disk| same(&disk)) {
        let serial = wanted.serial.iter().map(|serial| format!("serial {serial}"));
        let wwn = wanted.wwn.iter().map(|wwn| format!("WWN {wwn}"));
        let expected = serial.chain(wwn).collect::<Vec<_>>().join(" and ");
        drifts.push(drift(
            "disk for the operating system",
            expected,
            listed(inventory.disks.iter().map(shown)),
        ));
    }
    drifts
}

/// The NIC in the slot that a role has in the profile.
pub fn nic_of_role<'i>(profile: &Profile, inventory: &'i Inventory, role: &Name) -> Option<&'i Nic> {
    let slot = &profile.nics.iter().find(|rule| rule.role == *role)?.slot;
    inventory.nics.iter().find(|nic| nic.slot.as_deref().is_some_and(|have| have.eq_ignore_ascii_case(slot)))
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.take(16).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn text(value: Option<&String>) -> String {
    value.map_or("nothing".to_owned(), |value| format!("'{}'", value.trim()))
}

fn mode(mode: BootMode) -> &'static str {
    match mode {
        BootMode::Bios => "BIOS",
        BootMode::Uefi => "UEFI",
    }
}

fn system(profile: &Profile, inventory: &Inventory, out: &mut Vec<Drift>) {
    let rule = &profile.system;
    for (what, accepted, observed) in [
        ("manufacturer", &rule.manufacturers, &inventory.system.manufacturer),
        ("product", &rule.products, &inventory.system.product),
        ("firmware version", &rule.firmware_versions, &inventory.firmware.version),
    ] {
        let fits = observed.as_ref().is_some_and(|have| accepted.iter().any(|one| one.trim() == have.trim()));
        if !accepted.is_empty() && !fits {
            let accepted = accepted.iter().map(|one| format!("'{one}'")).collect::<Vec<_>>().join(" or ");
            out.push(drift(what, accepted, text(observed.as_ref())));
        }
    }
    if !rule.boot_modes.is_empty() && !rule.boot_modes.contains(&inventory.boot_mode) {
        let accepted = rule.boot_modes.iter().map(|one| mode(*one)).collect::<Vec<_>>().join(" or ");
        out.push(drift("boot mode", accepted, mode(inventory.boot_mode)));
    }
}

fn cpu(profile: &Profile, inventory: &Inventory, out: &mut Vec<Drift>) {
    let (rule, cpu) = (&profile.cpu, &inventory.cpu);
    let most = rule.cores.max.map_or(String::new(), |max| format!(" and at most {max}"));
    if cpu.cores < rule.cores.min || rule.cores.max.is_some_and(|max| cpu.cores > max) {
        out.push(drift("CPU cores", format!("at least {}{most}", rule.cores.min), cpu.cores.to_string()));
    }
    if let Some(sockets) = rule.sockets.filter(|sockets| *sockets != cpu.sockets) {
        out.push(drift("CPU sockets", sockets.to_string(), cpu.sockets.to_string()));
    }
    if !rule.models.is_empty() && !rule.models.iter().any(|model| cpu.model.contains(model.as_str())) {
        out.push(drift("CPU model", rule.models.join(" or "), format!("'{}'", cpu.model)));
    }
    if rule.virtualization && !matches!(cpu.virtualization.as_deref(), Some("svm" | "vmx")) {
        let observed =
            cpu.virtualization.clone().unwrap_or_else(|| "neither (switched off in the firmware?)".into());
        out.push(drift("CPU virtualization", "svm or vmx", observed));
    }
}

fn memory(profile: &Profile, inventory: &Inventory, out: &mut Vec<Drift>) {
    let rule = &profile.memory;
    let (least, most) = bounds(rule.size.0 >> 20, rule.tolerance_percent);
    if !(least..=most).contains(&inventory.memory.0) {
        let expected = format!("{} ± {} % ({least} to {most} MiB)", rule.size, rule.tolerance_percent);
        out.push(drift("memory", expected, inventory.memory.to_string()));
    }
    let fitted = u32::try_from(inventory.dimms.len()).unwrap_or(u32::MAX);
    if let Some(dimms) = rule.dimms.filter(|dimms| *dimms != fitted) {
        let modules = inventory.dimms.iter().map(|dimm| format!("{} {}", dimm.locator, dimm.size));
        out.push(drift("memory modules", dimms.to_string(), format!("{fitted}: {}", listed(modules))));
    }
}

fn shown(disk: &Disk) -> String {
    let serial = disk.serial.as_ref().map_or(String::new(), |serial| format!(" serial {}", serial.trim()));
    let wwn = disk.wwn.as_ref().map_or(String::new(), |wwn| format!(" WWN {wwn}"));
    format!("{} {}{serial}{wwn}", disk.size, disk.bus)
}

fn disks(rule: &DiskRule, inventory: &Inventory, out: &mut Vec<Drift>) {
    let (least, most) = bounds(rule.size.0, rule.tolerance_percent);
    let fits = |disk: &&Disk| {
        (least..=most).contains(&disk.size.0)
            && rule.rotational.is_none_or(|rotational| rotational == disk.rotational)
            && rule.bus.as_ref().is_none_or(|bus| *bus == disk.bus)
    };
    let found = inventory.disks.iter().filter(fits).count();
    if found != rule.count as usize {
        let kind = match rule.rotational {
            Some(true) => " spinning",
            Some(false) => " solid-state",
            None => "",
        };
        let bus = rule.bus.as_ref().map_or(String::new(), |bus| format!(" {bus}"));
        let expected = format!(
            "{} of {} ± {} %{kind}{bus} ({} to {})",
            rule.count,
            rule.size,
            rule.tolerance_percent,
            Bytes(least),
            Bytes(most)
        );
        let observed = format!("{found}; disks: {}", listed(inventory.disks.iter().map(shown)));
        out.push(drift(format!("disks of role {}", rule.role), expected, observed));
    }
}

fn nics(profile: &Profile, inventory: &Inventory, out: &mut Vec<Drift>) {
    for rule in &profile.nics {
        let what = format!("NIC {}", rule.role);
        let Some(nic) = nic_of_role(profile, inventory, &rule.role) else {
            let others = inventory.nics.iter().map(|nic| {
                format!("{} in {}", nic.mac, nic.slot.as_deref().unwrap_or("a slot that is not known"))
            });
            out.push(drift(what, format!("a NIC in slot {}", rule.slot), listed(others)));
            continue;
        };
        if let Some(driver) = rule.driver.as_ref().filter(|driver| nic.driver.as_ref() != Some(driver)) {
            out.push(drift(format!("{what}'s driver"), driver.clone(), text(nic.driver.as_ref())));
        }
        if rule.link && !nic.link {
            out.push(drift(format!("{what}'s link"), "up", "down"));
        }
        if let Some(least) =
            rule.min_speed_mbit.filter(|least| nic.speed_mbit.is_none_or(|speed| speed < *least))
        {
            let observed = nic.speed_mbit.map_or("not known".to_owned(), |speed| format!("{speed} Mbit/s"));
            out.push(drift(format!("{what}'s speed"), format!("at least {least} Mbit/s"), observed));
        }
    }
}
