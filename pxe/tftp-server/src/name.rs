//! The name a client asks for, brought to the form of the map's keys.
//!
//! Purpose: firmware writes `/snponly.efi`, `\boot\snponly.efi` or `./snponly.efi` for the same file. Invariants:
//! the result is relative, has no empty, `.` or `..` part and no backslash; names are never paths of a file system
//! here, and `..` is refused all the same, so that a lookup that does read a disk stays safe.

use crate::packet::{ErrorCode, Refusal};

/// Longest name, in bytes.
pub(crate) const MAX_NAME: usize = 255;

/// The canonical form of a requested name.
///
/// # Errors
/// A refusal (access violation) for `..`, and (not found) for an empty or over-long name.
pub(crate) fn canonical(name: &str) -> Result<String, Refusal> {
    if name.len() > MAX_NAME {
        return Err(Refusal::new(ErrorCode::NotFound, "file name too long"));
    }
    let mut parts = Vec::new();
    for part in name.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return Err(Refusal::new(ErrorCode::AccessViolation, "file name holds '..'")),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Refusal::new(ErrorCode::NotFound, "no file name"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_and_no_way_up() {
        for (name, want) in [
            ("snponly.efi", "snponly.efi"),
            ("/snponly.efi", "snponly.efi"),
            ("\\boot\\.\\x64//snponly.efi", "boot/x64/snponly.efi"),
            ("a..b", "a..b"),
        ] {
            assert_eq!(canonical(name).unwrap(), want);
        }
        for name in ["../etc/passwd", "a/../../b", "..\\windows", "..", "/.."] {
            assert_eq!(canonical(name).unwrap_err().code, ErrorCode::AccessViolation, "{name}");
        }
        for name in ["", "/", ".", "//./"] {
            assert_eq!(canonical(name).unwrap_err().code, ErrorCode::NotFound, "{name}");
        }
        assert!(canonical(&"x".repeat(256)).is_err());
    }
}
