//! Opening, reading, and the way to the writer thread.

use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dayzero_model::Timestamp;
use nix::fcntl::Flock;
use tokio::sync::broadcast;

use crate::engine::SledEngine;
use crate::memory::View;
use crate::table::{Entry, Key, Table, Value};
use crate::tx::{Request, Transaction};
use crate::watch::{Change, Watch};
use crate::writer::{Answer, Job, Writer};
use crate::{Clock, Revision, StoreError, envelope, export, files, recovery};

/// The largest value, in bytes of JSON.
pub const MAX_VALUE: usize = 16 << 10;
/// The largest transaction, in bytes of keys and values.
pub const MAX_TRANSACTION: usize = 1900 << 10;
/// How many commits a slow watcher may lag before it is told to read again.
const WATCH_BACKLOG: usize = 1024;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The engine's page cache in bytes.
    pub cache: u64,
    /// What time it is; a test gives its own.
    pub clock: Clock,
    /// How many exports [`Store::export_file`] keeps.
    pub keep_exports: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache: 8 << 20, clock: system_clock, keep_exports: 24 }
    }
}

fn system_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenReport {
    /// The store was closed in order the last time (or is new).
    pub clean: bool,
    /// Writes that were applied again from the log.
    pub replayed: usize,
    /// How long opening took.
    pub took: Duration,
}

/// What [`Store::verify`] counted. Being returned at all means that every record is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Records.
    pub records: u64,
    /// Their bytes, keys and envelopes included.
    pub bytes: u64,
    /// Blobs, each read and hashed.
    pub blobs: u64,
}

/// A handle to an open store; cheap to clone. The store closes in order when the last handle is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    view: Arc<View>,
    changes: Mutex<Option<broadcast::Sender<Arc<Change>>>>,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    revision: Arc<AtomicU64>,
    dir: PathBuf,
    options: Options,
    report: OpenReport,
    _lock: Flock<File>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.dir).field("revision", &self.revision()).finish()
    }
}

