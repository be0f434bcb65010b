//! Debian's kernel: fetched through apt's own configuration, unpacked, never installed on the building machine.
//!
//! Invariants: the version is what apt names as the candidate, and is part of the key; modules are kept as Debian signed
//! them. It chooses no modules for an image: that is `modules`.

use crate::apt::Apt;
use crate::cache::{Cache, Key};
use crate::error::{self, Error, Result};
use crate::tool::Tool;
use std::path::{Path, PathBuf};

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `linux-image-amd64`: drivers for every server.
    Server,
    /// `linux-image-cloud-amd64`: drivers for virtual machines alone; starts sooner.
    Cloud,
}

impl Flavour {
    fn package(self) -> &'static str {
        match self {
            Self::Server => "linux-image-amd64",
            Self::Cloud => "linux-image-cloud-amd64",
        }
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r` of it, such as `6.1.0-56-amd64`.
    pub release: String,
    /// Version of the Debian package, such as `6.1.192-2`.
    pub package_version: String,
    /// Key of the cache entry.
    pub key: String,
    /// The bzImage, for firmware, iPXE and GRUB.
    pub vmlinuz: PathBuf,
    /// The same kernel unpacked (ELF with a PVH entry): QEMU's `-kernel` starts it without the unpacking. Not made of
    /// the cloud kernel, which is packed by LZ4 and unpacks itself at once.
    pub vmlinux: Option<PathBuf>,
    /// `lib/modules/<release>`, with depmod's indexes.
    pub modules: PathBuf,
}

/// Fetches and unpacks the kernel that apt offers.
///
/// # Errors
/// When apt knows no such package, the download fails, or the kernel is packed in an unknown way.
pub fn build_kernel(cache: &Cache, flavour: Flavour) -> Result<Kernel> {
    let meta = flavour.package();
    let apt = Apt::new(cache)?;
    let package = apt.kernel_behind(meta)?;
    let version = apt.candidate(&package)?;
    let key = Key::new("kernel", 1).with("package", &package).with("version", &version);
    let directory = cache.entry("kernel", &key, |directory| {
        cache.say("kernel", &format!("fetching {package} {version}"));
        let root = directory.join("root");
        apt.unpack(&package, &version, &root)?;
        let release = release_in(&root)?;
        Tool::new("depmod").arg("-b").arg(&root).arg(&release).run("indexing the kernel's modules")?;
        if flavour == Flavour::Server {
            let image = root.join(format!("boot/vmlinuz-{release}"));
            error::write(&directory.join("vmlinux"), unpack_bzimage(&image)?)?;
        }
        Ok(())
    })?;
    let root = directory.join("root");
    let release = release_in(&root)?;
    Ok(Kernel {
        vmlinuz: root.join(format!("boot/vmlinuz-{release}")),
        vmlinux: (flavour == Flavour::Server).then(|| directory.join("vmlinux")),
        modules: root.join(format!("lib/modules/{release}")),
        release,
        package_version: version,
        key: key.finish(),
    })
}

fn release_in(root: &Path) -> Result<String> {
    let modules = root.join("lib/modules");
    let mut listing = std::fs::read_dir(&modules).map_err(Error::io("cannot list", &modules))?;
    let entry = listing.next().and_then(std::result::Result::ok);
    entry
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .ok_or_else(|| Error::malformed(&modules, "no kernel release in it"))
}

/// The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst: payload_offset and payload_length).
fn unpack_bzimage(path: &Path) -> Result<Vec<u8>> {
    let image = error::read(path)?;
    let payload = payload(&image).ok_or_else(|| Error::malformed(path, "no bzImage with a payload"))?;
    let elf = if payload.starts_with(b"\xfd7zXZ") {
        Tool::new("xz").args(["-dc", "--single-stream"]).input(payload).run("unpacking the kernel")?
    } else if payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        zstd::stream::decode_all(payload).map_err(Error::io("cannot unpack", path))?
    } else {
        let head = hex::encode(&payload[..payload.len().min(6)]);
        return Err(Error::malformed(
            path,
            format!("the kernel is packed neither by xz nor by zstd, but starts with {head}"),
        ));
    };
    if elf.starts_with(b"\x7fELF") {
        Ok(elf)
    } else {
        Err(Error::malformed(path, "the payload is no ELF file"))
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    // The last four bytes are the unpacked length, not the archive's.
    image.get(start..start.checked_add(word(0x24c)?.checked_sub(4)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bzimage_gives_its_kernel_and_a_broken_one_an_error() {
        let elf = b"\x7fELF kernel".repeat(100);
        let mut packed = zstd::stream::encode_all(&elf[..], 3).unwrap();
        packed.extend_from_slice(&(elf.len() as u32).to_le_bytes());
        let mut image = vec![0; 2 * 512];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(&packed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinuz");
        std::fs::write(&path, &image).unwrap();
        assert!(unpack_bzimage(&path).unwrap() == elf);
        for length in [0, 100, 0x24c, 600, image.len() - 9] {
            std::fs::write(&path, &image[..length]).unwrap();
            assert!(unpack_bzimage(&path).is_err(), "cut at {length}");
        }
    }
}
