//! Our loaders: iPXE of Debian 13, which has HTTPS, VLANs and arm64; Debian 12's is of 2019 and has none of them.
//!
//! Invariants: fetched through a package list of our own, checked against Debian's signed index, never installed; the
//! files are kept as Debian built them, under the names that `dayzero_pxe::Loaders` knows.

use crate::apt::Apt;
use crate::cache::{Cache, Key};
use crate::error::{self, Result};
use std::path::PathBuf;

const PACKAGE: &str = "ipxe";
/// What is taken of it: x86 BIOS, x86-64 UEFI, arm64 UEFI.
const FILES: [&str; 3] = ["undionly.kpxe", "snponly.efi", "ipxe-arm64.efi"];

/// iPXE for each architecture.
#[derive(Clone, Debug)]
pub struct Ipxe {
    /// Directory with `undionly.kpxe`, `snponly.efi` and `ipxe-arm64.efi`.
    pub directory: PathBuf,
    /// Version of the Debian package.
    pub package_version: String,
    /// Key of the cache entry.
    pub key: String,
}

/// Fetches Debian 13's iPXE.
///
/// # Errors
/// When no Debian mirror is among the machine's apt sources, or the package cannot be fetched or holds other files.
pub fn ipxe_loaders(cache: &Cache) -> Result<Ipxe> {
    let apt = Apt::debian_13(cache)?;
    let version = apt.candidate(PACKAGE)?;
    let mut key = Key::new("ipxe", 1).with("version", &version);
    for file in FILES {
        key = key.with("file", file);
    }
    let directory = cache.entry("ipxe", &key, |directory| {
        cache.say("ipxe", &format!("fetching {PACKAGE} {version}"));
        let root = directory.join("root");
        apt.unpack(PACKAGE, &version, &root)?;
        for file in FILES {
            error::copy(&root.join("usr/lib/ipxe").join(file), &directory.join(file))?;
        }
        crate::cache::remove_tree(&root)
    })?;
    cache.keep_newest("ipxe", 2)?;
    Ok(Ipxe { directory, package_version: version, key: key.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs DAYZERO_IPXE: what was fetched of Debian 13"]
    fn debian_13_has_a_loader_for_each_architecture() {
        let directory = PathBuf::from(std::env::var_os("DAYZERO_IPXE").unwrap());
        let machine = |name: &str| {
            let bytes = std::fs::read(directory.join(name)).unwrap();
            let pe = u32::from_le_bytes(bytes[0x3c..0x40].try_into().unwrap()) as usize;
            u16::from_le_bytes(bytes[pe + 4..pe + 6].try_into().unwrap())
        };
        assert_eq!((machine("snponly.efi"), machine("ipxe-arm64.efi")), (0x8664, 0xaa64));
        let arm64 = std::fs::read(directory.join("ipxe-arm64.efi")).unwrap();
        assert!(arm64.windows(5).any(|w| w == b"https"), "it knows HTTPS");
        assert!(directory.join("undionly.kpxe").exists());
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), FILES.len());
    }
}
