//! The proof's writer: numbered, checksummed blocks with O_DIRECT while paths are pulled, and their reading back.
//!
//! Blocks of 4 KiB and of 1 MiB alternate over the whole volume, again and again. Each 4 KiB sector of a block carries
//! its sequence number, its place and a checksum of its filling, so that a lost, torn or misplaced write is seen.
//! The volume belongs to the proof alone: what is on it is overwritten. It is held exclusively while the writer runs.

use crate::StorageError;
use dayzero_model::proof::WriterProgress;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SECTOR: usize = 4096;
const LARGE: usize = 1 << 20;
/// Pause between two writes: the proof measures stalls, not speed.
const PAUSE: Duration = Duration::from_millis(5);

/// Page-aligned memory, as O_DIRECT wants it.
struct Aligned {
    bytes: Vec<u8>,
    offset: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + SECTOR];
        let offset = bytes.as_ptr().align_offset(SECTOR);
        Self { bytes, offset }
    }

    fn get(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.offset..self.offset + len]
    }
}

/// One sector's content: magic, sequence, offset, checksum, filling made of both.
fn fill_sector(sector: &mut [u8], sequence: u64, offset: u64) {
    let seed = sequence.rotate_left(17) ^ offset;
    for (i, word) in sector.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(
            &(seed.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes(),
        );
    }
    sector[..8].copy_from_slice(b"DZPROOF1");
    sector[8..16].copy_from_slice(&sequence.to_le_bytes());
    sector[16..24].copy_from_slice(&offset.to_le_bytes());
    sector[24..28].fill(0);
    let sum = crc32fast::hash(sector);
    sector[24..28].copy_from_slice(&sum.to_le_bytes());
}

fn sector_is(sector: &mut [u8], sequence: u64, offset: u64) -> bool {
    let mut expected = [0; SECTOR];
    fill_sector(&mut expected, sequence, offset);
    sector == expected
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    blocks: AtomicU64,
    errors: AtomicU64,
    longest_ms: AtomicU64,
    read_back: AtomicU64,
    wrong: AtomicU64,
    /// When the write under way began, in ms since the start; 0 = none.
    under_way: AtomicU64,
    /// Last acknowledged sequence of each large slot and small slot: what must read back.
    live: Mutex<Vec<Option<u64>>>,
}

