//! A transaction: writes and expectations that take effect together or not at all.

use dayzero_model::Timestamp;

use crate::store::{MAX_TRANSACTION, MAX_VALUE};
use crate::table::{Key, Table, Value};
use crate::{Revision, Store, StoreError};

/// One write, with its raw key.
pub(crate) enum Write {
    Put { key: Vec<u8>, schema: u16, at: Option<Timestamp>, body: Vec<u8> },
    Delete { key: Vec<u8> },
}

/// What the writer thread gets.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) writes: Vec<Write>,
    pub(crate) expectations: Vec<(Vec<u8>, Revision)>,
    pub(crate) size: usize,
}

/// Writes and expectations on any tables. Nothing happens before [`commit`](Self::commit); dropping it discards it.
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    store: Store,
    request: Request,
}

impl Transaction {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, request: Request::default() }
    }

    /// Writes a value (replacing one that is there). Two writes of one key in one transaction: the last counts.
    ///
    /// Errors: the value is above 16 KiB in JSON (put it into a blob), the key is not storable, it does not serialise.
    pub fn put<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<&mut Self, StoreError> {
        let raw = table.raw_key(key)?;
        let body = serde_json::to_vec(value).map_err(|source| StoreError::Encode {
            table: table.name().to_owned(),
            key: key.to_string(),
            source,
        })?;
        if body.len() > MAX_VALUE {
            return Err(StoreError::TooLarge {
                what: format!("the value of {}/{key}", table.name()),
                size: body.len(),
                limit: MAX_VALUE,
                remedy: "keep it as a blob and store its reference",
            });
        }
        self.push(
            raw.len() + body.len(),
            Write::Put { key: raw, schema: table.current_schema(), at: None, body },
        )?;
        Ok(self)
    }

    /// Removes a key; no error if it is not there.
    pub fn delete<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<&mut Self, StoreError> {
        let raw = table.raw_key(key)?;
        self.push(raw.len(), Write::Delete { key: raw })?;
        Ok(self)
    }

    /// The commit fails with [`StoreError::Conflict`] unless the key's last write, before this transaction, was at `revision`.
    pub fn expect_revision<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        revision: Revision,
    ) -> Result<&mut Self, StoreError> {
        self.request.expectations.push((table.raw_key(key)?, revision));
        Ok(self)
    }

    /// The commit fails with [`StoreError::Conflict`] if the key exists.
    pub fn expect_absent<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<&mut Self, StoreError> {
        self.expect_revision(table, key, Revision::ABSENT)
    }

    /// True if there is nothing to write and nothing to check.
    pub fn is_empty(&self) -> bool {
        self.request.writes.is_empty() && self.request.expectations.is_empty()
    }

    /// Bytes of keys and values that it still takes, of [`MAX_TRANSACTION`].
    pub fn room(&self) -> usize {
        MAX_TRANSACTION.saturating_sub(self.request.size)
    }

    /// Commits. When this resolves with a revision, the writes are on stable storage and visible to readers.
    ///
    /// If the future is dropped after its first poll, the commit may or may not happen, but never in part.
    pub async fn commit(self) -> Result<Revision, StoreError> {
        let (answer, receive) = tokio::sync::oneshot::channel();
        self.store.submit(self.request, Box::new(move |result| drop(answer.send(result))))?;
        receive.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same for code outside a runtime. Blocks the thread for a flush of the disk.
    pub fn commit_blocking(self) -> Result<Revision, StoreError> {
        let (answer, receive) = std::sync::mpsc::sync_channel(1);
        self.store.submit(self.request, Box::new(move |result| drop(answer.send(result))))?;
        receive.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn push(&mut self, size: usize, write: Write) -> Result<(), StoreError> {
        self.request.size += size + crate::log::WRITE_OVERHEAD;
        if self.request.size > MAX_TRANSACTION {
            return Err(StoreError::TooLarge {
                what: "the transaction".to_owned(),
                size: self.request.size,
                limit: MAX_TRANSACTION,
                remedy: "split it",
            });
        }
        self.request.writes.push(write);
        Ok(())
    }
}
