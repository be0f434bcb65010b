//! A disk with the host image, for trying the image alone: it goes the installer's way with the manifest and the chunks
//! only, so that what is missing there is missed here.
//!
//! It is no installer: it writes a file, knows no plan and no consent, and gives the identity that it is told.

use crate::chunks;
use crate::disk::{self, Part};
use crate::error::{self, Error, Result};
use crate::grub::Bios;
use crate::host::HostImage;
use crate::tool::Tool;
use base64::Engine as _;
use dayzero_model::install::{Chunk, PartitionImage, PartitionRole, set_ext4_uuid};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Writes a bootable disk of the host image to `out`. `number` makes the disk's identity.
///
/// # Errors
/// When a chunk is damaged or a tool fails.
pub fn write_trial_disk(image: &HostImage, number: u8, out: &Path) -> Result<()> {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = tempfile::tempdir_in(parent).map_err(Error::io("cannot make a directory in", parent))?;
    let guid = |part: usize| format!("da7ae000-0000-4000-8000-{number:010x}{part:02x}");
    let root_uuid = guid(0x99);
    let values = [
        ("@HOSTNAME@", format!("trial{number}")),
        ("@FQDN@", format!("trial{number}.example")),
        ("@MACHINE_ID@", format!("da7ae00000004000{number:016x}")),
        ("@INITIATOR@", format!("iqn.2026-11.example:trial{number}")),
        ("@ROOT_PARTUUID@", guid(2)),
        ("@ROOT_UUID@", root_uuid.clone()),
    ];
    let mut contents: Vec<Option<PathBuf>> = Vec::new();
    for (at, partition) in image.manifest.partitions.iter().enumerate() {
        if partition.chunks.is_empty() {
            contents.push(None);
            continue;
        }
        let path = scratch.path().join(format!("part{at}"));
        put_together(&image.directory.join("chunks"), partition, &path)?;
        if partition.role == PartitionRole::Root {
            personal_uuid(&path, &root_uuid)?;
        }
        for file in image.manifest.host_files.iter().filter(|file| file.partition == partition.role) {
            let content =
                values.iter().fold(file.content.clone(), |text, (name, value)| text.replace(name, value));
            put_file(&path, partition.role, &file.path, &content, scratch.path())?;
        }
        contents.push(Some(path));
    }
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
    let bad = |e: base64::DecodeError| Error::malformed(&image.manifest_path, e.to_string());
    let bios = Bios {
        boot_img: decode(&image.manifest.bios.boot_img).map_err(bad)?,
        core_img: decode(&image.manifest.bios.core_img).map_err(bad)?,
    };
    let parts =
        image.manifest.partitions.iter().zip(&contents).enumerate().map(|(at, (partition, content))| Part {
            gpt_type: partition.role.gpt_type(),
            name: partition.role.gpt_name(),
            guid: guid(at),
            bytes: partition.size.0,
            content: content.as_deref(),
        });
    disk::write(out, &guid(0xff), &parts.collect::<Vec<_>>(), &bios)
}

fn put_together(store: &Path, partition: &PartitionImage, path: &Path) -> Result<()> {
    let file = File::create(path).map_err(Error::io("cannot make", path))?;
    file.set_len(partition.content.0).map_err(Error::io("cannot make", path))?;
    for (number, chunk) in partition.chunks.iter().enumerate() {
        if let Chunk::Data { blake3, .. } = chunk {
            let content = chunks::read_chunk(store, blake3)?;
            let at = number as u64 * u64::from(partition.chunk_size);
            file.write_all_at(&content, at).map_err(Error::io("cannot write", path))?;
        }
    }
    Ok(())
}

fn personal_uuid(path: &Path, uuid: &str) -> Result<()> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(uuid.replace('-', ""), &mut bytes)
        .map_err(|e| Error::Input(format!("'{uuid}': {e}")))?;
    let file =
        OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("cannot open", path))?;
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024).map_err(Error::io("cannot read", path))?;
    set_ext4_uuid(&mut superblock, bytes).map_err(|reason| Error::malformed(path, reason))?;
    file.write_all_at(&superblock, 1024).map_err(Error::io("cannot write", path))
}

fn put_file(image: &Path, role: PartitionRole, at: &str, content: &str, scratch: &Path) -> Result<()> {
    let from = scratch.join("file");
    error::write(&from, content)?;
    if role == PartitionRole::Esp {
        Tool::new("mcopy")
            .args(["-o", "-i"])
            .arg(image)
            .arg(&from)
            .arg(format!("::{at}"))
            .run("writing a file to the ESP")?;
    } else {
        let script =
            format!("rm {at}\nwrite {} {at}\nset_inode_field {at} mode 0100644\n", error::text(&from)?);
        Tool::new("debugfs")
            .args(["-w", "-f", "-"])
            .arg(image)
            .input(script)
            .run("writing a file to the root")?;
    }
    Ok(())
}
