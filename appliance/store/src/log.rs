//! The commit log: what makes a commit durable.
//!
//! Two preallocated files (slots) are written in turn; each life of a slot has an epoch. A frame holds one group of
//! commits and is written and fdatasync'ed at once. When a slot is full, its content goes into the engine while the other
//! slot takes the writes. After a crash both are replayed, older epoch first.
//!
//! Slot layout: two header sectors at 0 and 4096, used in turn, so that a torn header leaves the one before; 512 bytes
//! after each a *target*: the engine's totals once this epoch is applied, written before the first of it is applied.
//! Frames follow from 8192. Frame: `magic, epoch u64, first revision u64, commits u32, length u32, crc32` and the writes.
//!
//! Invariant: a frame is written only after the one before was synced. So a torn frame can only be the last one, and a
//! good frame of the same epoch behind a bad one means damage, not a torn tail.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::envelope::bytes;
use crate::files::sync_dir;
use crate::memory::OwnedWrite;
use crate::{Revision, StoreError};

/// Size of a slot.
pub(crate) const SLOT: u64 = 4 << 20;
/// Where frames begin.
const FRAMES: u64 = 8192;
/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 32;
/// Bytes that a write takes beside key and body.
pub(crate) const WRITE_OVERHEAD: usize = 7 + crate::envelope::HEADER;
/// The most bytes that a group may hold.
pub(crate) const GROUP_ROOM: usize = SLOT as usize - FRAMES as usize - FRAME_HEADER;

const HEADER_MAGIC: [u8; 4] = [0xff, b'D', b'Z', b'H'];
const TARGET_MAGIC: [u8; 4] = [0xff, b'D', b'Z', b'T'];
const FRAME_MAGIC: [u8; 4] = [0xff, b'D', b'Z', b'F'];

/// Count and digest of all records in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) digest: u64,
}

/// The header of a slot's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Counts lives over both slots, from 1.
    pub(crate) epoch: u64,
    /// All epochs up to this one are in the engine, synced.
    pub(crate) flushed: u64,
    /// The engine's totals with exactly these epochs.
    pub(crate) totals: Totals,
    /// The last revision before this epoch.
    pub(crate) revision: Revision,
    /// The store was closed in order: the engine holds everything.
    pub(crate) clean: bool,
}

/// One slot.
pub(crate) struct Slot {
    file: File,
    path: PathBuf,
    header: Option<Header>,
    copy: u64,
    end: u64,
}

/// What a slot holds.
#[derive(Default)]
pub(crate) struct Content {
    pub(crate) writes: Vec<OwnedWrite>,
    pub(crate) revision: Option<Revision>,
}

