//! Block devices and files as such: sizes, aligned buffers, direct I/O, zeroing, cutting into partitions by ioctl.

use crate::error::StorageError;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Alignment of buffers, offsets and lengths under direct I/O: fits 512-byte and 4Kn disks.
pub const ALIGN: usize = 4096;

mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
    nix::ioctl_none_bad!(blkrrpart, 0x125f);
    nix::ioctl_none_bad!(blkflsbuf, 0x1261);
    nix::ioctl_write_ptr_bad!(blkpg, 0x1269, super::BlkpgArg);
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
pub(crate) struct BlkpgArg {
    op: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *const BlkpgPartition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: libc::c_int,
    names: [u8; 128],
}

const BLKPG_ADD: libc::c_int = 1;
const BLKPG_DEL: libc::c_int = 2;

/// A buffer whose content starts at an [`ALIGN`]ed address.
pub struct Aligned {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Zeros, `length` rounded up to [`ALIGN`].
    pub fn new(length: usize) -> Self {
        Self::exact(length.next_multiple_of(ALIGN))
    }

    /// Zeros, of exactly this length.
    fn exact(length: usize) -> Self {
        let storage = vec![0; length + ALIGN];
        let start = storage.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { storage, start, length }
    }

    /// `content`, padded with zeros to [`ALIGN`].
    pub fn of(content: &[u8]) -> Self {
        let mut aligned = Self::new(content.len());
        aligned.bytes_mut()[..content.len()].copy_from_slice(content);
        aligned
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }
}

/// An open disk, volume or image file.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    size: u64,
    sector: u32,
    block: bool,
    exclusive: bool,
}

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading, through the page cache.
    Look,
    /// Reading and writing, direct where the file system can.
    Direct,
    /// As `Direct`, and refused while something else (a mount, LVM, multipath) holds it.
    Exclusive,
}

impl Device {
    /// Opens a block device or a file.
    ///
    /// # Errors
    /// With `Exclusive`, `EBUSY` while it is in use.
    pub fn open(path: &Path, access: Access) -> Result<Self, StorageError> {
        let failed = StorageError::io("opening", path);
        let write = access != Access::Look;
        let block = match std::fs::metadata(path) {
            Ok(metadata) => metadata.file_type().is_block_device(),
            Err(e) => return Err(failed(e)),
        };
        let exclusive = access == Access::Exclusive && block;
        let base = libc::O_CLOEXEC | if exclusive { libc::O_EXCL } else { 0 };
        let open =
            |flags: i32| OpenOptions::new().read(true).write(write).custom_flags(base | flags).open(path);
        let file = match if write { open(libc::O_DIRECT) } else { open(0) } {
            // Some file systems have no direct I/O; disks always do.
            Err(e) if write && !block && e.raw_os_error() == Some(libc::EINVAL) => open(0),
            other => other,
        }
        .map_err(failed)?;
        let (size, sector) = measure(&file, block).map_err(StorageError::io("measuring", path))?;
        Ok(Self { file, path: path.to_owned(), size, sector, block, exclusive })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a logical block.
    pub fn sector(&self) -> u32 {
        self.sector
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `buffer.len()` bytes at `offset`; both multiples of [`ALIGN`] under direct I/O.
    ///
    /// # Errors
    /// I/O.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(StorageError::io(&format!("reading at {offset} of"), &self.path))
    }

    /// Reads up to `length` bytes at `offset`; fewer at the end, none beyond it. Any offset and length will do.
    ///
    /// # Errors
    /// I/O.
    pub fn read_some(&self, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let length = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
        let (first, skip, mut buffer) = self.around(offset, length);
        let inside = usize::try_from(self.size - first.min(self.size)).unwrap_or(usize::MAX);
        let whole = buffer.bytes().len().min(inside);
        self.read(first, &mut buffer.bytes_mut()[..whole])?;
        Ok(buffer.bytes()[skip..skip + length].to_vec())
    }

    /// Logical blocks around a range: their offset, where the range begins in them, and a buffer for them.
    fn around(&self, offset: u64, length: usize) -> (u64, usize, Aligned) {
        let sector = u64::from(self.sector.max(512));
        let first = offset - offset % sector;
        let skip = (offset - first) as usize;
        (first, skip, Aligned::exact((skip + length).next_multiple_of(sector as usize)))
    }

    /// Writes at `offset`; buffer, offset and length multiples of [`ALIGN`] under direct I/O.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, offset: u64, buffer: &[u8]) -> Result<(), StorageError> {
        self.file
            .write_all_at(buffer, offset)
            .map_err(StorageError::io(&format!("writing at {offset} of"), &self.path))
    }

