//! Signatures of file systems, volume managers and RAID members, by offset and magic, with the label where there is one.
//!
//! Sources: the formats' own on-disk documentation (ext4 wiki, xfs_db(8), btrfs on-disk format, ECMA-119, MS-FAT,
//! linux/raid/md_p.h, LVM2 format-text, ZFS on-disk specification, VMFS as vmfs-tools describes it).

use crate::block::Device;
use crate::error::StorageError;

/// All signatures on a part of a device, as sentences.
pub(super) fn all(device: &Device, start: u64, length: u64) -> Result<Vec<String>, StorageError> {
    let part = Part { device, start, length };
    let mut found = Vec::new();
    for probe in [ext, fixed, fat, swap, lvm, mdraid, zfs, iso, vmfs] {
        found.extend(probe(&part)?);
    }
    Ok(found)
}

struct Part<'a> {
    device: &'a Device,
    start: u64,
    length: u64,
}

type Found = Result<Vec<String>, StorageError>;

impl Part<'_> {
    /// Bytes at an offset; zeros where the part has ended.
    fn at(&self, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let inside = self.length.saturating_sub(offset);
        let wanted = usize::try_from(inside).unwrap_or(usize::MAX).min(length);
        let mut bytes = self.device.read_some(self.start + offset, wanted)?;
        bytes.resize(length, 0);
        Ok(bytes)
    }

    fn has(&self, offset: u64, magic: &[u8]) -> Result<bool, StorageError> {
        Ok(self.at(offset, magic.len())? == magic)
    }
}

fn le32(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b))
}

fn label(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text: String = text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.is_empty() { String::new() } else { format!(" '{text}'") }
}

fn ext(part: &Part) -> Found {
    let block = part.at(1024, 1024)?;
    if block[0x38..0x3a] != [0x53, 0xef] {
        return Ok(Vec::new());
    }
    let (compatible, incompatible) = (le32(&block[0x5c..]), le32(&block[0x60..]));
    // Journal; extents, 64 bit or flexible groups.
    let kind = match (compatible & 0x4 != 0, incompatible & 0x2c0 != 0) {
        (_, true) => "ext4",
        (true, false) => "ext3",
        (false, false) => "ext2",
    };
    Ok(vec![format!("{kind} file system{}", label(&block[0x78..0x88]))])
}

/// Those that are one magic at one place.
fn fixed(part: &Part) -> Found {
    const MAGICS: [(u64, &[u8], &str); 13] = [
        (0, b"XFSB", "XFS file system"),
        (0x1_0040, b"_BHRfS_M", "btrfs file system"),
        (0, b"LUKS\xba\xbe", "LUKS encrypted volume"),
        (0x4000, b"SKUL\xba\xbe", "LUKS encrypted volume (second header)"),
        (3, b"NTFS    ", "NTFS file system"),
        (3, b"EXFAT   ", "exFAT file system"),
        (0, b"hsqs", "squashfs file system"),
        (0, b"bluestore block device", "Ceph BlueStore device"),
        (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache device"),
        (2048, b"OCFSV2", "OCFS2 file system"),
        (4096, b"OCFSV2", "OCFS2 file system"),
        (0x1_0000, b"\x01\x16\x19\x70", "GFS2 file system"),
        (0x400, b"\x10\x20\xf5\xf2", "F2FS file system"),
    ];
    let mut found = Vec::new();
    for (offset, magic, name) in MAGICS {
        if part.has(offset, magic)? {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn fat(part: &Part) -> Found {
    let first = part.at(0, 512)?;
    if first[510..] != [0x55, 0xaa] {
        return Ok(Vec::new());
    }
    let (kind, name) = match (&first[54..59], &first[82..87]) {
        (_, b"FAT32") => ("FAT32", &first[71..82]),
        (b"FAT16", _) => ("FAT16", &first[43..54]),
        (b"FAT12", _) => ("FAT12", &first[43..54]),
        _ => return Ok(Vec::new()),
    };
    Ok(vec![format!("{kind} file system{}", label(name))])
}

fn swap(part: &Part) -> Found {
    for page in [4096_u64, 8192, 16_384, 65_536] {
        let magic = part.at(page - 10, 10)?;
        if magic == b"SWAPSPACE2" || magic == b"SWAP-SPACE" {
            return Ok(vec!["swap space".to_owned()]);
        }
        if magic == b"S1SUSPEND\0" {
            return Ok(vec!["swap space with a suspended system".to_owned()]);
        }
    }
    Ok(Vec::new())
}

fn lvm(part: &Part) -> Found {
    for sector in 0..4 {
        let head = part.at(sector * 512, 64)?;
        if &head[..8] == b"LABELONE" && &head[24..32] == b"LVM2 001" {
            let uuid = String::from_utf8_lossy(&head[32..64]).into_owned();
            let uuid: String = uuid.chars().filter(char::is_ascii_alphanumeric).collect();
            return Ok(vec![format!("LVM2 physical volume {uuid}")]);
        }
    }
    Ok(Vec::new())
}

fn mdraid(part: &Part) -> Found {
    const MAGIC: u32 = 0xa92b_4efc;
    let sectors = part.length / 512;
    let mut places = vec![(0, "1.1"), (4096, "1.2")];
    if sectors > 16 {
        places.push((((sectors - 16) & !7) * 512, "1.0"));
    }
    if part.length > 131_072 {
        places.push(((part.length & !0xffff) - 65_536, "0.90"));
    }
    for (offset, version) in places {
        let head = part.at(offset, 64)?;
        let magic = le32(&head);
        if magic == MAGIC || magic.swap_bytes() == MAGIC {
            let name = if version == "0.90" { String::new() } else { label(&head[32..64]) };
            return Ok(vec![format!("Linux RAID member{name}, metadata {version}")]);
        }
    }
    Ok(Vec::new())
}

fn zfs(part: &Part) -> Found {
    const LABEL: u64 = 256 << 10;
    const UBERBLOCK: u64 = 0x00ba_b10c;
    let whole = part.length & !(LABEL - 1);
    let mut labels = vec![0, LABEL];
    if whole >= 4 * LABEL {
        labels.extend([whole - 2 * LABEL, whole - LABEL]);
    }
    for at in labels {
        let blocks = part.at(at + (128 << 10), 128 << 10)?;
        let member = blocks.chunks(1024).any(|block| {
            let magic = block.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
            magic == UBERBLOCK || magic.swap_bytes() == UBERBLOCK
        });
        if member {
            return Ok(vec!["ZFS pool member".to_owned()]);
        }
    }
    Ok(Vec::new())
}

fn iso(part: &Part) -> Found {
    let head = part.at(0x8000, 80)?;
    if &head[1..6] == b"CD001" {
        return Ok(vec![format!("ISO 9660 file system{}", label(&head[40..72]))]);
    }
    Ok(Vec::new())
}

fn vmfs(part: &Part) -> Found {
    let member = le32(&part.at(0x10_0000, 4)?) == 0xc001_d00d;
    let volume = le32(&part.at(0x20_0000, 4)?) == 0x2fab_f15e;
    Ok(match (member, volume) {
        (_, true) => vec!["VMFS file system".to_owned()],
        (true, false) => vec!["VMFS volume member".to_owned()],
        (false, false) => Vec::new(),
    })
}
