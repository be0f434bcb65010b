//! The envelope around each stored value: schema, revision, time and checksum, then the JSON body.
//!
//! Layout, little-endian: `[format u8 = 1][schema u16][revision u64][written_at ms u64][crc32 u32][body]`. The checksum
//! covers the key, the header before it and the body, so that a value under another value's key is found out too.

use crate::{Revision, StoreError, table};
use dayzero_model::Timestamp;

const FORMAT: u8 = 1;
const CRC_AT: usize = 19;
/// Bytes before the body.
pub(crate) const HEADER: usize = 23;

pub(crate) struct Envelope<'a> {
    pub(crate) schema: u16,
    pub(crate) revision: Revision,
    pub(crate) written_at: Timestamp,
    pub(crate) body: &'a [u8],
}

pub(crate) fn seal(key: &[u8], schema: u16, revision: Revision, at: Timestamp, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.push(FORMAT);
    out.extend_from_slice(&schema.to_le_bytes());
    out.extend_from_slice(&revision.0.to_le_bytes());
    out.extend_from_slice(&at.0.to_le_bytes());
    let crc = checksum(key, &out, body);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
    out
}

pub(crate) fn open<'a>(key: &[u8], stored: &'a [u8]) -> Result<Envelope<'a>, StoreError> {
    let corrupt = |detail: String| {
        let (table, text) = table::split_key(key);
        StoreError::Corrupt {
            place: format!("{table}/{text}"),
            detail,
            remedy: "Run `dayzero store verify`, and restore the newest export into a new data directory"
                .to_owned(),
        }
    };
    let Some((header, body)) = stored.split_at_checked(HEADER) else {
        return Err(corrupt(format!("{} bytes are too few for a value", stored.len())));
    };
    if header[0] != FORMAT {
        return Err(corrupt(format!("format {} is unknown", header[0])));
    }
    let crc = checksum(key, &header[..CRC_AT], body);
    let written = u32::from_le_bytes(bytes(header, CRC_AT));
    if crc != written {
        return Err(corrupt(format!("checksum {crc:08x}, written was {written:08x}")));
    }
    Ok(Envelope {
        schema: u16::from_le_bytes(bytes(header, 1)),
        revision: Revision(u64::from_le_bytes(bytes(header, 3))),
        written_at: Timestamp(u64::from_le_bytes(bytes(header, 11))),
        body,
    })
}

/// The revision in a stored value, without checking the rest.
pub(crate) fn revision_of(stored: &[u8]) -> Revision {
    if stored.len() < HEADER { Revision::ABSENT } else { Revision(u64::from_le_bytes(bytes(stored, 3))) }
}

/// A stored value's share in the store's digest: the sum over all records tells whether any was lost or added.
pub(crate) fn share(stored: &[u8]) -> u64 {
    let crc = if stored.len() < HEADER { 0 } else { u32::from_le_bytes(bytes(stored, CRC_AT)) };
    let mut x = (u64::from(crc) << 20 ^ revision_of(stored).0).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn checksum(key: &[u8], header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(key);
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// `N` bytes at `at`; zeros where the slice ends before (callers check lengths).
pub(crate) fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = from.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_and_a_swapped_key_are_found() {
        let sealed = seal(b"t\0a", 3, Revision(7), Timestamp(9), br#"{"x":1}"#);
        let opened = open(b"t\0a", &sealed).unwrap();
        assert_eq!((opened.schema, opened.revision, opened.written_at), (3, Revision(7), Timestamp(9)));
        assert!(open(b"t\0b", &sealed).is_err(), "another value's key");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"t\0a", &bad).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(open(b"t\0a", &sealed[..cut]).is_err(), "cut at {cut}");
        }
    }
}
