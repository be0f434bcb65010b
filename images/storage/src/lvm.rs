//! Volumes of VMs: thick LVs in one volume group a LUN.
//!
//! Invariants: metadata is changed by one elected host alone (the appliance elects; these functions trust it); a LUN is
//! made a physical volume only while it is empty; only the multipath device is looked at, never one of its paths; nothing
//! is activated but by the host that uses it. Argument lists are fixed.

use crate::StorageError;
use crate::finding::signatures_of;
use crate::tool::{self, ToolError};
use dayzero_model::Name;
use dayzero_model::storage::VolumeSpec;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);
/// Tag of a volume group that Dayzero made.
const TAG: &str = "dayzero";
/// LVM's extent of 4 MiB: sizes are rounded up to it.
const EXTENT: u64 = 4 << 20;

/// Name of the volume group of a primary storage.
pub fn group(storage: &Name) -> String {
    format!("dz-{storage}")
}

/// Device node of a volume.
pub fn path(volume: &VolumeSpec) -> PathBuf {
    Path::new("/dev").join(group(&volume.storage)).join(volume.name.as_str())
}

/// LVM looks at this device and no other, and never at the paths below it.
async fn lvm(command: &str, device: &Path, args: &[&str]) -> Result<String, ToolError> {
    let devices = device.to_string_lossy();
    let mut full = vec!["--devices", &*devices];
    full.extend(args);
    tool::run(command, &full, LIMIT).await
}

/// Makes the storage's volume group, or checks that it is ours.
///
/// # Errors
/// `foreign-lun`: the LUN holds something that is not ours; or LVM fails.
pub async fn make_group(storage: &Name, device: &Path) -> Result<(), StorageError> {
    let name = group(storage);
    let report = lvm("pvs", device, &["--noheadings", "-o", "vg_name,vg_tags", "--separator", "|"]).await?;
    let found: Vec<(&str, &str)> = report.lines().filter_map(|line| line.trim().split_once('|')).collect();
    if let Some((vg, tags)) = found.first() {
        if *vg == name && tags.split(',').any(|tag| tag == TAG) {
            return Ok(());
        }
        if !vg.is_empty() {
            let sentence = format!(
                "the LUN of primary storage '{storage}' holds volume group '{vg}', which is not Dayzero's"
            );
            return Err(StorageError::wrong(
                "foreign-lun",
                sentence,
                format!("an empty LUN or group '{name}'"),
                (*vg).to_owned(),
            ));
        }
    } else {
        let found = signatures_of(device)?;
        if !found.is_empty() {
            let sentence = format!(
                "the LUN of primary storage '{storage}' is not empty and not ours: wipe it on the array, or plan another LUN"
            );
            return Err(StorageError::wrong(
                "foreign-lun",
                sentence,
                "no signature, and zeros in the first and last MiB",
                found.join("; "),
            ));
        }
        lvm("pvcreate", device, &["--yes", &device.to_string_lossy()]).await?;
    }
    lvm(
        "vgcreate",
        device,
        &["--yes", "--addtag", TAG, "--setautoactivation", "n", &name, &device.to_string_lossy()],
    )
    .await?;
    Ok(())
}

/// Makes a volume, inactive; one of that name and size is taken as made. Elected host only.
///
/// # Errors
/// `volume-differs`: there is one of another size; or LVM fails (the group is full).
pub async fn create(volume: &VolumeSpec, device: &Path) -> Result<(), StorageError> {
    let size = volume.size.0.div_ceil(EXTENT) * EXTENT;
    let name = group(&volume.storage);
    let known =
        lvm("lvs", device, &["--noheadings", "--nosuffix", "--units", "b", "-o", "lv_name,lv_size", &name])
            .await?;
    for line in known.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some(volume.name.as_str()) {
            let there = words.next().and_then(|size| size.parse::<u64>().ok());
            if there == Some(size) {
                return Ok(());
            }
            let sentence = format!("volume '{}' exists with another size", volume.name);
            return Err(StorageError::wrong(
                "volume-differs",
                sentence,
                size.to_string(),
                format!("{there:?}"),
            ));
        }
    }
    let bytes = format!("{size}b");
    let args = [
        "--yes",
        "--activate",
        "n",
        "--zero",
        "n",
        "--wipesignatures",
        "n",
        "--size",
        &bytes,
        "--name",
        volume.name.as_str(),
        "--addtag",
        TAG,
        &name,
    ];
    lvm("lvcreate", device, &args).await?;
    Ok(())
}

/// Activates a volume on this host alone; its device node.
///
/// # Errors
/// LVM fails, or the node does not appear.
pub async fn activate(volume: &VolumeSpec, device: &Path) -> Result<PathBuf, StorageError> {
    let full = format!("{}/{}", group(&volume.storage), volume.name);
    // Another host may have changed the metadata since: the kernel's table is made anew from what is on the LUN.
    lvm("lvchange", device, &["--activate", "y", &full]).await?;
    lvm("lvchange", device, &["--refresh", &full]).await?;
    let node = path(volume);
    crate::multipath::wait_for(&node, Duration::from_secs(20)).await?;
    Ok(node)
}

/// Deactivates a volume here.
///
/// # Errors
/// It is in use, or LVM fails.
pub async fn deactivate(volume: &VolumeSpec, device: &Path) -> Result<(), StorageError> {
    lvm("lvchange", device, &["--activate", "n", &format!("{}/{}", group(&volume.storage), volume.name)])
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_path() {
        let volume = VolumeSpec {
            name: "vol-hello".parse().unwrap(),
            storage: "lun0".parse().unwrap(),
            size: dayzero_model::Bytes(1),
        };
        assert_eq!(path(&volume), Path::new("/dev/dz-lun0/vol-hello"));
    }
}