    /// Changes some bytes anywhere: reads the blocks around them, and writes them back.
    ///
    /// # Errors
    /// I/O.
    pub fn patch(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let (first, skip, mut buffer) = self.around(offset, bytes.len());
        self.read(first, buffer.bytes_mut())?;
        buffer.bytes_mut()[skip..skip + bytes.len()].copy_from_slice(bytes);
        self.write(first, buffer.bytes())
    }

    /// Makes a range read as zeros: by the device's own command, or by writing.
    ///
    /// # Errors
    /// I/O.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), StorageError> {
        if length == 0 {
            return Ok(());
        }
        if self.block {
            // SAFETY: the descriptor is open, and the argument is the kernel's pair of start and length.
            match unsafe { ioctl::blkzeroout(self.file.as_raw_fd(), &[offset, length]) } {
                Ok(_) => return Ok(()),
                Err(errno) => tracing::debug!(%errno, "no BLKZEROOUT, writing zeros"),
            }
        }
        let zeros = Aligned::new(1 << 20);
        let mut at = 0;
        while at < length {
            let step = (length - at).min(1 << 20);
            self.write(offset + at, &zeros.bytes()[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    /// Waits until all is on the medium.
    ///
    /// # Errors
    /// I/O.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.file.sync_all().map_err(StorageError::io("syncing", &self.path))
    }

    /// Drops what the page cache holds of it, so that others see what was written directly.
    pub fn drop_cache(&self) {
        if self.block {
            // SAFETY: the descriptor is open; the call takes no argument.
            let _ = unsafe { ioctl::blkflsbuf(self.file.as_raw_fd()) };
        }
    }

    /// Has the kernel read the partition table again; partitions that it has already stay if this fails.
    pub fn reread_partitions(&self) -> bool {
        // SAFETY: the descriptor is open; the call takes no argument.
        self.block && unsafe { ioctl::blkrrpart(self.file.as_raw_fd()) }.is_ok()
    }

    /// Has the kernel show a range as partition `number`, whatever the partition table says.
    ///
    /// # Errors
    /// I/O: `EBUSY` where such a partition is there.
    pub fn show_partition(&self, number: i32, start: u64, length: u64) -> Result<(), StorageError> {
        self.blkpg(BLKPG_ADD, number, start, length)
            .map_err(StorageError::io(&format!("showing partition {number} of"), &self.path))
    }

    /// Has the kernel forget partition `number`; one that is not there is no error.
    ///
    /// # Errors
    /// I/O: `EBUSY` while it is in use.
    pub fn hide_partition(&self, number: i32) -> Result<(), StorageError> {
        match self.blkpg(BLKPG_DEL, number, 0, 0) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            other => other.map_err(StorageError::io(&format!("hiding partition {number} of"), &self.path)),
        }
    }

    fn blkpg(&self, op: libc::c_int, number: i32, start: u64, length: u64) -> std::io::Result<()> {
        if !self.block {
            return Err(std::io::Error::from(ErrorKind::Unsupported));
        }
        let partition =
            BlkpgPartition { start: start as i64, length: length as i64, number, names: [0; 128] };
        let size = std::mem::size_of::<BlkpgPartition>() as libc::c_int;
        let argument = BlkpgArg { op, flags: 0, length: size, data: &partition };
        // SAFETY: the descriptor is open; argument and partition have the kernel's layout and outlive the call.
        unsafe { ioctl::blkpg(self.file.as_raw_fd(), &argument) }.map(drop).map_err(std::io::Error::from)
    }

    /// Held against other users.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

fn measure(file: &File, block: bool) -> std::io::Result<(u64, u32)> {
    if !block {
        return Ok((file.metadata()?.len(), 512));
    }
    let (mut size, mut sector) = (0_u64, 0);
    // SAFETY: the descriptor is open, and the pointers are to values of the type that each call writes.
    unsafe {
        ioctl::blkgetsize64(file.as_raw_fd(), &mut size)?;
        ioctl::blksszget(file.as_raw_fd(), &mut sector)?;
    }
    Ok((size, u32::try_from(sector).unwrap_or(512)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_padded() {
        for length in [1, 4095, 4096, 4097, 1 << 20] {
            let buffer = Aligned::of(&vec![7; length]);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGN, 0);
            assert_eq!(buffer.bytes().len() % ALIGN, 0);
            assert!(buffer.bytes()[..length].iter().all(|b| *b == 7));
            assert!(buffer.bytes()[length..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn a_patch_changes_its_bytes_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 16_384]).unwrap();
        let device = Device::open(file.path(), Access::Direct).unwrap();
        device.patch(4090, &[2; 10]).unwrap();
        device.zero(8192, 4096).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(device.read_some(4085, 20).unwrap(), [[1; 5], [2; 5], [2; 5], [1; 5]].concat());
        let twos: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] == 2).collect();
        assert_eq!(twos, (4090..4100).collect::<Vec<_>>());
        assert!(bytes[8192..12_288].iter().all(|b| *b == 0) && bytes[12_288] == 1);
    }
}