impl Slot {
    /// Opens a slot's file, creating it zero-filled (so that later syncs change no metadata).
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        let length = file.metadata().map_err(StoreError::io("inspect", path))?.len();
        if length < SLOT {
            let zeros = vec![0; 1 << 16];
            let mut at = length;
            while at < SLOT {
                let part = usize::try_from(SLOT - at).unwrap_or(zeros.len()).min(zeros.len());
                file.write_all_at(&zeros[..part], at).map_err(StoreError::io("fill", path))?;
                at += part as u64;
            }
            file.sync_all().map_err(StoreError::io("sync", path))?;
            path.parent().map_or(Ok(()), sync_dir)?;
        }
        let mut slot = Self { file, path: path.to_owned(), header: None, copy: 0, end: FRAMES };
        for copy in 0..2 {
            let sector = slot.read_at(copy * 4096, 64)?;
            if let Some(header) = decode_header(&sector)
                && slot.header.is_none_or(|known| known.epoch < header.epoch)
            {
                (slot.header, slot.copy) = (Some(header), copy);
            }
        }
        Ok(slot)
    }

    /// The header of this slot's current life, if it ever had one.
    pub(crate) fn header(&self) -> Option<Header> {
        self.header
    }

    /// Begins a new life: durable when this returns. What the slot held before is forgotten.
    pub(crate) fn activate(&mut self, header: Header) -> Result<(), StoreError> {
        let copy = 1 - self.copy;
        // The old target of this copy goes first, or it would be taken for the new life's.
        self.write_at(copy * 4096 + 512, &[0; 64])?;
        self.write_at(copy * 4096, &encode_header(&header))?;
        self.sync()?;
        (self.header, self.copy, self.end) = (Some(header), copy, FRAMES);
        Ok(())
    }

    /// Notes what the engine's totals will be when this epoch is applied; durable when this returns.
    pub(crate) fn write_target(&self, totals: Totals) -> Result<(), StoreError> {
        let mut sector = TARGET_MAGIC.to_vec();
        sector.extend_from_slice(&self.epoch().to_le_bytes());
        sector.extend_from_slice(&totals.records.to_le_bytes());
        sector.extend_from_slice(&totals.digest.to_le_bytes());
        push_crc(&mut sector);
        self.write_at(self.copy * 4096 + 512, &sector)?;
        self.sync()
    }

    /// The noted totals, if any: then some of this epoch may be in the engine already.
    pub(crate) fn target(&self) -> Result<Option<Totals>, StoreError> {
        let sector = self.read_at(self.copy * 4096 + 512, 32)?;
        let good = sector[..4] == TARGET_MAGIC
            && u64::from_le_bytes(bytes(&sector, 4)) == self.epoch()
            && crc32fast::hash(&sector[..28]) == u32::from_le_bytes(bytes(&sector, 28));
        let totals = Totals {
            records: u64::from_le_bytes(bytes(&sector, 12)),
            digest: u64::from_le_bytes(bytes(&sector, 20)),
        };
        Ok(good.then_some(totals))
    }

    /// Whether a group of this many bytes still fits.
    pub(crate) fn fits(&self, payload: usize) -> bool {
        self.end + (FRAME_HEADER + payload) as u64 <= SLOT
    }

    /// Whether anything was appended in this life.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == FRAMES
    }

    /// Appends one group and waits for the disk. `frame` has [`FRAME_HEADER`] free bytes at its start.
    pub(crate) fn append(
        &mut self,
        first: Revision,
        commits: u32,
        frame: &mut [u8],
    ) -> Result<(), StoreError> {
        let length = u32::try_from(frame.len() - FRAME_HEADER).unwrap_or(u32::MAX);
        frame[..4].copy_from_slice(&FRAME_MAGIC);
        frame[4..12].copy_from_slice(&self.epoch().to_le_bytes());
        frame[12..20].copy_from_slice(&first.0.to_le_bytes());
        frame[20..24].copy_from_slice(&commits.to_le_bytes());
        frame[24..28].copy_from_slice(&length.to_le_bytes());
        let crc = frame_crc(frame);
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
        self.write_at(self.end, frame)?;
        self.sync()?;
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Reads this life's frames. Errors: a good frame behind a bad one, a gap in the revisions, a malformed write.
    pub(crate) fn replay(&mut self) -> Result<Content, StoreError> {
        let mut content = Content::default();
        let Some(header) = self.header else { return Ok(content) };
        let all = self.read_at(0, usize::try_from(SLOT).unwrap_or(usize::MAX))?;
        let mut at = usize::try_from(FRAMES).unwrap_or(usize::MAX);
        let mut last = header.revision;
        while let Some((first, commits, payload)) = frame_at(&all, at, header.epoch) {
            if first.0 != last.0 + 1 {
                return Err(self.corrupt(at, format!("revision {first} follows {last}")));
            }
            last = Revision(last.0 + u64::from(commits));
            decode_writes(payload, &mut content.writes)
                .ok_or_else(|| self.corrupt(at, "a write runs past its frame".to_owned()))?;
            at += FRAME_HEADER + payload.len();
        }
        let mut prefix = FRAME_MAGIC.to_vec();
        prefix.extend_from_slice(&header.epoch.to_le_bytes());
        let behind = (at + 1..all.len().saturating_sub(FRAME_HEADER))
            .filter(|p| all[*p] == FRAME_MAGIC[0] && all[*p..].starts_with(&prefix))
            .find(|p| frame_at(&all, *p, header.epoch).is_some());
        if let Some(behind) = behind {
            let detail = format!("no commit group can be read here, but one stands at byte {behind}");
            return Err(self.corrupt(at, detail));
        }
        content.revision = Some(last);
        self.end = at as u64;
        Ok(content)
    }

    fn epoch(&self) -> u64 {
        self.header.map_or(0, |h| h.epoch)
    }

    fn corrupt(&self, at: usize, detail: String) -> StoreError {
        StoreError::Corrupt {
            place: format!("{} at byte {at}", self.path.display()),
            detail,
            remedy: String::new(),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))
    }

    fn write_at(&self, at: u64, data: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(data, at).map_err(StoreError::io("write", &self.path))
    }

    fn read_at(&self, at: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, at).map_err(StoreError::io("read", &self.path))?;
        Ok(data)
    }
}

