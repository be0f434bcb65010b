//! What starts under Secure Boot: the discovery image as one file, and Debian's signed loaders.
//!
//! The unified kernel image (UKI) is Debian's systemd stub with kernel, initial RAM disk and command line in it: one
//! signature covers all of them. Invariants: no key is needed or known here: the file is the same for every site and
//! depends on its inputs alone; the site's appliance signs it (`dayzero_trust::SecureBootKey`). shim and GRUB are kept as Microsoft and Debian signed them; nothing in
//! their chain checks an initial RAM disk.

use crate::apt::Apt;
use crate::cache::{Cache, Key};
use crate::error::{self, Error, Result};
use crate::pe;
use std::path::{Path, PathBuf};

/// The command line of the discovery image under Secure Boot, the same for all hosts and signed with it: what a host must
/// know of its boot its agent asks for.
pub const SECURE_CMDLINE: &str = "console=ttyS0 quiet no_timer_check dayzero.ask=1";
/// Packages, and the file of each that is used.
const LOADERS: [(&str, &str, &str); 3] = [
    ("systemd-boot-efi", "usr/lib/systemd/boot/efi/linuxx64.efi.stub", "linuxx64.efi.stub"),
    ("shim-signed", "usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
    ("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grubx64.efi"),
];

/// Debian's loaders for Secure Boot.
#[derive(Clone, Debug)]
pub struct SecureLoaders {
    /// systemd's stub, unsigned.
    pub stub: PathBuf,
    /// shim, signed by Microsoft.
    pub shim: PathBuf,
    /// GRUB for network boot, signed by Debian.
    pub grub: PathBuf,
    /// Key of the cache entry.
    pub key: String,
}

/// An unsigned unified kernel image.
#[derive(Clone, Debug)]
pub struct Uki {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Key of the cache entry.
    pub key: String,
}

/// Fetches Debian's stub, shim and GRUB.
///
/// # Errors
/// When apt offers one of the packages not, or it holds other files.
pub fn secure_loaders(cache: &Cache) -> Result<SecureLoaders> {
    let apt = Apt::new(cache)?;
    let mut key = Key::new("secure-loaders", 1);
    let mut versions = Vec::new();
    for (package, ..) in LOADERS {
        let version = apt.candidate(package)?;
        key = key.with(package, &version);
        versions.push(version);
    }
    let directory = cache.entry("secure-loaders", &key, |directory| {
        for ((package, file, name), version) in LOADERS.iter().zip(&versions) {
            cache.say("secure boot", &format!("fetching {package} {version}"));
            let root = directory.join("root").join(package);
            apt.unpack(package, version, &root)?;
            error::copy(&root.join(file), &directory.join(name))?;
        }
        crate::cache::remove_tree(&directory.join("root"))
    })?;
    cache.keep_newest("secure-loaders", 2)?;
    let [stub, shim, grub] = LOADERS.map(|(_, _, name)| directory.join(name));
    Ok(SecureLoaders { stub, shim, grub, key: key.finish() })
}

/// Builds the unsigned UKI of a kernel, an initial RAM disk and a command line (ASCII, one line).
///
/// # Errors
/// When a file cannot be read, the stub is no PE image with room for the sections, or the command line is none.
pub fn build_uki(cache: &Cache, kernel: &Path, initrd: &Path, cmdline: &str) -> Result<Uki> {
    if cmdline.len() > 2000 || !cmdline.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Error::Input(format!(
            "the command line {cmdline:?} of a UKI must be printable ASCII of at most 2000 bytes"
        )));
    }
    let loaders = secure_loaders(cache)?;
    let key = Key::new("uki", 1)
        .with_file("stub", &loaders.stub)?
        .with_file("kernel", kernel)?
        .with_file("initrd", initrd)?
        .with("cmdline", cmdline);
    let directory = cache.entry("uki", &key, |directory| {
        cache.say("secure boot", "assembling the discovery image as one file");
        let release = "ID=dayzero\nNAME=Dayzero\nPRETTY_NAME=\"Dayzero discovery\"\n";
        let (kernel, initrd) = (error::read(kernel)?, error::read(initrd)?);
        let sections: [(&str, &[u8]); 4] = [
            (".osrel", release.as_bytes()),
            (".cmdline", cmdline.as_bytes()),
            (".linux", &kernel),
            (".initrd", &initrd),
        ];
        let image = pe::with_sections(&error::read(&loaders.stub)?, &sections)
            .map_err(|reason| Error::malformed(&loaders.stub, reason))?;
        error::write(&directory.join("uki.efi"), image)
    })?;
    cache.keep_newest("uki", 4)?;
    let path = directory.join("uki.efi");
    Ok(Uki { bytes: error::size(&path)?, path, key: key.finish() })
}

/// Puts what the appliance serves under Secure Boot into a directory: `uki.efi` (unsigned), `shimx64.efi`, `grubx64.efi`.
///
/// # Errors
/// When a file cannot be built or copied.
pub fn put_secure_files(cache: &Cache, kernel: &Path, initrd: &Path, directory: &Path) -> Result<()> {
    let uki = build_uki(cache, kernel, initrd, SECURE_CMDLINE)?;
    let loaders = secure_loaders(cache)?;
    error::make_dir(directory)?;
    error::copy(&uki.path, &directory.join("uki.efi"))?;
    error::copy(&loaders.shim, &directory.join("shimx64.efi"))?;
    error::copy(&loaders.grub, &directory.join("grubx64.efi"))
}
