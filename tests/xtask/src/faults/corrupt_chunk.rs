//! One byte of one chunk of the served host image is not what it was; a person puts the sound chunk back.
//! False if the damaged content is taken, or a disk that is written by half could start.

use super::bench::{Bench, HOSTS};
use super::stop::{Stop, Words};
use super::{Fault, Told};
use anyhow::{Context, Result, ensure};
use dayzero_model::condition::Condition;
use dayzero_model::install::{Chunk, ImageManifest, PartitionRole};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

const HOST: &str = "host1";
/// Which of the root partition's chunks with content: some of the disk is written by then.
const WHICH: usize = 12;

pub const FAULT: Fault = Fault {
    name: "corrupt-chunk",
    host: HOST,
    condition: Condition::Imaged,
    code: "chunk-corrupt",
    told: Told::Stop,
    plant: damage,
    words: |bench| {
        let name = bench.damaged.as_ref().and_then(|(chunk, _)| chunk.file_name());
        let name = name.unwrap_or_default().to_string_lossy();
        Words::new(
            &[&name],
            &["content of hash"],
            &["host image", "cargo xtask images", "dayzero host retry host1"],
        )
    },
    also: cannot_start,
    mend: restore,
};

/// Flips a byte in a file of its own, and holds the other host still meanwhile: it reads the same image.
fn damage(bench: &mut Bench) -> Result<()> {
    for other in HOSTS.into_iter().filter(|name| *name != HOST) {
        if bench.is_on(other)? {
            bench.client.lab(&["pause", other])?;
            bench.held.push(other);
        }
    }
    let manifest: ImageManifest = serde_json::from_slice(&fs::read(bench.image.join("manifest.json"))?)?;
    let name = victim(&manifest).context("the image's root partition has too few chunks")?;
    let chunk = bench.image.join("chunks").join(&name[..2]).join(name);
    let sound = chunk.with_extension("sound");
    fs::rename(&chunk, &sound)?;
    let mut bytes = fs::read(&sound)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&chunk, bytes)?;
    bench.damaged = Some((chunk, sound));
    Ok(())
}

fn victim(manifest: &ImageManifest) -> Option<&str> {
    let root = manifest.partitions.iter().find(|partition| partition.role == PartitionRole::Root)?;
    let mut data = root.chunks.iter().filter_map(|chunk| match chunk {
        Chunk::Data { blake3, .. } => Some(blake3.as_str()),
        Chunk::Zero => None,
    });
    data.nth(WHICH)
}

fn restore(bench: &mut Bench) -> Result<()> {
    if let Some((chunk, sound)) = bench.damaged.take() {
        fs::rename(sound, chunk)?;
    }
    for host in std::mem::take(&mut bench.held) {
        bench.client.lab(&["resume", host])?;
    }
    Ok(())
}

fn cannot_start(bench: &Bench, _: &Stop) -> Result<String> {
    let facts = bench.client.host(HOST)?.facts;
    ensure!(facts.install.is_none() && facts.capacity.is_none(), "it counts as installed");
    let disk = bench.disk(HOST);
    let written = fs::metadata(&disk).map(|about| std::os::unix::fs::MetadataExt::blocks(&about) * 512)?;
    ensure!(written > 1 << 20, "nothing was written yet ({written} bytes): the chunk was the first of all");
    let traces = startable(&disk)?;
    ensure!(traces.is_empty(), "a disk written by half has {}", traces.join(" and "));
    Ok(format!("{} MiB written, no boot sector, no partition table", written >> 20))
}

/// What firmware could start from: boot signature, partition table at either end.
fn startable(disk: &Path) -> Result<Vec<&'static str>> {
    let file = File::open(disk)?;
    let last = file.metadata()?.len() - 512;
    let holds = |at: u64, sign: &[u8]| -> Result<bool> {
        let mut bytes = vec![0; sign.len()];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes == sign)
    };
    let mut found = Vec::new();
    for (at, sign, name) in [
        (510, &b"\x55\xaa"[..], "a boot sector"),
        (512, b"EFI PART", "a partition table"),
        (last, b"EFI PART", "the copy of a partition table"),
    ] {
        if holds(at, sign)? {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_a_disk_could_start_from_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let file = File::options().create(true).write(true).truncate(true).open(&disk).unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(startable(&disk).unwrap().is_empty());
        file.write_all_at(b"\x55\xaa", 510).unwrap();
        file.write_all_at(b"EFI PART", 512).unwrap();
        file.write_all_at(b"EFI PART", (1 << 20) - 512).unwrap();
        assert_eq!(startable(&disk).unwrap().len(), 3);
    }
}
