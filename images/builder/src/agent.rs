//! The agent's binary on its way into an image: checked and stripped of symbols.
//!
//! It does not build the agent: the caller does, by cargo.

use crate::cache::{Cache, Key};
use crate::elf;
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

/// PID 1 of an initial RAM disk has no dynamic linker: a program that asks for one would end in a kernel panic.
fn check(path: &Path, program: &[u8]) -> Result<()> {
    let wants = elf::wants(program)
        .map_err(|reason| Error::malformed(path, format!("the program must be static: {reason}")))?;
    match wants.interpreter {
        None => Ok(()),
        Some(loader) => Err(Error::malformed(
            path,
            format!(
                "the program is linked dynamically (it asks for {loader}): build it with target-feature=+crt-static"
            ),
        )),
    }
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
