//! Which disks a host has, and which one an order means: by serial and WWN, never by kernel name.
//!
//! Read from sysfs. A disk that other hosts can reach (iSCSI, Fibre Channel) or that is seen over several paths is never
//! an operating system's disk.

#[cfg(test)]
mod tests;

use crate::block::{Access, Device};
use crate::error::StorageError;
use crate::finding;
use dayzero_model::inventory::Disk;
use dayzero_model::site::DiskSelector;
use dayzero_model::units::Bytes;
use std::path::{Path, PathBuf};

/// Kernel names that are no whole disks of this host.
const NOT_DISKS: [&str; 10] = ["loop", "ram", "dm-", "md", "zram", "sr", "fd", "nbd", "mtdblock", "drbd"];
/// Disks at most.
const MOST: usize = 4096;
/// Buses over which other hosts may see the same disk.
const SHARED_BUSES: [&str; 2] = ["iscsi", "fc"];

/// A disk with where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDisk {
    /// What it says of itself; `bus` may also be `iscsi`, `fc` or `usb`.
    pub disk: Disk,
    /// Device node of this boot.
    pub path: PathBuf,
    /// It cannot be written.
    pub read_only: bool,
}

impl FoundDisk {
    /// Kernel name, serial and WWN, for messages.
    pub fn text(&self) -> String {
        let mut text = self.disk.kernel_name.clone();
        let wwn = self.disk.wwn.as_ref().map(|wwn| format!("WWN {wwn}"));
        let serial = self.disk.serial.as_ref().map(|serial| format!("serial {serial}"));
        let ids: Vec<String> = serial.into_iter().chain(wwn).collect();
        if !ids.is_empty() {
            text = format!("{text} ({})", ids.join(", "));
        }
        text
    }
}

/// All whole disks of this host, sorted by kernel name, each with the signatures on it (or why they cannot be read).
///
/// # Errors
/// If sysfs cannot be listed.
pub fn enumerate() -> Result<Vec<FoundDisk>, StorageError> {
    let mut disks = enumerate_in(Path::new("/sys/block"), Path::new("/dev"))?;
    for found in &mut disks {
        let signatures =
            Device::open(&found.path, Access::Look).and_then(|device| finding::signatures(&device));
        found.disk.signatures = signatures.unwrap_or_else(|e| vec![format!("cannot be read: {e}")]);
    }
    Ok(disks)
}

/// As [`enumerate`], from another sysfs, without signatures.
///
/// # Errors
/// If it cannot be listed.
pub fn enumerate_in(sys_block: &Path, dev: &Path) -> Result<Vec<FoundDisk>, StorageError> {
    let listing = std::fs::read_dir(sys_block).map_err(StorageError::io("listing", sys_block))?;
    let mut names: Vec<String> =
        listing.flatten().filter_map(|entry| entry.file_name().into_string().ok()).take(MOST).collect();
    names.sort();
    Ok(names.iter().filter_map(|name| one_in(sys_block, dev, name)).collect())
}

