//! Opening: bring the engine to the last acknowledged commit, or refuse.
//!
//! After an orderly close the log's header says so and nothing is replayed. After a crash the epochs that may be missing in
//! the engine are applied again, and every record is read: count, digest and checksums must be what the log says. So a
//! record that the engine lost, kept too long or damaged stops the start instead of being served.

use std::path::Path;

use crate::engine::Engine;
use crate::log::{Content, Header, Slot, Totals};
use crate::memory::Layer;
use crate::{Revision, StoreError, flush};

/// Where the store stands after opening.
pub(crate) struct Recovered {
    pub(crate) active: Slot,
    pub(crate) spare: Slot,
    pub(crate) totals: Totals,
    pub(crate) revision: Revision,
    /// True if the last close was in order.
    pub(crate) clean: bool,
    /// Writes that were applied again.
    pub(crate) replayed: usize,
}

pub(crate) fn recover(engine: &dyn Engine, dir: &Path) -> Result<Recovered, StoreError> {
    let first = Slot::open(&dir.join("commit.0.log"))?;
    let second = Slot::open(&dir.join("commit.1.log"))?;
    let epoch = |slot: &Slot| slot.header().map_or(0, |h| h.epoch);
    let (mut older, mut newer) =
        if epoch(&first) > epoch(&second) { (second, first) } else { (first, second) };
    let Some(newest) = newer.header() else {
        return create(engine, older, newer);
    };
    if newest.clean {
        let begun = Header { epoch: newest.epoch + 1, flushed: newest.epoch, clean: false, ..newest };
        older.activate(begun)?;
        let (totals, revision) = (newest.totals, newest.revision);
        return Ok(Recovered { active: older, spare: newer, totals, revision, clean: true, replayed: 0 });
    }
    let mut live = Vec::new();
    for slot in [&mut older, &mut newer] {
        if slot.header().is_some_and(|h| h.epoch > newest.flushed) {
            let content = slot.replay()?;
            live.push((&*slot, content));
        }
    }
    check_order(&live, newest)?;
    let revision = live.last().and_then(|(_, content)| content.revision).unwrap_or(newest.revision);
    let replayed = live.iter().map(|(_, content)| content.writes.len()).sum();
    let totals = replay(engine, live, newest.totals)?;
    let begun = Header { epoch: newest.epoch + 1, flushed: newest.epoch, totals, revision, clean: false };
    older.activate(begun)?;
    Ok(Recovered { active: older, spare: newer, totals, revision, clean: false, replayed })
}

fn create(engine: &dyn Engine, mut active: Slot, spare: Slot) -> Result<Recovered, StoreError> {
    let found = flush::audit(engine)?;
    if found != Totals::default() {
        let detail = format!("the engine holds {} records, but there is no log beside it", found.records);
        return Err(StoreError::Corrupt {
            place: "the commit log".to_owned(),
            detail,
            remedy: String::new(),
        });
    }
    let (totals, revision) = (Totals::default(), Revision::ABSENT);
    active.activate(Header { epoch: 1, flushed: 0, totals, revision, clean: false })?;
    Ok(Recovered { active, spare, totals, revision, clean: true, replayed: 0 })
}

/// The live epochs must follow each other, and so must their revisions.
fn check_order(live: &[(&Slot, Content)], newest: Header) -> Result<(), StoreError> {
    let expected = usize::try_from(newest.epoch - newest.flushed).unwrap_or(usize::MAX);
    let gap = live.len() != expected
        || live.windows(2).any(|pair| pair[0].1.revision != pair[1].0.header().map(|h| h.revision));
    if gap {
        let detail = format!(
            "epochs {} to {} are needed, {} can be read in full",
            newest.flushed + 1,
            newest.epoch,
            live.len()
        );
        return Err(StoreError::Corrupt {
            place: "the commit log".to_owned(),
            detail,
            remedy: String::new(),
        });
    }
    Ok(())
}

fn replay(engine: &dyn Engine, live: Vec<(&Slot, Content)>, base: Totals) -> Result<Totals, StoreError> {
    let mut targets = Vec::new();
    for (slot, _) in &live {
        targets.push(slot.target()?);
    }
    let begun = targets.iter().rposition(Option::is_some);
    let mut totals = base;
    if begun.is_none() {
        compare(engine, totals)?;
    }
    for (i, (slot, content)) in live.into_iter().enumerate() {
        let layer: Layer = content.writes.into_iter().collect();
        if begun.is_some_and(|last| i <= last) {
            flush::apply(engine, &layer)?;
            if let Some(target) = targets[i] {
                totals = target;
            }
            if begun == Some(i) {
                compare(engine, totals)?;
            }
        } else if !layer.is_empty() {
            totals = flush::flush(engine, slot, &layer, totals)?;
        }
    }
    Ok(totals)
}

fn compare(engine: &dyn Engine, expected: Totals) -> Result<(), StoreError> {
    let found = flush::audit(engine)?;
    if found == expected {
        return Ok(());
    }
    let detail = format!(
        "{} records with digest {:016x} were committed, the engine holds {} with {:016x}",
        expected.records, expected.digest, found.records, found.digest
    );
    Err(StoreError::Corrupt { place: "the engine's records".to_owned(), detail, remedy: String::new() })
}
