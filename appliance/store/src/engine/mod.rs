//! The ordered key-value engine under the store, behind a trait so that a second one fits.
//!
//! An engine need not be durable by itself between [`Engine::sync`] calls: the commit log in front of it is, and is
//! replayed into it after a crash. It must keep what was synced, and apply a batch in order.

mod sled;

pub(crate) use self::sled::SledEngine;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::StoreError;

/// A raw write: key, and value or removal.
pub(crate) type RawWrite<'a> = (&'a [u8], Option<&'a Arc<[u8]>>);

/// Gets each pair of a scan, and says whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

/// What the store needs of an engine.
pub(crate) trait Engine: Send + Sync + 'static {
    /// One value.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// All pairs from `from` on, in byte order, until `visit` breaks.
    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
    /// Applies writes in order. Not durable before [`Engine::sync`].
    fn apply(&self, writes: &[RawWrite<'_>]) -> Result<(), StoreError>;
    /// Brings all that was applied to stable storage.
    fn sync(&self) -> Result<(), StoreError>;
}
