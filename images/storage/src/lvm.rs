//! Volumes of VMs: thick LVs in one volume group a LUN.
//!
//! Invariants: metadata is changed by one elected host alone (the appliance elects; these functions trust it); a LUN is
//! made a physical volume only while it is empty; only the multipath device is looked at, never one of its paths; nothing
//! is activated but by the host that uses it. Argument lists are fixed.

use crate::StorageError;
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
        if let Some(at) = first_content(device)? {
            let sentence = format!(
                "the LUN of primary storage '{storage}' is not empty and not ours: wipe it on the array, or plan another LUN"
            );
            return Err(StorageError::wrong(
                "foreign-lun",
                sentence,
                "zeros in the first MiB",
                format!("content at byte {at}"),
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

/// Offset of the first byte in the first MiB that is not zero: a partition table, file system or label would be there.
fn first_content(device: &Path) -> Result<Option<usize>, StorageError> {
    use std::io::Read;
    let mut head = vec![0; 1 << 20];
    let mut file = std::fs::File::open(device).map_err(StorageError::io("reading", device))?;
    file.read_exact(&mut head).map_err(StorageError::io("reading", device))?;
    Ok(head.iter().position(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn content_anywhere_in_the_first_mib_is_seen() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![0; 1 << 20]).unwrap();
        assert_eq!(first_content(file.path()).unwrap(), None);
        use std::os::unix::fs::FileExt;
        file.as_file().write_at(b"LABELONE", 512).unwrap();
        assert_eq!(first_content(file.path()).unwrap(), Some(512));
    }

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