/// A running writer.
pub struct Writer {
    shared: Arc<Shared>,
    path: std::path::PathBuf,
    started: Instant,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Writer {
    /// Starts writing to a volume of at least 2 MiB.
    ///
    /// # Errors
    /// It is in use, cannot be opened with O_DIRECT, or is too small.
    pub fn start(path: &Path) -> Result<Self, StorageError> {
        let held = crate::fill::hold(path)?;
        let file = open(path)?;
        let size = size(&file, path)?;
        let slots = usize::try_from(size / (2 * LARGE as u64)).unwrap_or(0).min(512);
        if slots == 0 {
            let sentence = format!("{} is too small for the proof's writer", path.display());
            return Err(StorageError::wrong(
                "volume-too-small",
                sentence,
                "at least 2 MiB",
                format!("{size} bytes"),
            ));
        }
        let shared = Arc::new(Shared { live: Mutex::new(vec![None; 2 * slots]), ..Shared::default() });
        let (mine, started) = (shared.clone(), Instant::now());
        let thread = std::thread::Builder::new().name("proof".to_owned()).spawn(move || {
            let _held = held;
            write_loop(&file, &mine, started);
        });
        let thread = thread.map_err(StorageError::io("starting the proof's writer on", path))?;
        Ok(Self { shared, path: path.to_owned(), started, thread: Mutex::new(Some(thread)) })
    }

    /// How far it is. A write that hangs now counts into the longest time.
    pub fn progress(&self) -> WriterProgress {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let under_way = load(&self.shared.under_way);
        let hanging = if under_way == 0 { 0 } else { millis(self.started).saturating_sub(under_way) };
        WriterProgress {
            blocks: load(&self.shared.blocks),
            errors: load(&self.shared.errors),
            longest_ms: load(&self.shared.longest_ms).max(hanging),
            read_back: load(&self.shared.read_back),
            wrong: load(&self.shared.wrong),
        }
    }

    /// Reads every acknowledged block back from the device, past the page cache, over whichever path is alive. Writing
    /// rests meanwhile.
    ///
    /// # Errors
    /// The volume cannot be opened. A block that cannot be read counts as wrong.
    pub fn verify(&self) -> Result<WriterProgress, StorageError> {
        let file = open(&self.path)?;
        let live = self.shared.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut buffer = Aligned::new(LARGE);
        for (slot, sequence) in live.iter().enumerate() {
            let Some(sequence) = *sequence else { continue };
            let (offset, len) = place(slot);
            let block = buffer.get(len);
            let good = file.read_exact_at(block, offset).is_ok()
                && block
                    .chunks_exact_mut(SECTOR)
                    .enumerate()
                    .all(|(i, sector)| sector_is(sector, sequence, offset + (i * SECTOR) as u64));
            self.shared.read_back.fetch_add(1, Ordering::Relaxed);
            self.shared.wrong.fetch_add(u64::from(!good), Ordering::Relaxed);
        }
        drop(live);
        Ok(self.progress())
    }

    /// Stops, and says how far it came.
    pub fn stop(&self) -> WriterProgress {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.progress()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Slot 2n is the large block n, slot 2n+1 a small one in the MiB after it.
fn place(slot: usize) -> (u64, usize) {
    let base = (slot / 2) as u64 * 2 * LARGE as u64;
    if slot.is_multiple_of(2) { (base, LARGE) } else { (base + LARGE as u64, SECTOR) }
}

fn write_loop(file: &File, shared: &Shared, started: Instant) {
    let mut buffer = Aligned::new(LARGE);
    let mut last = Instant::now();
    let mut sequence = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        {
            let waits = Instant::now();
            let mut live = shared.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // While blocks are read back no write is tried: that is no stall.
            last += waits.elapsed();
            sequence += 1;
            let slot = usize::try_from(sequence).unwrap_or(0) % live.len();
            let (offset, len) = place(slot);
            let block = buffer.get(len);
            for (i, sector) in block.chunks_exact_mut(SECTOR).enumerate() {
                fill_sector(sector, sequence, offset + (i * SECTOR) as u64);
            }
            shared.under_way.store(millis(started), Ordering::Relaxed);
            match file.write_all_at(block, offset) {
                Ok(()) => {
                    live[slot] = Some(sequence);
                    shared.blocks.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    // Not acknowledged: old, new or torn are all allowed there.
                    live[slot] = None;
                    shared.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
            shared.under_way.store(0, Ordering::Relaxed);
        }
        let gap = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.longest_ms.fetch_max(gap, Ordering::Relaxed);
        last = Instant::now();
        std::thread::sleep(PAUSE);
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    let flags = nix::libc::O_DIRECT | nix::libc::O_DSYNC;
    let options = std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    options.map_err(StorageError::io("opening with O_DIRECT", path))
}

fn size(file: &File, path: &Path) -> Result<u64, StorageError> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0)).map_err(StorageError::io("looking at", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a real file system: tmpfs knows no O_DIRECT.
    fn volume() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        file
    }

    fn wait_for_blocks(writer: &Writer, blocks: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while writer.progress().blocks < blocks {
            assert!(Instant::now() < until, "{:?}", writer.progress());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_was_written_reads_back() {
        let file = volume();
        let writer = Writer::start(file.path()).unwrap();
        wait_for_blocks(&writer, 20);
        let progress = writer.verify().unwrap();
        assert_eq!((progress.wrong, progress.errors), (0, 0));
        assert_eq!(progress.read_back, 8);
        writer.stop();
    }

    #[test]
    fn the_time_of_reading_back_is_no_stall() {
        let file = volume();
        let writer = Writer::start(file.path()).unwrap();
        wait_for_blocks(&writer, 20);
        let before = writer.progress().blocks;
        let held = Instant::now();
        let live = writer.shared.live.lock().unwrap();
        while held.elapsed() < Duration::from_secs(3) {
            std::thread::yield_now();
        }
        drop(live);
        wait_for_blocks(&writer, before + 3);
        let longest = writer.stop().longest_ms;
        assert!(longest < 3000, "{longest} ms");
    }

    #[test]
    fn a_changed_lost_or_misplaced_block_is_seen() {
        for spoil in [
            |file: &File| file.write_all_at(&[0xff], 100).unwrap(),
            |file: &File| file.write_all_at(&[0; SECTOR], LARGE as u64).unwrap(),
            |file: &File| {
                let mut sector = [0; SECTOR];
                file.read_exact_at(&mut sector, 0).unwrap();
                file.write_all_at(&sector, 8192).unwrap();
            },
        ] {
            let file = volume();
            let writer = Writer::start(file.path()).unwrap();
            wait_for_blocks(&writer, 20);
            writer.stop();
            spoil(file.as_file());
            file.as_file().sync_all().unwrap();
            assert_eq!(writer.verify().unwrap().wrong, 1);
        }
    }

    #[test]
    fn a_volume_that_is_too_small_is_refused() {
        let file = volume();
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(Writer::start(file.path()).err().unwrap().code(), "volume-too-small");
    }
}
