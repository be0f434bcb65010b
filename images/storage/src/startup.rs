//! How this running system was started: from which disk, by which firmware, by which of its entries. It reads alone.
//!
//! The disk is the one that holds the root file system, found from the file system's device number through sysfs, and
//! known by the GUID of its partition table, which an installation makes anew. BIOS keeps nothing that a running system
//! could read: there the disk is all that is told.

use crate::block::{Access, Device};
use crate::disks;
use crate::efi;
use crate::error::StorageError;
use crate::gpt;
use dayzero_model::inventory::BootMode;
use dayzero_model::startup::{RootDisk, StartReport};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the kernel shows that EFI firmware started it.
const EFI: &str = "/sys/firmware/efi";

/// Reads how this system was started.
///
/// # Errors
/// The root file system lies on no partition of a disk, or sysfs or the disk cannot be read.
pub fn read(kernel_boot: &str) -> Result<StartReport, StorageError> {
    let root = root_disk()?;
    let mut report = StartReport {
        kernel_boot: kernel_boot.to_owned(),
        mode: BootMode::Bios,
        root,
        current: None,
        order: Vec::new(),
        problems: Vec::new(),
    };
    if Path::new(EFI).exists() {
        firmware(&mut report, Path::new(efi::EFIVARS));
    }
    Ok(report)
}

/// What UEFI's variables tell.
fn firmware(report: &mut StartReport, vars: &Path) {
    report.mode = BootMode::Uefi;
    if let Err(error) = efi::mounted(vars) {
        report.problems.push(error.to_string());
        return;
    }
    report.order = efi::order(vars);
    report.current = efi::current(vars);
    if report.order.is_empty() {
        report.problems.push(format!("{} holds no readable BootOrder", vars.display()));
    }
    if report.current.is_none() {
        report.problems.push("the firmware does not say by which entry it started (BootCurrent)".to_owned());
    }
}

fn root_disk() -> Result<RootDisk, StorageError> {
    let device = std::fs::metadata("/").map_err(StorageError::io("looking at", Path::new("/")))?.dev();
    let number = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    disk_of(Path::new("/sys/dev/block"), &number, Path::new("/dev"))
}

/// The disk with the partition of this device number.
fn disk_of(sys_dev: &Path, number: &str, dev: &Path) -> Result<RootDisk, StorageError> {
    let link = sys_dev.join(number);
    let partition = std::fs::canonicalize(&link).map_err(StorageError::io("following", &link))?;
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let place = partition.parent().and_then(|parent| Some((parent.parent()?, name(parent)?)));
    let Some((sys_block, disk)) = place.filter(|_| partition.join("partition").exists()) else {
        return Err(StorageError::wrong(
            "root-elsewhere",
            "the running root file system lies on no partition of a disk",
            "a partition of the installed disk",
            format!("device {number}, {}", name(&partition).unwrap_or_default()),
        ));
    };
    let start = std::fs::read_to_string(partition.join("start")).ok();
    // The kernel counts in 512 bytes whatever the disk's sector is.
    let start = start.and_then(|text| text.trim().parse::<u64>().ok()?.checked_mul(512));
    let found = disks::one_in(sys_block, dev, &disk);
    let device = Device::open(&dev.join(&disk), Access::Look)?;
    let table = gpt::read(&device, u64::from(device.sector()))?;
    let partitions = table.as_ref().map(|table| table.partitions.as_slice()).unwrap_or_default();
    let root = partitions.iter().find(|p| Some(p.start) == start);
    Ok(RootDisk {
        kernel_name: disk,
        serial: found.as_ref().and_then(|found| found.disk.serial.clone()),
        wwn: found.and_then(|found| found.disk.wwn),
        disk_guid: table.as_ref().map(|table| table.disk.to_string()),
        root_guid: root.map(|root| root.guid.to_string()),
        partitions: partitions.iter().map(|p| p.guid.to_string()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::{Partition, Table};
    use uuid::Uuid;

    /// A disk as sysfs and /dev show it, with a table of two partitions.
    fn disk(at: &Path) -> Table {
        let part = |n: u128, start: u64| Partition {
            kind: Uuid::from_u128(9),
            guid: Uuid::from_u128(n),
            start: start << 20,
            length: 1 << 20,
            name: "p".to_owned(),
        };
        let table = Table { disk: Uuid::from_u128(7), partitions: vec![part(1, 1), part(2, 2)] };
        let (sys, dev) = (at.join("block/sda/sda2"), at.join("dev"));
        for path in [&sys, &dev, &at.join("by")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::File::create(dev.join("sda")).unwrap().set_len(8 << 20).unwrap();
        table.write(&Device::open(&dev.join("sda"), Access::Direct).unwrap()).unwrap();
        for (file, text) in
            [("sda2/partition", "2\n"), ("sda2/start", "4096\n"), ("size", "16384\n"), ("serial", "S1\n")]
        {
            std::fs::write(at.join("block/sda").join(file), text).unwrap();
        }
        std::os::unix::fs::symlink("../block/sda/sda2", at.join("by/8:2")).unwrap();
        std::os::unix::fs::symlink("../block/sda", at.join("by/8:0")).unwrap();
        table
    }

    #[test]
    fn the_running_roots_disk_is_known_by_its_table() {
        let at = tempfile::tempdir().unwrap();
        let table = disk(at.path());
        let (by, dev) = (at.path().join("by"), at.path().join("dev"));
        let found = disk_of(&by, "8:2", &dev).unwrap();
        assert_eq!((found.kernel_name.as_str(), found.serial.as_deref()), ("sda", Some("S1")));
        assert_eq!(found.disk_guid, Some(table.disk.to_string()));
        assert_eq!(found.root_guid, Some(table.partitions[1].guid.to_string()));
        assert_eq!(found.partitions.len(), 2);
        // A root on a whole disk, or on nothing that sysfs knows.
        assert_eq!(disk_of(&by, "8:0", &dev).unwrap_err().code(), "root-elsewhere");
        assert!(disk_of(&by, "0:33", &dev).is_err());
    }
}
