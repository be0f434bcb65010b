//! What can go wrong in the store, and what a person does about it.

use std::path::{Path, PathBuf};

use crate::Revision;

/// An error of the store. A [`StoreError::Conflict`] is the caller's to resolve (read again, decide again); all others are the system's.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The embedded engine refused an operation.
    #[error("the store's engine failed at {action}: {detail}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// The engine's own words.
        detail: String,
    },
    /// What is on disk is not what was written. Nothing was changed.
    #[error("the store is corrupt at {place}: {detail}. {remedy}")]
    Corrupt {
        /// File, or table and key.
        place: String,
        /// What was expected and what was found.
        detail: String,
        /// What to do next; names the newest export if there is one.
        remedy: String,
    },
    /// Another process has this store open.
    #[error("{} is in use by {holder}: stop it, or give another data directory", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The holder, as it wrote itself into the lock file.
        holder: String,
    },
    /// A value, key or transaction above its limit.
    #[error("{what} of {size} bytes is above the limit of {limit}: {remedy}")]
    TooLarge {
        /// Which thing.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
        /// Where it belongs instead.
        remedy: &'static str,
    },
    /// A key or table name that cannot be stored.
    #[error("'{key}' is no key for table {table}: {rule}")]
    BadKey {
        /// The table.
        table: String,
        /// The key as text, shortened.
        key: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A value that does not serialise.
    #[error("cannot encode the value of {table}/{key}")]
    Encode {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// A stored value that this version cannot read.
    #[error("cannot read {table}/{key}: {detail}")]
    Decode {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// Which part, and why.
        detail: String,
    },
    /// A compare-and-set found another revision. The transaction changed nothing.
    #[error("{table}/{key} is at revision {found}, expected {expected}: it was changed meanwhile")]
    Conflict {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What the transaction expected.
        expected: Revision,
        /// What is stored.
        found: Revision,
    },
    /// An earlier write failed, so that the state on disk is unknown. Only a restart, which replays the log, helps.
    #[error("the store takes no more writes since '{cause}': restart the service")]
    Failed {
        /// The first error.
        cause: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// An import into a store that already holds something.
    #[error("import needs an empty store, this one holds {records} records: give a new data directory")]
    NotEmpty {
        /// How many it holds.
        records: u64,
    },
    /// A file that is no complete export.
    #[error("this is no complete export: line {line}: {detail}")]
    BadImport {
        /// The line, from 1.
        line: u64,
        /// What was expected there.
        detail: String,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// True if the caller lost a race and should read again and decide again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