/// The whole disk of this kernel name.
pub(crate) fn one_in(sys_block: &Path, dev: &Path, name: &str) -> Option<FoundDisk> {
    // nvme0c0n1 is one path of nvme0n1.
    let nvme_path = name
        .strip_prefix("nvme")
        .is_some_and(|rest| rest.split_once('c').is_some_and(|(n, _)| n.bytes().all(|b| b.is_ascii_digit())));
    let no_disk = |prefix: &&str| {
        name.strip_prefix(*prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if nvme_path || NOT_DISKS.iter().any(no_disk) {
        return None;
    }
    let sys = sys_block.join(name);
    let text = |path: &str| {
        let bytes = std::fs::read(sys.join(path)).ok()?;
        clean(&String::from_utf8_lossy(&bytes))
    };
    let number = |path: &str| text(path).and_then(|text| text.parse::<u64>().ok());
    let size = number("size")?.checked_mul(512).filter(|size| *size > 0)?;
    let serial =
        text("serial").or_else(|| text("device/serial")).or_else(|| page80(&sys.join("device/vpd_pg80")));
    let wwid = text("device/wwid").or_else(|| text("wwid"));
    let target = std::fs::canonicalize(&sys).unwrap_or_else(|_| sys.clone());
    let disk = Disk {
        kernel_name: name.to_owned(),
        serial,
        wwn: wwid.and_then(|wwid| wwid.parse().ok()),
        size: Bytes(size),
        logical_block: number("queue/logical_block_size").and_then(|n| u32::try_from(n).ok()).unwrap_or(512),
        rotational: number("queue/rotational") == Some(1),
        bus: bus(name, &target.to_string_lossy()).to_owned(),
        model: text("device/model"),
        signatures: Vec::new(),
    };
    Some(FoundDisk { disk, path: dev.join(name), read_only: number("ro") == Some(1) })
}

fn clean(text: &str) -> Option<String> {
    let text: String =
        text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars().take(256).collect();
    (!text.is_empty()).then(|| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// SCSI's unit serial number page: four bytes of header, then text (SPC-4 section 7.8.15).
fn page80(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    clean(&String::from_utf8_lossy(bytes.get(4..)?))
}

fn bus(name: &str, device: &str) -> &'static str {
    let has = |part: &str| device.contains(part);
    match name {
        _ if name.starts_with("vd") => "virtio",
        _ if name.starts_with("nvme") => "nvme",
        _ if has("/session") => "iscsi",
        _ if has("/rport-") => "fc",
        _ if has("/usb") => "usb",
        _ if has("/ata") => "ata",
        _ => "scsi",
    }
}

fn wanted(selector: &DiskSelector) -> String {
    let serial = selector.serial.as_ref().map(|serial| format!("serial {serial}"));
    let wwn = selector.wwn.as_ref().map(|wwn| format!("WWN {wwn}"));
    let parts: Vec<String> = serial.into_iter().chain(wwn).collect();
    if parts.is_empty() { "a disk without serial and WWN".to_owned() } else { parts.join(" and ") }
}

/// The one disk that an order means, fit for an operating system: serial and WWN agree where both are given, exactly one
/// disk fits, it is not shared, not seen twice, and can be written.
///
/// # Errors
/// [`StorageError::DiskMissing`], [`StorageError::DiskAmbiguous`] or [`StorageError::DiskUnfit`].
pub fn select<'a>(disks: &'a [FoundDisk], selector: &DiskSelector) -> Result<&'a FoundDisk, StorageError> {
    let fits = |found: &&FoundDisk| {
        let serial = selector.serial.as_ref().is_none_or(|serial| found.disk.serial.as_ref() == Some(serial));
        let wwn = selector.wwn.as_ref().is_none_or(|wwn| found.disk.wwn.as_ref() == Some(wwn));
        serial && wwn && (selector.serial.is_some() || selector.wwn.is_some())
    };
    let matches: Vec<&FoundDisk> = disks.iter().filter(fits).collect();
    let list = |disks: &[&FoundDisk]| {
        let texts: Vec<String> = disks.iter().map(|disk| disk.text()).collect();
        if texts.is_empty() { "no disk".to_owned() } else { texts.join(", ") }
    };
    let disk = match matches.as_slice() {
        [disk] => *disk,
        [] => {
            let present = list(&disks.iter().collect::<Vec<_>>());
            return Err(StorageError::DiskMissing { wanted: wanted(selector), present });
        }
        several => {
            return Err(StorageError::DiskAmbiguous { wanted: wanted(selector), matches: list(several) });
        }
    };
    let unfit = |why: String| Err(StorageError::DiskUnfit { disk: disk.text(), why });
    if SHARED_BUSES.contains(&disk.disk.bus.as_str()) {
        return unfit(format!("it is reached by {}, where other hosts may see it too", disk.disk.bus));
    }
    let twin = disks
        .iter()
        .find(|other| other.path != disk.path && disk.disk.wwn.is_some() && other.disk.wwn == disk.disk.wwn);
    if let Some(twin) = twin {
        return unfit(format!("{} is the same disk over another path", twin.text()));
    }
    if disk.read_only {
        return unfit("it is write protected".to_owned());
    }
    Ok(disk)
}
