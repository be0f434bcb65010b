//! The agent's binary on its way into an image: checked and stripped of symbols.
//!
//! It does not build the agent: the caller does, by cargo.

use crate::cache::{Cache, Key};
use crate::error::{self, Error, Result};
use crate::tool::Tool;
use std::path::{Path, PathBuf};

/// The stripped copy of a static x86-64 program.
pub(crate) fn stripped(cache: &Cache, program: &Path) -> Result<PathBuf> {
    let bytes = error::read(program)?;
    check(program, &bytes)?;
    let key = Key::new("agent", 1).with("program", blake3::hash(&bytes).as_bytes());
    let directory = cache.entry("agent", &key, |directory| {
        let to = directory.join("agent");
        Tool::new("strip").arg("-o").arg(&to).arg(program).run("stripping the agent")?;
        Ok(())
    })?;
    cache.keep_newest("agent", 8)?;
    Ok(directory.join("agent"))
}

/// PID 1 of an initial RAM disk has no dynamic linker: an ELF file with PT_INTERP would end in a kernel panic.
fn check(path: &Path, elf: &[u8]) -> Result<()> {
    let bad = |reason: &str| Err(Error::malformed(path, reason));
    if elf.get(..5) != Some(b"\x7fELF\x02") || elf.get(18..20) != Some(&[62, 0]) {
        return bad("the agent must be an ELF program for x86-64");
    }
    let field = |at: usize, len: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(elf.get(at..at + len)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (Some(start), Some(entry), Some(count)) = (field(32, 8), field(54, 2), field(56, 2)) else {
        return bad("the agent's ELF header is cut short");
    };
    for number in 0..count {
        let at = start.saturating_add(number * entry);
        match field(at, 4) {
            Some(3) => return bad("the agent is linked dynamically: build it with target-feature=+crt-static"),
            Some(_) => {}
            None => return bad("the agent's program headers are cut short"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_or_foreign_program_is_refused() {
        let check = |bytes: &[u8]| check(Path::new("agent"), bytes).map_err(|e| e.to_string());
        assert!(check(&std::fs::read("/bin/ls").unwrap()).unwrap_err().contains("dynamically"));
        assert!(check(b"#!/bin/sh\n").unwrap_err().contains("x86-64"));
        let myself = std::fs::read("/proc/self/exe").unwrap();
        check(&myself).unwrap();
        assert!(check(&myself[..60]).unwrap_err().contains("short"));
    }
}
