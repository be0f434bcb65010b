//! What our loaders are made for, read from their headers, beside what a client says that it is.
//!
//! Firmware that is given a loader of another architecture fetches it whole, says nothing that the network would hear, and
//! goes on to its next boot device.

use std::collections::BTreeMap;

use bytes::Bytes;
use dayzero_model::boot::Arch;
use dayzero_model::event::What;

/// What a file is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    /// No EFI image: a BIOS network boot program.
    Bios,
    /// An EFI image (PE/COFF) of this machine type.
    Efi(u16),
}

const X86: u16 = 0x014c;
const X64: u16 = 0x8664;
const ARM64: u16 = 0xaa64;

impl Machine {
    /// By the PE/COFF header (Microsoft's PE format, sections 2.2 and 2.3): `MZ`, at 0x3c the place of `PE\0\0`, then the machine.
    fn of(file: &[u8]) -> Self {
        let machine = || {
            file.strip_prefix(b"MZ")?;
            let at = u32::from_le_bytes(file.get(0x3c..0x40)?.try_into().ok()?) as usize;
            let rest = file.get(at..)?.strip_prefix(b"PE\0\0")?;
            Some(u16::from_le_bytes(rest.get(..2)?.try_into().ok()?))
        };
        machine().map_or(Machine::Bios, Machine::Efi)
    }

    /// Whether a client of this architecture can start it; of an architecture that we do not know, we do not know.
    fn fits(self, arch: Arch) -> bool {
        let wanted = match arch {
            Arch::Bios => return self == Machine::Bios,
            Arch::UefiX86 | Arch::UefiX86Http => X86,
            Arch::UefiX64 | Arch::UefiX64Http => X64,
            Arch::UefiArm64 | Arch::UefiArm64Http => ARM64,
            Arch::Other(_) => return true,
        };
        self == Machine::Efi(wanted)
    }

    fn text(self) -> String {
        match self {
            Machine::Bios => "BIOS".to_owned(),
            Machine::Efi(X86) => "UEFI x86, 32 bits".to_owned(),
            Machine::Efi(X64) => "UEFI x86-64".to_owned(),
            Machine::Efi(ARM64) => "UEFI arm64".to_owned(),
            Machine::Efi(other) => format!("UEFI machine type 0x{other:04x}"),
        }
    }
}

/// What each of our loaders is made for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machines(BTreeMap<String, Machine>);

impl Machines {
    pub(crate) fn of(files: &BTreeMap<String, Bytes>) -> Self {
        Self(files.iter().map(|(name, bytes)| (name.clone(), Machine::of(bytes))).collect())
    }

    /// What is to be told when a client of this architecture has fetched this file, if it cannot start it.
    pub(crate) fn fetched(&self, file: &str, arch: Option<Arch>) -> Option<What> {
        let (machine, arch) = (*self.0.get(file)?, arch?);
        let wrong = || What::WrongLoader { file: file.to_owned(), arch, made_for: machine.text() };
        (!machine.fits(arch)).then(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn efi(machine: u16) -> Bytes {
        let mut file = vec![0; 0x80];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x44].copy_from_slice(b"PE\0\0");
        file[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
        file.into()
    }

    #[test]
    fn a_loader_of_another_architecture_is_told() {
        let files = [("x64", efi(X64)), ("arm", efi(ARM64)), ("bios", Bytes::from_static(b"\xe9\0\0MZ"))];
        let machines = Machines::of(&files.map(|(name, bytes)| (name.to_owned(), bytes)).into());
        for (file, arch, wrong) in [
            ("x64", Some(Arch::UefiX64), None),
            ("x64", Some(Arch::UefiX64Http), None),
            ("x64", Some(Arch::Bios), Some("UEFI x86-64")),
            ("x64", Some(Arch::Other(0x27)), None),
            ("x64", None, None),
            ("arm", Some(Arch::UefiX64), Some("UEFI arm64")),
            ("arm", Some(Arch::UefiArm64), None),
            ("bios", Some(Arch::Bios), None),
            ("bios", Some(Arch::UefiX86), Some("BIOS")),
            ("other", Some(Arch::Bios), None),
        ] {
            let told = machines.fetched(file, arch).map(|what| match what {
                What::WrongLoader { made_for, .. } => made_for,
                other => panic!("{other:?}"),
            });
            assert_eq!(told.as_deref(), wrong, "{file} {arch:?}");
        }
    }

    #[test]
    fn a_short_or_lying_header_is_no_efi_image() {
        let good = efi(X64);
        for length in 0..0x46 {
            assert_eq!(Machine::of(&good[..length]), Machine::Bios, "{length}");
        }
        let mut far = good.to_vec();
        far[0x3c..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Machine::of(&far), Machine::Bios);
    }
}
