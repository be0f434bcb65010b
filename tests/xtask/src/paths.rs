//! Where things lie: the checkout, the cache outside it, the demo's working directory.

use std::path::{Path, PathBuf};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// `$DAYZERO_CACHE`, `$XDG_CACHE_HOME/dayzero` or `~/.cache/dayzero`: survives the checkout, keyed by inputs.
pub fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("DAYZERO_CACHE") {
        return dir.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    base.unwrap_or_else(|| home.join(".cache")).join("dayzero")
}

/// The demo's working directory: short, since Unix sockets lie in it, and on a disk, since hosts' disks do too.
pub fn demo() -> PathBuf {
    PathBuf::from("/var/tmp/dayzero-demo")
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A built binary.
pub fn binary(name: &str) -> PathBuf {
    target().join("x86_64-unknown-linux-gnu/debug").join(name)
}
