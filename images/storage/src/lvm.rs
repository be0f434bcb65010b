//! Volumes of VMs: thick LVs in one volume group a LUN.
//!
//! Invariants: metadata is changed by one elected host alone (the appliance elects; these functions trust it); a LUN is
//! made a physical volume only while it is empty; only the multipath device is looked at, never one of its paths; nothing
//! is activated but by the host that uses it; a volume is overwritten only with the mark of the plan that the order names, and
//! while nothing here has it open. Argument lists are fixed.

use crate::StorageError;
use crate::finding::signatures_of;
use crate::tool::{self, ToolError};
use dayzero_model::storage::VolumeSpec;
use dayzero_model::{Name, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);
/// Tag of a volume group that Dayzero made.
const TAG: &str = "dayzero";
/// Before the hash of a plan, in the tag of what was made for it.
const PLAN_TAG: &str = "dayzero.plan.";
/// How long a volume may be open after it was activated: udev looks at it.
const SETTLES: Duration = Duration::from_secs(10);
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

fn plan_tag(plan: &Sha256) -> String {
    format!("{PLAN_TAG}{plan}")
}

/// Makes the storage's volume group, marked with the plan that it was made for, or checks that it is ours, whichever plan
/// that was.
///
/// # Errors
/// `foreign-lun`: the LUN holds something that is not ours; or LVM fails.
pub async fn make_group(storage: &Name, device: &Path, plan: &Sha256) -> Result<(), StorageError> {
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
    let (mark, path) = (plan_tag(plan), device.to_string_lossy());
    let tags = ["--yes", "--addtag", TAG, "--addtag", &mark, "--setautoactivation", "n"];
    lvm("vgcreate", device, &[&tags[..], &[&name, &path]].concat()).await?;
    Ok(())
}

/// Makes a volume, inactive, marked with the plan; one of that name and size is taken as made, and marked anew. Elected
/// host only.
///
/// # Errors
/// `volume-differs`: there is one of another size; or LVM fails (the group is full).
pub async fn create(volume: &VolumeSpec, device: &Path, plan: &Sha256) -> Result<(), StorageError> {
    let size = volume.size.0.div_ceil(EXTENT) * EXTENT;
    let name = group(&volume.storage);
    let known = lvm(
        "lvs",
        device,
        &["--noheadings", "--nosuffix", "--units", "b", "-o", "lv_name,lv_size,lv_tags", &name],
    )
    .await?;
    for line in known.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some(volume.name.as_str()) {
            let there = words.next().and_then(|size| size.parse::<u64>().ok());
            if there == Some(size) {
                return mark(volume, device, words.next().unwrap_or_default(), plan).await;
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
    let (bytes, mark) = (format!("{size}b"), plan_tag(plan));
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
        "--addtag",
        &mark,
        &name,
    ];
    lvm("lvcreate", device, &args).await?;
    Ok(())
}

/// Gives a volume the plan's mark in place of another plan's.
async fn mark(volume: &VolumeSpec, device: &Path, tags: &str, plan: &Sha256) -> Result<(), StorageError> {
    let wanted = plan_tag(plan);
    if tags.split(',').any(|tag| tag == wanted) {
        return Ok(());
    }
    let old: Vec<&str> = tags.split(',').filter(|tag| tag.starts_with(PLAN_TAG)).collect();
    let full = format!("{}/{}", group(&volume.storage), volume.name);
    let mut args = vec!["--addtag", &wanted];
    args.extend(old.iter().flat_map(|tag| ["--deltag", tag]));
    args.push(&full);
    lvm("lvchange", device, &args).await?;
    Ok(())
}

/// That an active volume may be overwritten: it is ours, marked with this plan, and nothing on this host has it open.
///
/// # Errors
/// `volume-foreign`: it is not Dayzero's. `volume-of-another-plan`: the order is an old one, or for another volume.
/// `volume-in-use`: a VM or a mount has it open. Or LVM fails.
pub async fn may_overwrite(volume: &VolumeSpec, device: &Path, plan: &Sha256) -> Result<(), StorageError> {
    let full = format!("{}/{}", group(&volume.storage), volume.name);
    let args = ["--noheadings", "-o", "lv_tags,lv_device_open", "--separator", "|", &full];
    let until = tokio::time::Instant::now() + SETTLES;
    loop {
        match judge(&full, &lvm("lvs", device, &args).await?, plan) {
            Err(error) if error.code() == IN_USE && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            judged => return judged,
        }
    }
}

/// Code of a volume that something has open.
pub(crate) const IN_USE: &str = "volume-in-use";

/// Judges a line of `lvs`: tags, and whether the device is open.
fn judge(name: &str, line: &str, plan: &Sha256) -> Result<(), StorageError> {
    let (tags, open) = line.trim().split_once('|').unwrap_or((line.trim(), ""));
    let wrong = |code, sentence: String, expected: String, observed: &str| {
        Err(StorageError::wrong(code, sentence, expected, observed))
    };
    if !tags.split(',').any(|tag| tag == TAG) {
        let sentence = format!("volume {name} was not made by Dayzero, and is not overwritten");
        return wrong("volume-foreign", sentence, format!("tag {TAG}"), tags);
    }
    let wanted = plan_tag(plan);
    if !tags.split(',').any(|tag| tag == wanted) {
        let sentence =
            format!("volume {name} is marked for another plan than the order's, and is not overwritten");
        return wrong("volume-of-another-plan", sentence, format!("tag {wanted}"), tags);
    }
    if !open.trim().is_empty() {
        let sentence = format!("volume {name} is open on this host, and is not overwritten");
        return wrong(IN_USE, sentence, "a volume that nothing has open".to_owned(), open.trim());
    }
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

    #[test]
    fn only_a_marked_volume_that_nothing_has_open_is_overwritten() {
        let (plan, other) = (Sha256::of(b"plan"), Sha256::of(b"other"));
        for (tags, open, code) in [
            (format!("dayzero,{PLAN_TAG}{plan}"), "", None),
            (format!("{PLAN_TAG}{other},{PLAN_TAG}{plan},dayzero"), "", None),
            (format!("dayzero,{PLAN_TAG}{plan}"), "open", Some("volume-in-use")),
            (format!("dayzero,{PLAN_TAG}{other}"), "", Some("volume-of-another-plan")),
            ("dayzero".to_owned(), "", Some("volume-of-another-plan")),
            (format!("{PLAN_TAG}{plan}"), "", Some("volume-foreign")),
            (String::new(), "", Some("volume-foreign")),
        ] {
            let judged = judge("dz-lun0/vol-hello", &format!("  {tags}|{open}\n"), &plan);
            assert_eq!(judged.err().map(|error| error.code()), code, "{tags}|{open}");
        }
    }
}
