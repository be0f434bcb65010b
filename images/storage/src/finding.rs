//! What a disk holds, as sentences, and whether that is ours to overwrite. Nothing is mounted, nothing is believed.
//!
//! A disk is *ours* if it carries the mark of an unfinished installation, or the mark of a finished one together with
//! exactly our partition table. Everything else that is not blank is foreign.

mod signatures;
#[cfg(test)]
mod tests;

use crate::block::{Access, Device};
use crate::disks::FoundDisk;
use crate::error::StorageError;
use crate::gpt;
use crate::marker::{Marker, Stage};
use dayzero_model::ids::Sha256;
use dayzero_model::install::{DiskConsent, DiskFinding, PartitionRole};
use std::path::Path;

/// Partitions of an MBR or GPT that are looked into.
const LOOK_INTO: usize = 128;
/// Findings at most.
const MOST: usize = 200;
const MIB: usize = 1 << 20;

/// A disk's content, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What was found.
    pub finding: DiskFinding,
    /// It may be overwritten without consent, since an installation of ours left it.
    pub ours: bool,
}

impl Inspection {
    /// Nothing was found.
    pub fn blank(&self) -> bool {
        self.finding.found.is_empty()
    }
}

/// Looks at a disk.
///
/// # Errors
/// I/O.
pub fn inspect(disk: &FoundDisk) -> Result<Inspection, StorageError> {
    let device = Device::open(&disk.path, Access::Look)?;
    device.drop_cache();
    let found = signatures(&device)?;
    let finding = DiskFinding::new(disk.disk.serial.clone(), disk.disk.wwn.clone(), found);
    Ok(Inspection { finding, ours: is_ours(&device)? })
}

/// Signatures on a device, as sentences; data at its ends if there are none. Empty = blank as far as one can see.
///
/// # Errors
/// I/O.
pub fn signatures(device: &Device) -> Result<Vec<String>, StorageError> {
    let mut found = signatures::all(device, 0, device.size())?;
    tables(device, &mut found)?;
    if found.is_empty() {
        for (at, place) in [(0, "first"), (device.size().saturating_sub(MIB as u64), "last")] {
            let bytes = device.read_some(at, MIB)?;
            let count = bytes.iter().filter(|byte| **byte != 0).count();
            if count > 0 {
                found.push(format!("data in the {place} MiB: {count} bytes are not zero"));
            }
        }
    }
    found.sort();
    found.dedup();
    found.truncate(MOST);
    Ok(found)
}

/// As [`signatures`], for a path.
///
/// # Errors
/// I/O.
pub fn signatures_of(path: &Path) -> Result<Vec<String>, StorageError> {
    signatures(&Device::open(path, Access::Look)?)
}

fn tables(device: &Device, found: &mut Vec<String>) -> Result<(), StorageError> {
    let mut partitions: Vec<(String, u64, u64)> = Vec::new();
    let mut gpt_there = false;
    for sector in [512, 4096] {
        if let Some(table) = gpt::read(device, sector)? {
            gpt_there = true;
            found.push(format!("GPT partition table with {} partitions", table.partitions.len()));
            let parts = table.partitions.iter().enumerate();
            partitions.extend(
                parts.map(|(n, p)| (format!("GPT partition {} '{}'", n + 1, p.name), p.start, p.length)),
            );
        } else if !gpt_there && gpt::is_claimed(device, sector)? {
            gpt_there = true;
            found.push("GPT partition table, damaged".to_owned());
        }
    }
    let first = device.read_some(0, 512)?;
    if first.len() == 512 && first[510..] == [0x55, 0xaa] {
        let entries = first[446..510].chunks(16).filter(|e| e[4] != 0 && e[4] != 0xee);
        let entries: Vec<(u8, u64, u64)> = entries
            .map(|e| {
                let word =
                    |at: usize| u64::from(u32::from_le_bytes([e[at], e[at + 1], e[at + 2], e[at + 3]]));
                (e[4], word(8) * 512, word(12) * 512)
            })
            .filter(|(_, start, length)| *start > 0 && *length > 0 && *start < device.size())
            .collect();
        let names_fs =
            found.iter().any(|f| f.starts_with("FAT") || f.starts_with("NTFS") || f.starts_with("exFAT"));
        if !entries.is_empty() && !names_fs {
            found.push(format!("MBR partition table with {} partitions", entries.len()));
            let parts = entries.iter().enumerate();
            partitions.extend(parts.map(|(n, (kind, start, length))| {
                (format!("MBR partition {} of type {kind:#04x}", n + 1), *start, *length)
            }));
        } else if !names_fs && !gpt_there {
            found.push("boot sector".to_owned());
        }
    }
    for (name, start, length) in partitions.into_iter().take(LOOK_INTO) {
        let inside = signatures::all(device, start, length.min(device.size().saturating_sub(start)))?;
        if inside.is_empty() {
            found.push(name);
        } else {
            found.extend(inside.into_iter().map(|signature| format!("{name}: {signature}")));
        }
    }
    Ok(())
}

fn is_ours(device: &Device) -> Result<bool, StorageError> {
    let Some(marker) = Marker::read(device)? else { return Ok(false) };
    let table = gpt::read(device, u64::from(device.sector()))?;
    let boot_sector = device.read_some(0, 512)?.iter().any(|byte| *byte != 0);
    match (marker.stage, table) {
        // A broken-off installation wrote its table as the last but one.
        (Stage::Writing, None) => Ok(!boot_sector),
        (_, Some(table)) => Ok(table.disk == marker.disk && has_our_partitions(&table)),
        (Stage::Complete, None) => Ok(false),
    }
}

fn has_our_partitions(table: &gpt::Table) -> bool {
    let roles = [PartitionRole::BiosBoot, PartitionRole::Esp, PartitionRole::Root];
    table.partitions.len() == roles.len()
        && table
            .partitions
            .iter()
            .zip(roles)
            .all(|(p, role)| p.name == role.gpt_name() && p.kind.to_string() == role.gpt_type())
}

/// The consent rule: a blank disk or one of ours needs none; anything else a consent that names this disk and exactly
/// this finding. A consent for another finding is none: the disk has changed since a person saw it.
///
/// # Errors
/// [`StorageError::ForeignDisk`].
pub fn permit(inspection: &Inspection, consent: Option<&DiskConsent>) -> Result<(), StorageError> {
    if inspection.blank() || inspection.ours {
        return Ok(());
    }
    let finding = &inspection.finding;
    let names = |serial: &str| {
        let wwn = finding.wwn.as_ref().map(|wwn| wwn.as_str());
        finding.serial.as_deref() == Some(serial) || wwn == Some(serial)
    };
    let why = match consent {
        None => "no consent to wipe it was given".to_owned(),
        Some(consent) if !names(&consent.serial) => {
            format!("the consent given is for disk {}", consent.serial)
        }
        Some(consent) if consent.finding != finding.digest => {
            format!("the consent given is for another content ({})", short(&consent.finding))
        }
        Some(_) => return Ok(()),
    };
    Err(StorageError::ForeignDisk { finding: Box::new(finding.clone()), why })
}

fn short(digest: &Sha256) -> String {
    digest.to_string().chars().take(12).collect()
}
