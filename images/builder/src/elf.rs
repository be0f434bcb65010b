//! The little of ELF that an image needs: is a program static, and which libraries does it ask for?
//!
//! Invariants: reads 64-bit little-endian files only; a damaged file is an error, never a panic.

/// What a program asks its loader for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// The dynamic loader, for a dynamic program.
    pub(crate) interpreter: Option<String>,
    /// Libraries by their sonames.
    pub(crate) libraries: Vec<String>,
}

/// Reads an x86-64 ELF file.
///
/// # Errors
/// A sentence.
pub(crate) fn wants(elf: &[u8]) -> Result<Wants, &'static str> {
    if elf.get(..5) != Some(b"\x7fELF\x02") || elf.get(18..20) != Some(&[62, 0]) {
        return Err("no ELF file for x86-64");
    }
    parse(elf).ok_or("the ELF file is cut short")
}

fn parse(elf: &[u8]) -> Option<Wants> {
    let table = number(elf, 32, 8)?;
    let (entry, count) = (number(elf, 54, 2)?, number(elf, 56, 2)?);
    let mut wants = Wants::default();
    let mut loads = Vec::new();
    let mut dynamic = None;
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(entry)?)?;
        let (offset, address, length) = (
            number(elf, at.checked_add(8)?, 8)?,
            number(elf, at.checked_add(16)?, 8)?,
            number(elf, at.checked_add(32)?, 8)?,
        );
        match number(elf, at, 4)? {
            1 => loads.push((address, offset, length)),
            2 => dynamic = Some((offset, length)),
            3 => wants.interpreter = Some(text(elf, offset)?),
            _ => {}
        }
    }
    let Some((start, length)) = dynamic else { return Some(wants) };
    let (mut names, mut strings) = (Vec::new(), None);
    for at in (start..start.checked_add(length)?).step_by(16) {
        match (number(elf, at, 8)?, number(elf, at.checked_add(8)?, 8)?) {
            (0, _) => break,
            (1, name) => names.push(name),
            (5, address) => strings = Some(address),
            _ => {}
        }
    }
    if names.is_empty() {
        return Some(wants);
    }
    let strings = strings?;
    let (address, offset, _) = loads
        .into_iter()
        .find(|(address, _, length)| (*address..address.saturating_add(*length)).contains(&strings))?;
    let base = strings - address + offset;
    for name in names {
        wants.libraries.push(text(elf, base.checked_add(name)?)?);
    }
    Some(wants)
}

fn number(elf: &[u8], at: usize, length: usize) -> Option<usize> {
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(elf.get(at..at.checked_add(length)?)?);
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

fn text(elf: &[u8], at: usize) -> Option<String> {
    let rest = elf.get(at..)?;
    let end = rest.iter().take(4096).position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_and_static_programs_are_told_apart() {
        let ls = wants(&std::fs::read("/bin/ls").unwrap()).unwrap();
        assert_eq!(ls.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(ls.libraries.contains(&"libc.so.6".to_owned()), "{ls:?}");
        let busybox = wants(&std::fs::read("/bin/busybox").unwrap()).unwrap();
        assert_eq!(busybox, Wants::default());
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let whole = std::fs::read("/bin/ls").unwrap();
        assert!(wants(b"#!/bin/sh").is_err());
        for length in [4, 20, 60, 100, 500] {
            assert!(wants(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..900 {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = wants(&damaged);
        }
    }
}
