//! Moving a layer into the engine, and checking that the engine holds what it should.

use std::ops::ControlFlow;

use crate::StoreError;
use crate::engine::Engine;
use crate::envelope;
use crate::log::{Slot, Totals};
use crate::memory::Layer;

/// After how many bytes the engine is synced while a layer goes in. sled reuses a segment once its replacement is
/// written; syncing twice a segment (512 KiB) keeps a power cut from finding the replacement missing.
const SYNC_EVERY: usize = 256 << 10;

/// What the totals will be once `layer` is in the engine.
pub(crate) fn totals_after(engine: &dyn Engine, layer: &Layer, before: Totals) -> Result<Totals, StoreError> {
    let mut totals = before;
    for (key, value) in layer {
        if let Some(old) = engine.get(key)? {
            totals.records = totals.records.wrapping_sub(1);
            totals.digest = totals.digest.wrapping_sub(envelope::share(&old));
        }
        if let Some(new) = value {
            totals.records = totals.records.wrapping_add(1);
            totals.digest = totals.digest.wrapping_add(envelope::share(new));
        }
    }
    Ok(totals)
}

/// Applies a layer and syncs. May be repeated after a crash.
pub(crate) fn apply(engine: &dyn Engine, layer: &Layer) -> Result<(), StoreError> {
    let mut chunk = Vec::new();
    let mut size = 0;
    for (key, value) in layer {
        chunk.push((key.as_slice(), value.as_ref()));
        size += key.len() + value.as_ref().map_or(0, |v| v.len());
        if size >= SYNC_EVERY {
            engine.apply(&chunk)?;
            engine.sync()?;
            chunk.clear();
            size = 0;
        }
    }
    if !chunk.is_empty() {
        engine.apply(&chunk)?;
    }
    engine.sync()
}

/// The whole of a flush: note the target, apply, sync.
pub(crate) fn flush(
    engine: &dyn Engine,
    slot: &Slot,
    layer: &Layer,
    before: Totals,
) -> Result<Totals, StoreError> {
    let totals = totals_after(engine, layer, before)?;
    slot.write_target(totals)?;
    apply(engine, layer)?;
    Ok(totals)
}

/// Reads every record of the engine, checks its checksum, and counts.
pub(crate) fn audit(engine: &dyn Engine) -> Result<Totals, StoreError> {
    let mut totals = Totals::default();
    engine.scan(&[], &mut |key, value| {
        envelope::open(key, value)?;
        totals.records = totals.records.wrapping_add(1);
        totals.digest = totals.digest.wrapping_add(envelope::share(value));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(totals)
}
