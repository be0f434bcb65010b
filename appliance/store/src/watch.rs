//! Watching: each commit is announced with the keys that it changed.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::Revision;
use crate::table::{Key, Table, Value, split_key};

/// A commit that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub revision: Revision,
    /// What it changed.
    pub keys: Vec<ChangedKey>,
}

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedKey {
    /// The table's name.
    pub table: String,
    /// The key as text.
    pub key: String,
    /// True if the key was removed.
    pub deleted: bool,
}

impl Change {
    /// The changed keys of one table, parsed; keys that do not parse are left out.
    pub fn of<'a, K: Key + 'a, V: Value + 'a>(
        &'a self,
        table: &'a Table<K, V>,
    ) -> impl Iterator<Item = K> + 'a {
        self.keys.iter().filter(|k| k.table == table.name()).filter_map(|k| k.key.parse().ok())
    }

    /// True if a key of this table changed.
    pub fn touches<K: Key, V: Value>(&self, table: &Table<K, V>) -> bool {
        self.keys.iter().any(|k| k.table == table.name())
    }

    pub(crate) fn key(raw: &[u8], deleted: bool) -> ChangedKey {
        let (table, key) = split_key(raw);
        ChangedKey { table: table.to_owned(), key: key.to_owned(), deleted }
    }
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A commit, in order, none left out since the last event.
    Changed(Arc<Change>),
    /// The watcher was too slow and missed commits: read again what matters, then go on.
    Resync,
    /// The store was closed; nothing follows.
    Closed,
}

/// A subscription, from [`crate::Store::watch`]: commits from the moment of the call on, in order.
#[derive(Debug)]
pub struct Watch {
    pub(crate) receiver: broadcast::Receiver<Arc<Change>>,
}

impl Watch {
    /// Waits for the next event. Safe to use in `select!`: an event is not lost when the future is dropped.
    pub async fn next(&mut self) -> Event {
        match self.receiver.recv().await {
            Ok(change) => Event::Changed(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Event::Resync,
            Err(broadcast::error::RecvError::Closed) => Event::Closed,
        }
    }

    /// The next event if one is waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.receiver.try_recv() {
            Ok(change) => Some(Event::Changed(change)),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Event::Resync),
            Err(broadcast::error::TryRecvError::Closed) => Some(Event::Closed),
            Err(broadcast::error::TryRecvError::Empty) => None,
        }
    }
}
