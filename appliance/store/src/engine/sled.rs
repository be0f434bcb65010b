//! sled 0.34.7 as the engine.
//!
//! sled's own `flush` ends in `sync_file_range`, which neither flushes the drive's cache nor commits the file's size, so
//! [`Engine::sync`] follows it with an fsync of our own descriptor of its `db` file. sled may panic on a damaged file;
//! opening is guarded, so that the caller gets an error that it can explain. sled unlocks its file by closing it, so that a program
//! that is just being started holds the lock on: opening waits for it, since our own lock is taken by then.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::{Engine, RawWrite, Visit};
use crate::StoreError;
use crate::files::{sync_dir, wait_unlocked};

pub(crate) struct SledEngine {
    db: sled::Db,
    file: File,
    dir: PathBuf,
}

fn failed(action: &'static str) -> impl FnOnce(sled::Error) -> StoreError {
    move |e| StoreError::Engine { action, detail: e.to_string() }
}

impl SledEngine {
    /// Opens or creates the database in `dir`. `cache` is in bytes.
    pub(crate) fn open(dir: &Path, cache: u64) -> Result<Self, StoreError> {
        wait_unlocked(&dir.join("db"))?;
        let config = sled::Config::new().path(dir).cache_capacity(cache).flush_every_ms(Some(500));
        let db = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(opened) => opened.map_err(failed("open"))?,
            Err(_) => {
                let detail = format!("{} cannot be read", dir.display());
                return Err(StoreError::Engine { action: "open", detail });
            }
        };
        let path = dir.join("db");
        let file =
            File::options().read(true).write(true).open(&path).map_err(StoreError::io("open", &path))?;
        file.sync_all().map_err(StoreError::io("sync", &path))?;
        sync_dir(dir)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        Ok(Self { db, file, dir: dir.to_owned() })
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(failed("get"))?.map(|v| v.to_vec()))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for pair in self.db.range::<&[u8], _>(from..) {
            let (key, value) = pair.map_err(failed("scan"))?;
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: &[RawWrite<'_>]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(*key, &value[..]),
                None => batch.remove(*key),
            }
        }
        self.db.apply_batch(batch).map_err(failed("write"))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed("flush"))?;
        let path = self.dir.join("db");
        self.file.sync_all().map_err(StoreError::io("sync", &path))
    }
}
