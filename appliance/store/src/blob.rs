//! Big values as files: `blobs/<first two hex digits>/<sha256>`, written whole or not at all, never changed.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use dayzero_model::Sha256;
use serde::{Deserialize, Serialize};

use crate::files::{create_dir, write_whole};
use crate::{Store, StoreError};

/// The largest blob. Larger things (images) are files of their own rooms.
pub const MAX_BLOB: usize = 64 << 20;

/// Names a blob by its content; put it into a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// The hash of the content.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

impl Store {
    /// Stores bytes; durable when this returns. The same bytes are stored once. Blocks.
    pub fn put_blob(&self, content: &[u8]) -> Result<BlobRef, StoreError> {
        if content.len() > MAX_BLOB {
            return Err(StoreError::TooLarge {
                what: "the blob".to_owned(),
                size: content.len(),
                limit: MAX_BLOB,
                remedy: "keep it as a file outside the store",
            });
        }
        let blob = BlobRef { sha256: Sha256::of(content), size: content.len() as u64 };
        let path = self.blob_path(&blob);
        if path.exists() {
            return Ok(blob);
        }
        if let Some(dir) = path.parent() {
            create_dir(&self.dir().join("blobs"))?;
            create_dir(dir)?;
        }
        write_whole(&path, |file| file.write_all(content).map_err(StoreError::io("write", &path)))?;
        Ok(blob)
    }

    /// Reads a blob and checks its hash. Blocks.
    pub fn get_blob(&self, blob: &BlobRef) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(blob);
        let content = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let found = Sha256::of(&content);
        if found != blob.sha256 {
            return Err(StoreError::Corrupt {
                place: path.display().to_string(),
                detail: format!("its hash is {found}"),
                remedy: "Restore this file from an export".to_owned(),
            });
        }
        Ok(content)
    }

    /// Removes a blob that no record refers to any more. No error if it is not there.
    pub fn delete_blob(&self, blob: &BlobRef) -> Result<(), StoreError> {
        let path = self.blob_path(blob);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// All blobs, by name.
    pub fn blobs(&self) -> Result<Vec<BlobRef>, StoreError> {
        let top = self.dir().join("blobs");
        let mut found = Vec::new();
        if !top.is_dir() {
            return Ok(found);
        }
        let list = |dir: &PathBuf| fs::read_dir(dir).map_err(StoreError::io("list", dir));
        for dir in list(&top)?.flatten() {
            for file in list(&dir.path())?.flatten() {
                let size = file.metadata().map_or(0, |m| m.len());
                if let Ok(sha256) = file.file_name().to_string_lossy().parse() {
                    found.push(BlobRef { sha256, size });
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn blob_path(&self, blob: &BlobRef) -> PathBuf {
        let name = blob.sha256.to_string();
        self.dir().join("blobs").join(&name[..2]).join(name)
    }
}
