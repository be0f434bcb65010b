//! Writes an image to a disk: partitions chunk by chunk, each verified, then read back; table and boot sector last.
//!
//! Invariants: between [`Writer::begin`] and [`Writer::finish`] the disk carries no partition table and no boot sector,
//! so a broken-off installation never starts; what is written was hashed before, and is sampled from the medium after;
//! memory is bounded by the window, whatever the image's size.

#[cfg(test)]
mod tests;

use crate::block::{Access, Aligned, Device};
use crate::error::StorageError;
use crate::gpt::{self, Partition, Table};
use crate::marker::{Marker, Stage};
use crate::source::ChunkSource;
use bytes::Bytes;
use dayzero_model::ids::Sha256;
use dayzero_model::install::{Chunk, ImageManifest, PartitionImage, PartitionRole};
use futures::StreamExt;
use std::sync::Arc;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
/// Chunks that are fetched and unpacked at once.
const WINDOW: usize = 4;
/// Of the chunks that were written, each so-many-th is read back, and the first and the last of each partition.
const SAMPLE: usize = 8;

/// How far an installation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, such as `writing dayzero-root`.
    pub what: String,
    /// Bytes done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Chunks written and verified before writing.
    pub chunks: u64,
    /// Chunks of zeros.
    pub zero: u64,
    /// Chunks read back from the medium and verified.
    pub read_back: u64,
    /// Bytes of content written.
    pub bytes: u64,
}

/// One disk that is being written. A clone writes the same disk.
#[derive(Clone)]
pub struct Writer {
    device: Arc<Device>,
    manifest: Arc<ImageManifest>,
    table: Table,
    marker: Marker,
}

/// The table that an image gets on a disk of this size: each partition on a MiB, the last grows to the end; all GUIDs new.
///
/// # Errors
/// [`StorageError::DiskUnfit`] if the disk is too small.
pub fn layout(manifest: &ImageManifest, device: &Device) -> Result<Table, StorageError> {
    let sector = u64::from(device.sector());
    let end = device.size().saturating_sub(gpt::overhead(sector) * sector) / MIB * MIB;
    let mut start = MIB;
    let mut partitions = Vec::new();
    for image in &manifest.partitions {
        let length = image.size.0.div_ceil(MIB) * MIB;
        partitions.push(Partition {
            kind: image.role.gpt_type().parse().unwrap_or_default(),
            guid: Uuid::new_v4(),
            start,
            length,
            name: image.role.gpt_name().to_owned(),
        });
        start += length;
    }
    if start > end {
        let disk = device.path().display().to_string();
        let why = format!("it has {} bytes, and the image needs {}", device.size(), start + MIB);
        return Err(StorageError::DiskUnfit { disk, why });
    }
    if let Some(last) = partitions.last_mut() {
        last.length = end - last.start;
    }
    Ok(Table { disk: Uuid::new_v4(), partitions })
}

impl Writer {
    /// Takes everything from the disk that could start it or that says what it held, and marks it as being written.
    /// The caller has judged the disk's content before: this is the point of no return.
    ///
    /// # Errors
    /// I/O, or a disk that is too small.
    pub fn begin(
        device: Arc<Device>,
        manifest: Arc<ImageManifest>,
        plan: Sha256,
    ) -> Result<Self, StorageError> {
        let table = layout(&manifest, &device)?;
        let marker = Marker { stage: Stage::Writing, disk: table.disk, plan };
        device.zero(0, MIB)?;
        device.zero(device.size() - MIB, MIB)?;
        marker.write(&device)?;
        Ok(Self { device, manifest, table, marker })
    }

    /// Table that the disk will have.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The disk.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of a logical block.
    pub fn sector(&self) -> u64 {
        u64::from(self.device.sector())
    }

    /// Opens the disk anew, for another kind of access.
    ///
    /// # Errors
    /// I/O.
    pub fn reopen(&mut self, access: Access) -> Result<(), StorageError> {
        self.device = Arc::new(Device::open(self.device.path(), access)?);
        Ok(())
    }

    /// Has the kernel forget the partitions that it knew of this disk.
    ///
    /// # Errors
    /// I/O: one of them is in use.
    pub fn forget_partitions(&self) -> Result<(), StorageError> {
        (1..=128).try_for_each(|number| self.device.hide_partition(number))
    }

    /// Where the partition of that role lies, in bytes, with its number from 1.
    pub fn place(&self, role: PartitionRole) -> Option<(usize, &Partition)> {
        let at = self.manifest.partitions.iter().position(|image| image.role == role)?;
        Some((at + 1, self.table.partitions.get(at)?))
    }

