//! Whole disks in plain files: a GPT with partitions' contents, started by BIOS and by UEFI.
//!
//! Invariants: files stay sparse; GUIDs are given by the caller, so that the same input gives the same disk. Installing a
//! host is not done here: the agent writes its disk from the manifest.

use crate::error::{Error, Result};
use crate::grub::Bios;
use crate::tool::Tool;
use dayzero_model::install::PartitionRole;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

/// One partition of a disk to be.
pub(crate) struct Part<'a> {
    pub(crate) gpt_type: &'a str,
    pub(crate) name: &'a str,
    /// GPT GUID of this partition.
    pub(crate) guid: String,
    /// Bytes, a multiple of 1 MiB.
    pub(crate) bytes: u64,
    /// A file with its content, if any.
    pub(crate) content: Option<&'a Path>,
}

/// Writes a new disk image: the first partition starts at 1 MiB; one of the BIOS boot type gets GRUB's core image.
pub(crate) fn write(path: &Path, disk_guid: &str, parts: &[Part], bios: &Bios) -> Result<()> {
    let total: u64 = parts.iter().map(|part| part.bytes).sum();
    let file = File::create(path).map_err(Error::io("cannot make", path))?;
    file.set_len(total + 2 * MIB).map_err(Error::io("cannot make", path))?;
    drop(file);
    let mut script = format!("label: gpt\nlabel-id: {disk_guid}\nunit: sectors\nfirst-lba: 2048\n");
    let mut start = MIB / SECTOR;
    let mut places = Vec::new();
    for part in parts {
        let sectors = part.bytes / SECTOR;
        script.push_str(&format!(
            "start={start}, size={sectors}, type={}, name=\"{}\", uuid={}\n",
            part.gpt_type, part.name, part.guid
        ));
        places.push(start);
        start += sectors;
    }
    Tool::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never"])
        .arg(path)
        .input(script)
        .run("writing a partition table")?;
    let disk =
        OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("cannot open", path))?;
    for (part, start) in parts.iter().zip(&places) {
        if part.gpt_type == PartitionRole::BiosBoot.gpt_type() {
            let (boot, core) = bios.placed_at(*start);
            if core.len() as u64 > part.bytes {
                return Err(Error::Input(format!(
                    "GRUB's core image ({} bytes) is larger than its partition",
                    core.len()
                )));
            }
            disk.write_all_at(&boot, 0).map_err(Error::io("cannot write", path))?;
            disk.write_all_at(&core, start * SECTOR).map_err(Error::io("cannot write", path))?;
        }
        if let Some(content) = part.content {
            copy_sparse(content, &disk, path, start * SECTOR, part.bytes)?;
        }
    }
    disk.sync_all().map_err(Error::io("cannot flush", path))
}

/// Lengthens a disk image and moves the second partition table to its new end.
pub(crate) fn grow(path: &Path, bytes: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path).map_err(Error::io("cannot open", path))?;
    let length = file.metadata().map_err(Error::io("cannot look at", path))?.len();
    file.set_len(length + bytes).map_err(Error::io("cannot lengthen", path))?;
    drop(file);
    Tool::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel", "--relocate", "gpt-bak-std"])
        .arg(path)
        .run("moving the second partition table")
        .map(drop)
}

/// Copies a file into a disk at an offset, leaving out what is zero.
pub(crate) fn copy_sparse(from: &Path, disk: &File, disk_path: &Path, offset: u64, room: u64) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("cannot open", from))?;
    let length = source.seek(SeekFrom::End(0)).map_err(Error::io("cannot read", from))?;
    if length > room {
        return Err(Error::malformed(from, format!("{length} bytes do not fit into a partition of {room}")));
    }
    source.rewind().map_err(Error::io("cannot read", from))?;
    let mut buffer = vec![0; MIB as usize];
    let mut at = offset;
    loop {
        let count = source.read(&mut buffer).map_err(Error::io("cannot read", from))?;
        if count == 0 {
            return Ok(());
        }
        if buffer[..count].iter().any(|byte| *byte != 0) {
            disk.write_all_at(&buffer[..count], at).map_err(Error::io("cannot write", disk_path))?;
        }
        at += count as u64;
    }
}
