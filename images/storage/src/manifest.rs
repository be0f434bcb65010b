//! The image manifest: fetched whole, its digest checked, then its bounds, before anything is written.

use crate::block::ALIGN;
use crate::error::StorageError;
use dayzero_model::ids::Sha256;
use dayzero_model::install::{Chunk, ImageManifest, PartitionRole};

/// Longest manifest, bytes.
pub const MAX: usize = 16 << 20;
/// Partitions at most.
const PARTITIONS: usize = 16;
/// Chunks of a partition at most.
const CHUNKS: usize = 1 << 20;
/// Longest chunk before compression, bytes.
const CHUNK: u32 = 16 << 20;
/// Files at most that the installer writes on top, and the longest of them, bytes.
const FILES: (usize, usize) = (256, 256 << 10);

/// Reads a manifest whose digest the order carries.
///
/// # Errors
/// [`StorageError::Digest`], or [`StorageError::Manifest`] with what cannot be followed.
pub fn read(bytes: &[u8], expected: &Sha256, url: &str) -> Result<ImageManifest, StorageError> {
    let observed = Sha256::of(bytes);
    if observed != *expected {
        let (expected, observed) = (expected.to_string(), observed.to_string());
        return Err(StorageError::Digest { what: url.to_owned(), expected, observed });
    }
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|e| StorageError::Manifest(format!("{url}: {e}")))?;
    check(&manifest).map_err(StorageError::Manifest)?;
    Ok(manifest)
}

/// Checks what the installer relies on.
///
/// # Errors
/// A sentence.
pub fn check(manifest: &ImageManifest) -> Result<(), String> {
    if manifest.format != 1 {
        return Err(format!("format {} is not 1, which this agent knows", manifest.format));
    }
    let roles: Vec<PartitionRole> = manifest.partitions.iter().map(|p| p.role).collect();
    if roles != [PartitionRole::BiosBoot, PartitionRole::Esp, PartitionRole::Root] || roles.len() > PARTITIONS
    {
        return Err(format!("its partitions are {roles:?}, expected BIOS boot, ESP and root"));
    }
    for partition in &manifest.partitions {
        let name = partition.role.gpt_name();
        let chunk = u64::from(partition.chunk_size);
        if chunk == 0 || partition.chunk_size > CHUNK || chunk % ALIGN as u64 != 0 {
            return Err(format!(
                "{name}: chunks of {chunk} bytes; they must be a multiple of {ALIGN}, at most {CHUNK}"
            ));
        }
        if partition.content.0 > partition.size.0 {
            return Err(format!(
                "{name}: content of {} in a partition of {}",
                partition.content, partition.size
            ));
        }
        if partition.content.0 % ALIGN as u64 != 0 {
            return Err(format!(
                "{name}: content of {} bytes is no multiple of {ALIGN}",
                partition.content.0
            ));
        }
        let count = partition.chunks.len();
        if count > CHUNKS || count as u64 != partition.content.0.div_ceil(chunk) {
            return Err(format!("{name}: {count} chunks of {chunk} bytes do not make {}", partition.content));
        }
        for (index, each) in partition.chunks.iter().enumerate() {
            if let Chunk::Data { blake3, compressed } = each {
                let named =
                    blake3.len() == 64 && blake3.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                // zstd never grows a block by more than a few bytes.
                if !named || u64::from(*compressed) > chunk + chunk / 128 + 1024 {
                    return Err(format!(
                        "{name}: chunk {index} has no hash for a name, or is too long packed"
                    ));
                }
            }
        }
    }
    if manifest.host_files.len() > FILES.0 {
        return Err(format!("{} host files, at most {} are written", manifest.host_files.len(), FILES.0));
    }
    for file in &manifest.host_files {
        let plain = file.path.starts_with('/') && !file.path.split('/').any(|part| part == "..");
        if !plain
            || file.path.len() > 512
            || file.content.len() > FILES.1
            || file.partition == PartitionRole::BiosBoot
        {
            return Err(format!("host file '{}' cannot be written", file.path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::image;

    #[test]
    fn a_good_manifest_is_read_and_each_fault_is_named() {
        let (good, _) = image();
        assert_eq!(check(&good), Ok(()));
        let bytes = serde_json::to_vec(&good).unwrap();
        assert_eq!(read(&bytes, &Sha256::of(&bytes), "u").unwrap(), good);
        assert_eq!(read(&bytes, &Sha256::of(b"other"), "u").unwrap_err().code(), "digest");

        type Fault = fn(&mut ImageManifest);
        let faults: [(&str, Fault); 8] = [
            ("format 2", |m| m.format = 2),
            ("expected BIOS boot, ESP and root", |m| m.partitions.swap(0, 1)),
            ("multiple of 4096", |m| m.partitions[2].chunk_size = 1000),
            ("do not make", |m| {
                m.partitions[2].chunks.pop();
            }),
            ("in a partition of", |m| m.partitions[2].size.0 = 4096),
            ("no hash for a name", |m| {
                let evil = Chunk::Data { blake3: "../../etc/passwd".to_owned(), compressed: 1 };
                m.partitions[1].chunks[0] = evil;
            }),
            ("too long packed", |m| {
                let evil = Chunk::Data { blake3: "0".repeat(64), compressed: u32::MAX };
                m.partitions[1].chunks[0] = evil;
            }),
            ("host file '/../x'", |m| m.host_files[0].path = "/../x".to_owned()),
        ];
        for (expected, fault) in faults {
            let mut bad = good.clone();
            fault(&mut bad);
            let text = check(&bad).unwrap_err();
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
