//! The mark that an installation leaves on its disk, between partition table and first partition: that the disk is ours.
//!
//! A disk with a mark "writing" holds a broken-off installation of ours, and nothing of anybody else's: the installer
//! emptied it, or was allowed to, before it wrote the mark. "complete" counts only together with the table of the same
//! disk GUID. The mark proves nothing against somebody who writes disks; it tells our own leftovers from data.

use crate::block::Device;
use crate::error::StorageError;
use dayzero_model::ids::Sha256;
use uuid::Uuid;

/// Where it lies: the last 4 KiB before the first partition.
pub(crate) const OFFSET: u64 = (1 << 20) - 4096;
const MAGIC: &[u8; 16] = b"DAYZERO-DISK-01\n";
const LENGTH: usize = 16 + 1 + 16 + 32 + 32;

/// How far the installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Begun, not finished: not bootable.
    Writing,
    /// Finished.
    Complete,
}

/// The mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// How far.
    pub stage: Stage,
    /// GUID of the disk's table.
    pub disk: Uuid,
    /// The plan that the installation followed from.
    pub plan: Sha256,
}

impl Marker {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(match self.stage {
            Stage::Writing => b'W',
            Stage::Complete => b'C',
        });
        bytes.extend(self.disk.as_bytes());
        bytes.extend(self.plan.0);
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LENGTH)?;
        let (body, hash) = bytes.split_at(LENGTH - 32);
        if body.get(..16)? != MAGIC || blake3::hash(body).as_bytes() != hash {
            return None;
        }
        let stage = match body[16] {
            b'W' => Stage::Writing,
            b'C' => Stage::Complete,
            _ => return None,
        };
        let disk = Uuid::from_slice(&body[17..33]).ok()?;
        Some(Self { stage, disk, plan: Sha256(body[33..65].try_into().ok()?) })
    }

    /// Reads the mark; none = there is none that holds.
    ///
    /// # Errors
    /// I/O.
    pub fn read(device: &Device) -> Result<Option<Self>, StorageError> {
        Ok(Self::decode(&device.read_some(OFFSET, LENGTH)?))
    }

    /// Writes the mark, and waits until it is on the medium.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, device: &Device) -> Result<(), StorageError> {
        device.patch(OFFSET, &self.encode())?;
        device.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_changed_one_is_none() {
        let marker = Marker { stage: Stage::Writing, disk: Uuid::new_v4(), plan: Sha256::of(b"plan") };
        let bytes = marker.encode();
        assert_eq!(Marker::decode(&bytes), Some(marker));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Marker::decode(&bad), None, "byte {at}");
        }
        assert_eq!(Marker::decode(&bytes[..40]), None);
    }
}