impl Store {
    /// Opens the store in `dir`, creating it (for its owner only) if it is not there. Blocks: some milliseconds after an
    /// orderly close; after a crash also the time to replay the log and read every record.
    ///
    /// Errors: [`StoreError::Locked`] if another process has it open; [`StoreError::Corrupt`], naming the newest export,
    /// if the disk does not hold what was committed.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let begun = Instant::now();
        files::create_dir(dir)?;
        let lock = files::lock(dir)?;
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<_, StoreError> {
            let engine = SledEngine::open(&dir.join("sled"), options.cache)?;
            let recovered = recovery::recover(&engine, dir)?;
            Ok((engine, recovered))
        }));
        let (engine, recovered) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(StoreError::Corrupt { place, detail, .. })) => return Err(refuse(dir, place, detail)),
            Ok(Err(StoreError::Engine { action, detail })) => {
                return Err(refuse(
                    dir,
                    "the engine's files".to_owned(),
                    format!("{action} failed: {detail}"),
                ));
            }
            Ok(Err(e)) => return Err(e),
            Err(_) => {
                return Err(refuse(dir, "the engine's files".to_owned(), "reading them failed".to_owned()));
            }
        };
        let report =
            OpenReport { clean: recovered.clean, replayed: recovered.replayed, took: begun.elapsed() };
        tracing::info!(dir = %dir.display(), revision = recovered.revision.0, ?report, "store opened");
        let revision = Arc::new(AtomicU64::new(recovered.revision.0));
        let view = Arc::new(View::new(Box::new(engine)));
        let (changes, _) = broadcast::channel(WATCH_BACKLOG);
        let (jobs, queue) = channel();
        let writer =
            Writer::new(Arc::clone(&view), changes.clone(), options.clock, recovered, Arc::clone(&revision));
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(StoreError::io("start a thread for", dir))?;
        let inner = Inner {
            view,
            changes: Mutex::new(Some(changes)),
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            revision,
            dir: dir.to_owned(),
            options,
            report,
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The value of a key.
    pub fn get<K: Key, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, StoreError> {
        Ok(self.entry(table, key)?.map(|entry| entry.value))
    }

    /// The value of a key with its revision.
    pub fn entry<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<Option<Entry<K, V>>, StoreError> {
        let raw = table.raw_key(key)?;
        let stored = self.inner.view.get(&raw)?;
        stored.map(|stored| table.decode_entry(&raw, &stored)).transpose()
    }

    /// All entries whose key's text starts with `prefix` (`""` for the whole table), in order of their keys. One
    /// consistent state. For large tables take [`Store::page`].
    pub fn scan<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        prefix: &str,
    ) -> Result<Vec<Entry<K, V>>, StoreError> {
        self.page(table, prefix, None, usize::MAX)
    }

    /// At most `limit` entries with keys after `after`, in order.
    pub fn page<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        prefix: &str,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<Entry<K, V>>, StoreError> {
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok(entries);
        }
        let after = after.map(|key| table.raw_key(key)).transpose()?;
        self.inner.view.scan(&table.raw_prefix(prefix), after.as_deref(), &mut |key, stored| {
            entries.push(table.decode_entry(key, stored)?);
            Ok(if entries.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(entries)
    }

    /// How many keys start with `prefix`. Reads no values' bodies.
    pub fn count<K: Key, V: Value>(&self, table: &Table<K, V>, prefix: &str) -> Result<usize, StoreError> {
        let mut count = 0;
        self.inner.view.scan(&table.raw_prefix(prefix), None, &mut |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    /// Begins a transaction.
    pub fn tx(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Reads a value, lets `change` decide, and writes if nobody else did meanwhile; else reads again (a few times).
    /// `change` returns the new value, or `None` to remove the key.
    pub async fn update<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        key: &K,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Revision, StoreError> {
        let mut tries = 0;
        loop {
            let (before, revision) = match self.entry(table, key)? {
                Some(entry) => (Some(entry.value), entry.revision),
                None => (None, Revision::ABSENT),
            };
            let mut tx = self.tx();
            tx.expect_revision(table, key, revision)?;
            match change(before) {
                Some(value) => tx.put(table, key, &value)?,
                None => tx.delete(table, key)?,
            };
            match tx.commit().await {
                Err(e) if e.is_conflict() && tries < 16 => tries += 1,
                other => return other,
            }
        }
    }

    /// Subscribes to the commits from now on. Subscribe first, then read, and no change is missed.
    pub fn watch(&self) -> Watch {
        let changes = self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = match changes.as_ref() {
            Some(changes) => self.inner.view.between_groups(|| changes.subscribe()),
            None => broadcast::channel(1).1,
        };
        Watch { receiver }
    }

    /// The last commit that is durable and visible.
    pub fn revision(&self) -> Revision {
        Revision(self.inner.revision.load(Ordering::Acquire))
    }

    /// What opening found.
    pub fn open_report(&self) -> OpenReport {
        self.inner.report
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Reads every record and every blob and checks them. Blocks; run it on a blocking thread.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut found = Verified { records: 0, bytes: 0, blobs: 0 };
        let read = self.inner.view.scan(&[], None, &mut |key, stored| {
            envelope::open(key, stored)?;
            found.records += 1;
            found.bytes += (key.len() + stored.len()) as u64;
            Ok(ControlFlow::Continue(()))
        });
        match read {
            Err(StoreError::Corrupt { place, detail, .. }) => return Err(refuse(self.dir(), place, detail)),
            other => other?,
        }
        for blob in self.blobs()? {
            self.get_blob(&blob)?;
            found.blobs += 1;
        }
        Ok(found)
    }

    /// Finishes what is queued, moves everything into the engine and marks the store as closed in order. Later commits,
    /// on any handle, get [`StoreError::Closed`]; reads still work.
    pub async fn close(&self) -> Result<(), StoreError> {
        let store = self.clone();
        let closed = tokio::task::spawn_blocking(move || store.close_blocking()).await;
        closed.unwrap_or(Err(StoreError::Closed))
    }

    /// As [`Store::close`], blocking the thread.
    pub fn close_blocking(&self) -> Result<(), StoreError> {
        let jobs = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(jobs) = jobs else { return Ok(()) };
        let (answer, receive) = std::sync::mpsc::sync_channel(1);
        let close = Job::Close { answer: Box::new(move |result| drop(answer.send(result))) };
        let sent = jobs.send(close).map_err(|_| StoreError::Closed);
        drop(jobs);
        let result = sent.and_then(|()| receive.recv().unwrap_or(Err(StoreError::Closed)));
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
        drop(self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner).take());
        result.map(|_| ())
    }

    pub(crate) fn submit(&self, request: Request, answer: Answer) -> Result<(), StoreError> {
        let jobs = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(Job::Commit { request, answer }).map_err(|_| StoreError::Closed)
    }

    pub(crate) fn view(&self) -> &View {
        &self.inner.view
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }
}

fn refuse(dir: &Path, place: String, detail: String) -> StoreError {
    let exports = dir.join("exports");
    let newest = export::newest(&exports).map_or_else(
        || format!("There is no export in {}: restore a backup of it", exports.display()),
        |path| format!("Import the newest export, {}, into a new data directory", path.display()),
    );
    let remedy = format!("Keep {} as it is for analysis. {newest}", dir.display());
    StoreError::Corrupt { place, detail, remedy }
}
