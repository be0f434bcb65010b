//! The virtual medium by which a Redfish BMC vouches for a host: a small ISO 9660 image with one file.
//!
//! The medium is the one channel that is authenticated before an operating system exists: what is on it came through
//! the BMC. It carries a single-use nonce for the host, and the fingerprint of the CA that the host may trust.
//! No Joliet, no Rock Ridge, one directory, one extent (ECMA-119 level 1).

use crate::ids::{BootId, Sha256};
use serde::{Deserialize, Serialize};

/// Volume id of the medium.
pub const VOLUME_ID: &str = "DAYZERO";
const SECTOR: usize = 2048;
const FILE_NAME: &[u8] = b"VOUCH.JSN;1";
const FILE_SECTOR: usize = 19;
const MAX_FILE: usize = SECTOR;

/// What the medium says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VouchFile {
    /// The boot that it is for.
    pub boot: BootId,
    /// Single-use nonce, 32 bytes in hex.
    pub nonce: String,
    /// SHA-256 of the site CA's certificate (DER).
    pub ca_sha256: Sha256,
}

impl std::fmt::Debug for VouchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VouchFile {{ boot: {}, nonce: .., ca_sha256: {} }}", self.boot, self.ca_sha256)
    }
}

/// Why a medium is not ours.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// Not ISO 9660, or another volume.
    #[error("the medium is no ISO 9660 volume '{VOLUME_ID}' (volume id '{0}')")]
    NotOurs(String),
    /// Structure broken.
    #[error("the medium's directory is damaged: {0}")]
    Damaged(&'static str),
    /// Content not understood.
    #[error("VOUCH.JSN cannot be read: {0}")]
    Content(#[from] serde_json::Error),
}

fn both32(value: usize) -> [u8; 8] {
    let value = value as u32;
    let mut out = [0; 8];
    out[..4].copy_from_slice(&value.to_le_bytes());
    out[4..].copy_from_slice(&value.to_be_bytes());
    out
}

fn both16(value: u16) -> [u8; 4] {
    let [a, b] = value.to_le_bytes();
    [a, b, b, a]
}

/// A directory record (ECMA-119 9.1).
fn record(name: &[u8], sector: usize, len: usize, directory: bool) -> Vec<u8> {
    let size = 33 + name.len() + usize::from(name.len().is_multiple_of(2));
    let mut out = vec![0; size];
    out[0] = size as u8;
    out[2..10].copy_from_slice(&both32(sector));
    out[10..18].copy_from_slice(&both32(len));
    out[18..25].copy_from_slice(&[126, 1, 1, 0, 0, 0, 0]);
    out[25] = if directory { 2 } else { 0 };
    out[28..32].copy_from_slice(&both16(1));
    out[32] = name.len() as u8;
    out[33..33 + name.len()].copy_from_slice(name);
    out
}

/// The medium's bytes (22 sectors of 2048).
///
/// # Errors
/// Never in practice; JSON of a [`VouchFile`] is far below one sector.
pub fn write_iso(file: &VouchFile) -> Result<Vec<u8>, MediaError> {
    let content = serde_json::to_vec(file)?;
    if content.len() > MAX_FILE {
        return Err(MediaError::Damaged("content is longer than one sector"));
    }
    let sectors = 22;
    let mut iso = vec![0; sectors * SECTOR];
    let root = record(&[0], 18, SECTOR, true);

    let pvd = &mut iso[16 * SECTOR..17 * SECTOR];
    pvd[..7].copy_from_slice(b"\x01CD001\x01");
    pvd[8..72].fill(b' ');
    pvd[40..40 + VOLUME_ID.len()].copy_from_slice(VOLUME_ID.as_bytes());
    pvd[80..88].copy_from_slice(&both32(sectors));
    pvd[120..124].copy_from_slice(&both16(1));
    pvd[124..128].copy_from_slice(&both16(1));
    pvd[128..132].copy_from_slice(&both16(SECTOR as u16));
    pvd[132..140].copy_from_slice(&both32(10));
    pvd[140..144].copy_from_slice(&20_u32.to_le_bytes());
    pvd[148..152].copy_from_slice(&21_u32.to_be_bytes());
    pvd[156..190].copy_from_slice(&root);
    pvd[190..813].fill(b' ');
    for date in [813, 830, 847, 864] {
        pvd[date..date + 16].fill(b'0');
    }
    pvd[881] = 1;

    iso[17 * SECTOR..17 * SECTOR + 7].copy_from_slice(b"\xffCD001\x01");

    let mut directory = root;
    directory.extend(record(&[1], 18, SECTOR, true));
    directory.extend(record(FILE_NAME, FILE_SECTOR, content.len(), false));
    iso[18 * SECTOR..18 * SECTOR + directory.len()].copy_from_slice(&directory);
    iso[FILE_SECTOR * SECTOR..FILE_SECTOR * SECTOR + content.len()].copy_from_slice(&content);

    let table = |number: [u8; 4], parent: [u8; 2]| {
        let mut entry = vec![1, 0];
        entry.extend(number);
        entry.extend(parent);
        entry.extend([0, 0]);
        entry
    };
    iso[20 * SECTOR..20 * SECTOR + 10].copy_from_slice(&table(18_u32.to_le_bytes(), 1_u16.to_le_bytes()));
    iso[21 * SECTOR..21 * SECTOR + 10].copy_from_slice(&table(18_u32.to_be_bytes(), 1_u16.to_be_bytes()));
    Ok(iso)
}

/// Reads a medium that [`write_iso`] made. `iso`: at least its first 22 sectors.
///
/// # Errors
/// [`MediaError`] says why the medium is not ours.
pub fn read_iso(iso: &[u8]) -> Result<VouchFile, MediaError> {
    let pvd = iso.get(16 * SECTOR..17 * SECTOR).ok_or(MediaError::Damaged("shorter than its descriptors"))?;
    if &pvd[1..6] != b"CD001" || pvd[0] != 1 {
        return Err(MediaError::NotOurs("no CD001".to_owned()));
    }
    let volume = String::from_utf8_lossy(&pvd[40..72]).trim().to_owned();
    if volume != VOLUME_ID {
        return Err(MediaError::NotOurs(volume));
    }
    let le32 = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let at = le32(&pvd[158..162]).checked_mul(SECTOR).ok_or(MediaError::Damaged("root extent"))?;
    let end = at.checked_add(SECTOR).ok_or(MediaError::Damaged("root extent"))?;
    let mut rest = iso.get(at..end).ok_or(MediaError::Damaged("root directory outside the medium"))?;
    while let Some(&len) = rest.first() {
        let len = usize::from(len);
        if len < 34 || len > rest.len() {
            break;
        }
        let (entry, tail) = rest.split_at(len);
        let name_len = usize::from(entry[32]);
        if entry.get(33..33 + name_len) == Some(FILE_NAME) {
            let start = le32(&entry[2..6]).checked_mul(SECTOR).ok_or(MediaError::Damaged("file extent"))?;
            let size = le32(&entry[10..14]);
            if size > MAX_FILE {
                return Err(MediaError::Damaged("file longer than one sector"));
            }
            let content = start.checked_add(size).and_then(|stop| iso.get(start..stop));
            return Ok(serde_json::from_slice(
                content.ok_or(MediaError::Damaged("file outside the medium"))?,
            )?);
        }
        rest = tail;
    }
    Err(MediaError::Damaged("VOUCH.JSN is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> VouchFile {
        VouchFile { boot: BootId(7), nonce: "ab".repeat(32), ca_sha256: Sha256::of(b"ca") }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read_iso(&write_iso(&file()).unwrap()).unwrap(), file());
    }

    #[test]
    fn cut_or_changed_media_are_refused_without_panic() {
        let iso = write_iso(&file()).unwrap();
        for len in [0, 100, 16 * SECTOR, 17 * SECTOR, 18 * SECTOR + 40, FILE_SECTOR * SECTOR] {
            assert!(read_iso(&iso[..len]).is_err(), "{len}");
        }
        for at in (16 * SECTOR..17 * SECTOR).chain(18 * SECTOR..18 * SECTOR + 120) {
            let mut bad = iso.clone();
            bad[at] ^= 0xff;
            let _ = read_iso(&bad);
        }
    }

    #[test]
    fn debug_hides_the_nonce() {
        assert!(!format!("{:?}", file()).contains("abab"));
    }
}
