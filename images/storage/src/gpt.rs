//! GUID partition tables (UEFI 2.10 chapter 5): reading bounded, writing whole.
//!
//! The reader believes a table only if both checksums hold. Text of the table comes from whoever wrote the disk.

use crate::block::Device;
use crate::error::StorageError;
use uuid::Uuid;

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Entries that a table has at most (and ours exactly).
pub const ENTRIES: usize = 128;
/// Bytes of an entry in our tables.
const ENTRY: usize = 128;
const HEADER: usize = 92;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Type GUID.
    pub kind: Uuid,
    /// Its own GUID.
    pub guid: Uuid,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Name.
    pub name: String,
}

/// A table: the n-th partition has the number n + 1; gaps are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Disk GUID.
    pub disk: Uuid,
    /// Partitions in order of their number.
    pub partitions: Vec<Partition>,
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn guid(bytes: &[u8], at: usize) -> Uuid {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(Uuid::nil(), Uuid::from_bytes_le)
}

/// Reads the primary table, or the backup where the primary is damaged; none = no table that holds.
///
/// # Errors
/// I/O alone.
pub fn read(device: &Device, sector: u64) -> Result<Option<Table>, StorageError> {
    let last = device.size() / sector;
    for lba in [1, last.saturating_sub(1)] {
        if lba > 0
            && let Some(table) = read_at(device, sector, lba)?
        {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// There is something that was meant as a table's header, whether it holds or not.
///
/// # Errors
/// I/O alone.
pub fn is_claimed(device: &Device, sector: u64) -> Result<bool, StorageError> {
    let last = (device.size() / sector).saturating_sub(1);
    for lba in [1, last] {
        if lba > 0 && device.read_some(lba * sector, 8)? == SIGNATURE {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_at(device: &Device, sector: u64, lba: u64) -> Result<Option<Table>, StorageError> {
    let header = device.read_some(lba * sector, 512)?;
    if header.len() < HEADER || &header[..8] != SIGNATURE {
        return Ok(None);
    }
    let length = le_u32(&header, 12) as usize;
    if !(HEADER..=512).contains(&length) || le_u64(&header, 24) != lba {
        return Ok(None);
    }
    let mut checked = header[..length].to_vec();
    checked[16..20].fill(0);
    let (count, size) = (le_u32(&header, 80) as usize, le_u32(&header, 84) as usize);
    if crc32fast::hash(&checked) != le_u32(&header, 16)
        || !(1..=4 * ENTRIES).contains(&count)
        || !(ENTRY..=1024).contains(&size)
    {
        return Ok(None);
    }
    let Some(at) = le_u64(&header, 72).checked_mul(sector) else { return Ok(None) };
    let entries = device.read_some(at, count * size)?;
    if entries.len() < count * size || crc32fast::hash(&entries) != le_u32(&header, 88) {
        return Ok(None);
    }
    let used = entries.chunks(size).filter(|entry| entry[..16] != [0; 16]);
    let partitions = used.filter_map(|entry| partition(entry, sector)).collect();
    Ok(Some(Table { disk: guid(&header, 56), partitions }))
}

fn partition(entry: &[u8], sector: u64) -> Option<Partition> {
    let (first, last) = (le_u64(entry, 32), le_u64(entry, 40));
    let length = last.checked_sub(first)?.checked_add(1)?.checked_mul(sector)?;
    let units: Vec<u16> =
        entry[56..128].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let name: String = char::decode_utf16(units.into_iter().take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or('?'))
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    Some(Partition {
        kind: guid(entry, 0),
        guid: guid(entry, 16),
        start: first.checked_mul(sector)?,
        length,
        name,
    })
}

/// Sectors that the table takes at the start (after LBA 0) and at the end.
pub fn overhead(sector: u64) -> u64 {
    1 + ((ENTRIES * ENTRY) as u64).div_ceil(sector)
}

impl Table {
    fn entries(&self, sector: u64) -> Vec<u8> {
        let mut bytes = vec![0; ENTRIES * ENTRY];
        for (entry, partition) in bytes.chunks_mut(ENTRY).zip(&self.partitions) {
            entry[..16].copy_from_slice(&partition.kind.to_bytes_le());
            entry[16..32].copy_from_slice(&partition.guid.to_bytes_le());
            let (first, end) = (partition.start / sector, (partition.start + partition.length) / sector);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&(end - 1).to_le_bytes());
            for (to, unit) in entry[56..128].chunks_mut(2).zip(partition.name.encode_utf16()) {
                to.copy_from_slice(&unit.to_le_bytes());
            }
        }
        bytes
    }

    fn header(&self, sector: u64, sectors: u64, primary: bool) -> Vec<u8> {
        let overhead = overhead(sector);
        let (own, other) = if primary { (1, sectors - 1) } else { (sectors - 1, 1) };
        let entries_at = if primary { 2 } else { sectors - overhead };
        let mut header = vec![0; HEADER];
        header[..8].copy_from_slice(SIGNATURE);
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&(HEADER as u32).to_le_bytes());
        header[24..32].copy_from_slice(&u64::to_le_bytes(own));
        header[32..40].copy_from_slice(&u64::to_le_bytes(other));
        header[40..48].copy_from_slice(&(1 + overhead).to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - overhead - 1).to_le_bytes());
        header[56..72].copy_from_slice(&self.disk.to_bytes_le());
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
        header[84..88].copy_from_slice(&(ENTRY as u32).to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&self.entries(sector)).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Writes backup and primary table, each with a sync, and nothing to LBA 0: without its protective MBR the disk is
    /// no boot disk yet.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, device: &Device) -> Result<(), StorageError> {
        let sector = u64::from(device.sector());
        let sectors = device.size() / sector;
        let entries = self.entries(sector);
        let mut backup = entries.clone();
        backup.resize(((overhead(sector) - 1) * sector) as usize, 0);
        backup.extend(self.header(sector, sectors, false));
        device.patch((sectors - overhead(sector)) * sector, &backup)?;
        device.sync()?;
        let mut primary = self.header(sector, sectors, true);
        primary.resize(sector as usize, 0);
        primary.extend(entries);
        device.patch(sector, &primary)?;
        device.sync()
    }
}

/// Writes LBA 0: the protective MBR (UEFI 2.10 section 5.2.3) with up to 440 bytes of boot code. The last write of an
/// installation.
///
/// # Errors
/// I/O.
pub fn write_mbr(device: &Device, code: &[u8]) -> Result<(), StorageError> {
    let sectors = device.size() / u64::from(device.sector());
    let mut mbr = [0; 512];
    let length = code.len().min(440);
    mbr[..length].copy_from_slice(&code[..length]);
    let count = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    mbr[458..462].copy_from_slice(&count.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    device.patch(0, &mbr)?;
    device.sync()
}
