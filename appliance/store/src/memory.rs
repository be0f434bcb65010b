//! The writes that are in the log but not yet in the engine, and the one view over both.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock};

use crate::StoreError;
use crate::engine::{Engine, Visit};

/// One write: key, and value or `None` for a removal.
pub(crate) type OwnedWrite = (Vec<u8>, Option<Arc<[u8]>>);
/// Key to value, or to `None` for a removal.
pub(crate) type Layer = BTreeMap<Vec<u8>, Option<Arc<[u8]>>>;

#[derive(Default)]
struct Layers {
    active: Layer,
    flushing: Option<Arc<Layer>>,
}

/// What readers see: the active layer over the one being flushed over the engine. A reader sees whole groups of
/// commits only, since a group enters the active layer under the lock.
pub(crate) struct View {
    layers: RwLock<Layers>,
    pub(crate) engine: Box<dyn Engine>,
}

impl View {
    pub(crate) fn new(engine: Box<dyn Engine>) -> Self {
        Self { layers: RwLock::default(), engine }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let below = || layers.flushing.as_ref().and_then(|layer| layer.get(key));
        match layers.active.get(key).or_else(below) {
            Some(known) => Ok(known.as_ref().map(|value| value.to_vec())),
            None => self.engine.get(key),
        }
    }

    /// All pairs whose key starts with `prefix` and lies after `after`, in order, until `visit` breaks. One consistent
    /// state: no commit becomes visible meanwhile, so `visit` must not wait for one.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(prefix.to_vec(), |key| {
            let mut next = key.to_vec();
            next.push(0);
            next
        });
        let mut overlay: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        for layer in layers.flushing.as_deref().into_iter().chain([&layers.active]) {
            let range = layer
                .range::<[u8], _>((Bound::Included(from.as_slice()), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix));
            overlay.extend(range.map(|(key, value)| (key.as_slice(), value.as_deref())));
        }
        let mut overlay = overlay.into_iter().peekable();
        let mut stopped = false;
        self.engine.scan(&from, &mut |key, value| {
            if !key.starts_with(prefix) {
                return Ok(ControlFlow::Break(()));
            }
            while let Some((newer, content)) = overlay.next_if(|(newer, _)| *newer < key) {
                if let Some(content) = content
                    && visit(newer, content)?.is_break()
                {
                    stopped = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let shown = match overlay.next_if(|(newer, _)| *newer == key) {
                Some((_, content)) => content,
                None => Some(value),
            };
            let Some(shown) = shown else { return Ok(ControlFlow::Continue(())) };
            let next = visit(key, shown)?;
            stopped = next.is_break();
            Ok(next)
        })?;
        if !stopped {
            for (key, content) in overlay {
                if let Some(content) = content
                    && visit(key, content)?.is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes a group's writes visible, together. `describe` sees them first, while nobody reads or subscribes.
    pub(crate) fn insert<T>(&self, writes: Vec<OwnedWrite>, describe: impl FnOnce(&[OwnedWrite]) -> T) -> T {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let described = describe(&writes);
        layers.active.extend(writes);
        described
    }

    /// Runs `act` between two groups of commits.
    pub(crate) fn between_groups<T>(&self, act: impl FnOnce() -> T) -> T {
        let _layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        act()
    }

    /// Takes the active layer for flushing; it stays visible until [`View::flushed`].
    pub(crate) fn begin_flush(&self) -> Arc<Layer> {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let layer = Arc::new(std::mem::take(&mut layers.active));
        layers.flushing = Some(Arc::clone(&layer));
        layer
    }

    /// The flushing layer is in the engine.
    pub(crate) fn flushed(&self) {
        self.layers.write().unwrap_or_else(PoisonError::into_inner).flushing = None;
    }
}
