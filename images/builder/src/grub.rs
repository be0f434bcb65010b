//! GRUB, made without installing it anywhere: core images for BIOS and UEFI that read `/dayzero/grub.cfg` of the
//! partition, on the disk, that they were started from.
//!
//! Invariants: no search over disks is made, so a second disk with the same image (a clone, a pulled mirror) never takes
//! part; nothing here is written to a disk of the building machine.

use crate::error::{self, Error, Result};
use crate::tool::Tool;
use std::path::Path;

/// What both firmwares need: the ESP, the script, the kernel.
const MODULES: [&str; 16] = [
    "boot",
    "cat",
    "configfile",
    "echo",
    "fat",
    "linux",
    "loadenv",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "serial",
    "terminal",
    "test",
];

/// Where GRUB's own files are in Debian.
const LIBRARY: &str = "/usr/lib/grub";

/// First-stage code and core image for BIOS, not yet told where on the disk they lie.
pub(crate) struct Bios {
    pub(crate) boot_img: Vec<u8>,
    pub(crate) core_img: Vec<u8>,
}

/// `prefix` is the directory of `grub.cfg` with the partition on GRUB's own disk, such as `(,gpt2)/dayzero`; `script`
/// replaces `grub.cfg` altogether, for a disk whose start never changes.
pub(crate) fn bios(scratch: &Path, prefix: &str, script: Option<&str>) -> Result<Bios> {
    let core = scratch.join("core.img");
    let mut tool = Tool::new("grub-mkimage").args(["-O", "i386-pc", "-p", prefix, "-o"]).arg(&core);
    if let Some(script) = script {
        let path = scratch.join("early.cfg");
        error::write(&path, script)?;
        tool = tool.arg("-c").arg(&path).args(["biosdisk", "part_msdos", "linux", "boot"]);
    } else {
        tool = tool.arg("biosdisk").args(MODULES);
    }
    tool.run("making GRUB's core image for BIOS")?;
    let mut core_img = error::read(&core)?;
    core_img.resize(core_img.len().next_multiple_of(512), 0);
    let boot_path = Path::new(LIBRARY).join("i386-pc/boot.img");
    let boot_img = error::read(&boot_path)?;
    if boot_img.len() != 512 || core_img.len() < 1024 {
        return Err(Error::malformed(
            &boot_path,
            "GRUB's boot code must be 512 bytes, and its core image at least 1024",
        ));
    }
    Ok(Bios { boot_img, core_img })
}

impl Bios {
    /// The first 440 bytes of the disk and the core image, for a core image that starts at sector `lba` (of 512 bytes).
    /// An installer does the same with what the manifest holds (`BiosBoot`).
    pub(crate) fn placed_at(&self, lba: u64) -> (Vec<u8>, Vec<u8>) {
        let mut boot = self.boot_img[..440].to_vec();
        boot[0x5c..0x64].copy_from_slice(&lba.to_le_bytes());
        boot[0x64] = 0xff; // the drive that the BIOS started
        boot[0x66..0x68].copy_from_slice(&[0x90, 0x90]); // never mind a drive number that looks like a floppy's
        let mut core = self.core_img.clone();
        let sectors = (core.len() / 512) as u16;
        core[500..508].copy_from_slice(&(lba + 1).to_le_bytes());
        core[508..510].copy_from_slice(&(sectors - 1).to_le_bytes());
        core[510..512].copy_from_slice(&0x820u16.to_le_bytes());
        (boot, core)
    }
}

/// GRUB as a UEFI program; its partition is the one that the firmware loaded it from.
pub(crate) fn efi(scratch: &Path) -> Result<Vec<u8>> {
    let path = scratch.join("grubx64.efi");
    Tool::new("grub-mkimage")
        .args(["-O", "x86_64-efi", "-p", "/dayzero", "-o"])
        .arg(&path)
        .args(MODULES)
        .args(["efi_gop", "efifwsetup", "halt"])
        .run("making GRUB for UEFI")?;
    error::read(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_image_is_told_where_it_lies() {
        let bios = Bios { boot_img: vec![0; 512], core_img: vec![0; 4096] };
        let (boot, core) = bios.placed_at(2048);
        assert_eq!(boot.len(), 440);
        assert_eq!(hex::encode(&boot[0x5c..0x68]), "0008000000000000ff009090");
        assert_eq!(hex::encode(&core[500..512]), "010800000000000007002008");
        assert!(core[..500].iter().all(|b| *b == 0));
    }
}
