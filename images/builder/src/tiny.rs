//! The smallest guest: a raw disk with GRUB, Debian's cloud kernel and busybox, which tells on its serial console its
//! name (SMBIOS product serial), its address (DHCP) and the SHA-256 of its disk.
//!
//! Invariants: it boots from its disk by BIOS; it never writes to it, so the checksum it prints is that of the template;
//! deterministic for its inputs. No login, no listener.

use crate::apt::Apt;
use crate::assets;
use crate::cache::{Cache, Key};
use crate::cpio::Archive;
use crate::discovery::{Packing, pack};
use crate::error::{self, Error, Result};
use crate::grub;
use crate::kernel::{Flavour, Kernel, build_kernel};
use crate::modules::Index;
use dayzero_model::Sha256;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
/// Bytes of the whole disk.
const DISK_BYTES: u64 = 16 << 20;
/// Where its one partition starts; GRUB's core image lies before it.
const PARTITION_START: u64 = 1 << 20;
/// Block size in which the guest reads its disk.
const BLOCK: u64 = 64 << 10;

const CMDLINE: &str = "console=ttyS0 quiet no_timer_check panic=10";

/// The built template.
#[derive(Clone, Debug)]
pub struct Template {
    /// The raw disk image.
    pub disk: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the disk image: what its guest prints.
    pub sha256: Sha256,
    /// Kernel release in it.
    pub kernel: String,
    /// Key of the cache entry.
    pub key: String,
}

/// Builds the template.
///
/// # Errors
/// When the archive cannot be reached, a tool fails, or the files do not fit.
pub fn build_template_tiny(cache: &Cache) -> Result<Template> {
    let kernel = build_kernel(cache, Flavour::Cloud)?;
    let apt = Apt::new(cache)?;
    let busybox = apt.candidate("busybox-static")?;
    let key = Key::new("tiny", 2)
        .with("kernel", &kernel.key)
        .with("busybox", &busybox)
        .with("init", assets::TINY_INIT)
        .with("udhcpc", assets::TINY_UDHCPC)
        .with("modules", assets::TINY_MODULES)
        .with("disk", format!("{DISK_BYTES} {PARTITION_START} {BLOCK} {CMDLINE}"));
    let directory = cache.entry("tiny", &key, |directory| {
        cache.say("tiny", "building the small guest");
        let scratch =
            tempfile::tempdir_in(directory).map_err(Error::io("cannot make a directory in", directory))?;
        apt.unpack("busybox-static", &busybox, &scratch.path().join("busybox"))?;
        let initrd = scratch.path().join("initrd");
        error::write(&initrd, initial_ramdisk(&kernel, &scratch.path().join("busybox/bin/busybox"))?)?;
        write_disk(&directory.join("disk.raw"), &kernel.vmlinuz, &initrd, scratch.path())
    })?;
    let disk = directory.join("disk.raw");
    let sha256 = Sha256::of(&error::read(&disk)?);
    Ok(Template { bytes: error::size(&disk)?, sha256, kernel: kernel.release, key: key.finish(), disk })
}

fn initial_ramdisk(kernel: &Kernel, busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in ["proc", "sys", "run", "tmp"] {
        archive.directory(name);
    }
    archive.device("dev/console", 0o600, 5, 1);
    archive.file("bin/busybox", 0o755, error::read(busybox)?);
    for applet in [
        "cat",
        "cut",
        "dd",
        "echo",
        "hostname",
        "insmod",
        "ip",
        "mount",
        "poweroff",
        "sh",
        "sha256sum",
        "sleep",
        "udhcpc",
        "uname",
    ] {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    archive.file("init", 0o755, assets::TINY_INIT.replace("@BLOCKS@", &(DISK_BYTES / BLOCK).to_string()));
    archive.file("etc/udhcpc", 0o755, assets::TINY_UDHCPC);
    let index = Index::read(&kernel.modules)?;
    let mut order = String::new();
    for path in index.in_order(assets::TINY_MODULES)? {
        let name = path.rsplit('/').next().unwrap_or(path);
        archive.file(&format!("lib/modules/{name}"), 0o644, error::read(&kernel.modules.join(path))?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("etc/modules", 0o644, order);
    pack(&archive.bytes(), Packing::Small)
}

/// An MBR, GRUB's core image behind it, and one partition with nothing but kernel and initial RAM disk, end to end:
/// GRUB reads them by block numbers, in few large reads, which is what counts where each BIOS call is emulated.
fn write_disk(path: &Path, kernel: &Path, initrd: &Path, scratch: &Path) -> Result<()> {
    let (kernel, initrd) = (error::read(kernel)?, error::read(initrd)?);
    let sectors = |bytes: &[u8]| (bytes.len() as u64).div_ceil(SECTOR);
    let (first, second) = (sectors(&kernel), sectors(&initrd));
    if PARTITION_START + (first + second) * SECTOR > DISK_BYTES {
        return Err(Error::malformed(
            path,
            "kernel and initial RAM disk do not fit into the template's disk",
        ));
    }
    // GRUB without its shell: three commands.
    let script = format!("linux ($root)0+{first} {CMDLINE}\ninitrd ($root){first}+{second}\nboot\n");
    let bios = grub::bios(scratch, "(,msdos1)/", Some(&script))?;
    let (boot, core) = bios.placed_at(1);
    if core.len() as u64 > PARTITION_START - SECTOR {
        return Err(Error::malformed(path, "GRUB's core image reaches into the first partition"));
    }
    let failed = || Error::io("cannot write", path);
    error::write(path, mbr(&boot))?;
    let disk = OpenOptions::new().write(true).open(path).map_err(failed())?;
    disk.set_len(DISK_BYTES).map_err(failed())?;
    disk.write_all_at(&core, SECTOR).map_err(failed())?;
    disk.write_all_at(&kernel, PARTITION_START).map_err(failed())?;
    disk.write_all_at(&initrd, PARTITION_START + first * SECTOR).map_err(failed())
}

/// The first sector: boot code, and one active partition of the type "no file system" from [`PARTITION_START`] on.
fn mbr(boot: &[u8]) -> Vec<u8> {
    let mut mbr = vec![0; SECTOR as usize];
    mbr[..440].copy_from_slice(&boot[..440]);
    let entry = |value: u64| u32::try_from(value / SECTOR).unwrap_or(u32::MAX).to_le_bytes();
    mbr[446] = 0x80; // some BIOSes start no disk without an active partition
    mbr[447..450].copy_from_slice(&[0xfe, 0xff, 0xff]);
    mbr[450] = 0xda;
    mbr[451..454].copy_from_slice(&[0xfe, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&entry(PARTITION_START));
    mbr[458..462].copy_from_slice(&entry(DISK_BYTES - PARTITION_START));
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_covers_the_rest_of_the_disk() {
        let mbr = mbr(&[0x90; 440]);
        assert_eq!(mbr.len(), 512);
        assert_eq!(hex::encode(&mbr[446..462]), "80feffffdafeffff0008000000780000");
        assert_eq!(&mbr[510..], [0x55, 0xaa]);
    }
}
