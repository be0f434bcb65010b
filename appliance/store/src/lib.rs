//! The store of the appliance: typed tables, transactions over them, and a watch, in one data directory.
//!
//! Purpose: keep small records (plan, hosts, conditions, credentials, leases) so that an acknowledged commit survives a
//! power cut, and so that what the disk lost or changed is refused instead of served.
//!
//! Invariants:
//! - [`Transaction::commit`] returns after the log that holds the commit was fdatasync'ed; many commits share one sync.
//! - A commit is visible to readers whole, after it is durable, and in the order of revisions.
//! - Each value is at most 16 KiB of JSON in an envelope with schema, revision, time and checksum; bigger things are
//!   blobs, files named by their hash.
//! - After a crash the log is replayed into the engine (sled), and every record is counted and checked.
//!
//! It does not encrypt (that is `dayzero-trust`'s vault), does not know what a table means, and is opened by one process.
//!
//! ```
//! # fn main() -> Result<(), dayzero_store::StoreError> {
//! use dayzero_store::{Options, Store, Table};
//! static NOTES: Table<String, String> = Table::new("notes");
//! # let dir = tempfile::tempdir().unwrap();
//! let store = Store::open(dir.path(), Options::default())?;
//! let mut tx = store.tx();
//! tx.expect_absent(&NOTES, &"rack-1".to_owned())?.put(&NOTES, &"rack-1".to_owned(), &"top fan is loud".to_owned())?;
//! tx.commit_blocking()?; // in async code: `tx.commit().await?`
//! assert_eq!(store.get(&NOTES, &"rack-1".to_owned())?.as_deref(), Some("top fan is loud"));
//! # Ok(()) }
//! ```

mod blob;
mod engine;
mod envelope;
mod error;
mod export;
mod files;
mod flush;
mod log;
mod memory;
mod recovery;
mod store;
mod table;
mod tx;
mod watch;
mod writer;

pub use blob::{BlobRef, MAX_BLOB};
pub use error::StoreError;
pub use export::Moved;
pub use store::{MAX_TRANSACTION, MAX_VALUE, OpenReport, Options, Store, Verified};
pub use table::{Entry, Key, MAX_KEY, Ordered, Pair, Table, Upgrade, Value};
pub use tx::Transaction;
pub use watch::{Change, ChangedKey, Event, Watch};

/// A clock: what time it is.
pub type Clock = fn() -> dayzero_model::Timestamp;

/// The number of a commit, from 1; a record carries that of the commit which wrote it last.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// What a key that does not exist is at.
    pub const ABSENT: Self = Self(0);
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}