/// Appends a write to a frame's payload.
pub(crate) fn encode_write(frame: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    frame.push(u8::from(value.is_some()));
    frame.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
    frame.extend_from_slice(&u32::try_from(value.map_or(0, <[u8]>::len)).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(key);
    frame.extend_from_slice(value.unwrap_or_default());
}

fn decode_writes(mut payload: &[u8], out: &mut Vec<OwnedWrite>) -> Option<()> {
    while !payload.is_empty() {
        let (head, rest) = payload.split_at_checked(7)?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(bytes(head, 1))))?;
        let (value, rest) =
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(bytes(head, 3))).ok()?)?;
        out.push((key.to_vec(), (head[0] == 1).then(|| Arc::from(value))));
        payload = rest;
    }
    Some(())
}

fn frame_crc(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..28]);
    hasher.update(&frame[FRAME_HEADER..]);
    hasher.finalize()
}

fn frame_at(all: &[u8], at: usize, epoch: u64) -> Option<(Revision, u32, &[u8])> {
    let header = all.get(at..at + FRAME_HEADER)?;
    if header[..4] != FRAME_MAGIC || u64::from_le_bytes(bytes(header, 4)) != epoch {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(bytes(header, 24))).ok()?;
    let frame = all.get(at..at.checked_add(FRAME_HEADER)?.checked_add(length)?)?;
    let good = frame_crc(frame) == u32::from_le_bytes(bytes(header, 28));
    let first = Revision(u64::from_le_bytes(bytes(header, 12)));
    good.then(|| (first, u32::from_le_bytes(bytes(header, 20)), &frame[FRAME_HEADER..]))
}

fn push_crc(sector: &mut Vec<u8>) {
    let crc = crc32fast::hash(sector);
    sector.extend_from_slice(&crc.to_le_bytes());
}

fn encode_header(header: &Header) -> Vec<u8> {
    let mut sector = HEADER_MAGIC.to_vec();
    let fields =
        [header.epoch, header.flushed, header.totals.records, header.totals.digest, header.revision.0];
    for field in fields.into_iter().chain([u64::from(header.clean)]) {
        sector.extend_from_slice(&field.to_le_bytes());
    }
    push_crc(&mut sector);
    sector
}

fn decode_header(sector: &[u8]) -> Option<Header> {
    let good = sector[..4] == HEADER_MAGIC
        && crc32fast::hash(&sector[..52]) == u32::from_le_bytes(bytes(sector, 52));
    let field = |i: usize| u64::from_le_bytes(bytes(sector, 4 + 8 * i));
    good.then(|| Header {
        epoch: field(0),
        flushed: field(1),
        totals: Totals { records: field(2), digest: field(3) },
        revision: Revision(field(4)),
        clean: field(5) == 1,
    })
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