    /// Writes all partitions' content, verified, and reads samples back.
    ///
    /// # Errors
    /// [`StorageError::ChunkCorrupt`] with the chunk, [`StorageError::Fetch`], [`StorageError::ReadBack`], or I/O. The
    /// disk stays marked as being written, and cannot start.
    pub async fn content(
        &self,
        source: &dyn ChunkSource,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Written, StorageError> {
        let total = self.manifest.partitions.iter().map(|image| image.content.0).sum();
        let mut written = Written::default();
        let mut done = 0;
        for (image, partition) in self.manifest.partitions.iter().zip(&self.table.partitions) {
            // Nothing of what lay here before shows through: not in the BIOS boot partition, and not at the ends.
            let (device, start, end) =
                (self.device.clone(), partition.start, partition.start + partition.length);
            let edge = partition.length.min(MIB);
            blocking(move || device.zero(start, edge).and_then(|()| device.zero(end - edge, edge))).await?;
            let what = format!("writing {}", image.role.gpt_name());
            let step = |done| progress(Progress { what: what.clone(), done, total });
            self.partition(source, image, partition.start, &mut written, &mut done, &step).await?;
        }
        let writer = self.clone();
        blocking(move || {
            writer.core()?;
            writer.device.sync()?;
            writer.device.drop_cache();
            Ok(())
        })
        .await?;
        for (image, partition) in self.manifest.partitions.iter().zip(&self.table.partitions) {
            let what = format!("reading back {}", image.role.gpt_name());
            progress(Progress { what, done: total, total });
            let (device, image, start) = (self.device.clone(), image.clone(), partition.start);
            written.read_back += blocking(move || read_back(&device, &image, start)).await?;
        }
        Ok(written)
    }

    async fn partition(
        &self,
        source: &dyn ChunkSource,
        image: &PartitionImage,
        start: u64,
        written: &mut Written,
        done: &mut u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StorageError> {
        let size = u64::from(image.chunk_size);
        let length = |index: usize| (image.content.0 - index as u64 * size).min(size);
        let fetched =
            futures::stream::iter(image.chunks.iter().enumerate()).map(|(index, chunk)| async move {
                match chunk {
                    Chunk::Zero => Ok::<_, StorageError>((index, None)),
                    Chunk::Data { blake3, compressed } => {
                        let limit = *compressed as usize;
                        let content =
                            one_chunk(source, image, index, blake3, limit, length(index) as usize).await?;
                        Ok((index, Some(content)))
                    }
                }
            });
        let mut fetched = Box::pin(fetched.buffered(WINDOW));
        // A run of zero chunks is one command to the disk.
        let mut zeros: Option<(u64, u64)> = None;
        while let Some(next) = fetched.next().await {
            let (index, content) = next?;
            let at = start + index as u64 * size;
            *done += length(index);
            match content {
                None => {
                    let (from, run) = zeros.unwrap_or((at, 0));
                    zeros = Some((from, run + length(index)));
                    written.zero += 1;
                }
                Some(content) => {
                    self.flush_zeros(&mut zeros).await?;
                    let device = self.device.clone();
                    blocking(move || device.write(at, content.bytes())).await?;
                    written.chunks += 1;
                    written.bytes += length(index);
                }
            }
            progress(*done);
        }
        self.flush_zeros(&mut zeros).await
    }

    async fn flush_zeros(&self, zeros: &mut Option<(u64, u64)>) -> Result<(), StorageError> {
        let Some((from, length)) = zeros.take() else { return Ok(()) };
        let device = self.device.clone();
        blocking(move || device.zero(from, length)).await
    }

    /// GRUB's core image in the BIOS boot partition, told its own place.
    fn core(&self) -> Result<(), StorageError> {
        let Some((_, place)) = self.place(PartitionRole::BiosBoot) else { return Ok(()) };
        let core = boot_code(&self.manifest, place.start)?.1;
        if core.len() as u64 > place.length {
            return Err(StorageError::Manifest(format!(
                "core_img of {} bytes exceeds its partition",
                core.len()
            )));
        }
        self.device.write(place.start, Aligned::of(&core).bytes())
    }

    /// Writes the partition table, then the boot sector, and marks the disk as complete. The last thing of all.
    ///
    /// # Errors
    /// I/O, or a table that does not read back as written.
    pub fn finish(self) -> Result<Table, StorageError> {
        let sector = u64::from(self.device.sector());
        self.table.write(&self.device)?;
        Marker { stage: Stage::Complete, ..self.marker }.write(&self.device)?;
        self.device.drop_cache();
        let observed = gpt::read(&self.device, sector)?;
        if observed.as_ref() != Some(&self.table) {
            return Err(StorageError::ReadBack {
                what: "the partition table".to_owned(),
                expected: format!("{:?}", self.table),
                observed: format!("{observed:?}"),
            });
        }
        let boot = match self.place(PartitionRole::BiosBoot) {
            Some((_, place)) => boot_code(&self.manifest, place.start)?.0,
            None => Vec::new(),
        };
        gpt::write_mbr(&self.device, &boot)?;
        Ok(self.table)
    }
}

/// boot.img's first 440 bytes and core.img, told where core.img lies: byte `at` of the disk (GNU GRUB, `boot.S` and
/// `diskboot.S`: places 0x5c, 0x64, 0x66 and 500).
fn boot_code(manifest: &ImageManifest, at: u64) -> Result<(Vec<u8>, Vec<u8>), StorageError> {
    let bad = |what: &str| StorageError::Manifest(format!("bios.{what} is no GRUB image"));
    let decode = |text: &str, what: &str| base64(text).ok_or_else(|| bad(what));
    let mut boot = decode(&manifest.bios.boot_img, "boot_img")?;
    let mut core = decode(&manifest.bios.core_img, "core_img")?;
    core.resize(core.len().next_multiple_of(512), 0);
    let sectors = u16::try_from(core.len() / 512).map_err(|_| bad("core_img"))?;
    if boot.len() < 440 || sectors < 2 {
        return Err(bad("boot_img"));
    }
    boot.truncate(440);
    let lba = at / 512;
    boot[0x5c..0x64].copy_from_slice(&lba.to_le_bytes());
    boot[0x64] = 0xff;
    boot[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    core[500..508].copy_from_slice(&(lba + 1).to_le_bytes());
    core[508..510].copy_from_slice(&(sectors - 1).to_le_bytes());
    core[510..512].copy_from_slice(&0x0820_u16.to_le_bytes());
    Ok((boot, core))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Runs what waits for a disk aside of the tasks that wait for the network.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let lost = |e: tokio::task::JoinError| StorageError::Io {
        what: "waiting for the disk".to_owned(),
        source: std::io::Error::other(e),
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

/// Fetches, unpacks and verifies; a chunk that came damaged is fetched once more before it counts as corrupt.
async fn one_chunk(
    source: &dyn ChunkSource,
    image: &PartitionImage,
    index: usize,
    blake3: &str,
    limit: usize,
    length: usize,
) -> Result<Aligned, StorageError> {
    let partition = image.role.gpt_name();
    let mut observed = String::new();
    for _ in 0..2 {
        let packed: Bytes = source.fetch(blake3, limit).await?;
        let unpacked = blocking(move || Ok(unpack(&packed, length))).await?;
        match unpacked {
            Ok((content, hash)) if hash == blake3 => return Ok(content),
            Ok((_, hash)) => observed = format!("content of hash {hash}"),
            Err(reason) => observed = reason,
        }
        tracing::warn!(partition, index, observed, "chunk is not what its name says");
    }
    let (partition, expected) = (partition.to_owned(), blake3.to_owned());
    Err(StorageError::ChunkCorrupt { index, partition, expected, observed })
}

fn unpack(packed: &[u8], length: usize) -> Result<(Aligned, String), String> {
    let mut content = Aligned::new(length);
    let mut unpacker = zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?;
    let got = unpacker
        .decompress_to_buffer(packed, &mut content.bytes_mut()[..length])
        .map_err(|e| format!("it cannot be unpacked: {e}"))?;
    if got != length {
        return Err(format!("it unpacks to {got} bytes instead of {length}"));
    }
    let hash = blake3::hash(&content.bytes()[..length]).to_hex().to_string();
    Ok((content, hash))
}

fn read_back(device: &Device, image: &PartitionImage, start: u64) -> Result<u64, StorageError> {
    let size = u64::from(image.chunk_size);
    let data = |(index, chunk): (usize, &Chunk)| match chunk {
        Chunk::Data { blake3, .. } => Some((index, blake3.clone())),
        Chunk::Zero => None,
    };
    let chunks: Vec<(usize, String)> = image.chunks.iter().enumerate().filter_map(data).collect();
    let mut count = 0;
    for (n, (index, expected)) in chunks.iter().enumerate() {
        if n % SAMPLE != 0 && n + 1 != chunks.len() {
            continue;
        }
        let length = (image.content.0 - *index as u64 * size).min(size) as usize;
        let mut buffer = Aligned::new(length);
        device.read(start + *index as u64 * size, buffer.bytes_mut())?;
        let observed = blake3::hash(&buffer.bytes()[..length]).to_hex().to_string();
        if observed != *expected {
            let what = format!("chunk {index} of partition {}", image.role.gpt_name());
            return Err(StorageError::ReadBack { what, expected: expected.clone(), observed });
        }
        count += 1;
    }
    Ok(count)
}
