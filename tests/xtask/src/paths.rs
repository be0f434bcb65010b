//! Where things lie: the checkout, the cache outside it, the demo's working directory.

use std::path::{Path, PathBuf};

/// The checkout that `cargo xtask` was called in; for a program started by hand, the one that it was built in.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
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

/// A binary built as it is released.
pub fn released(name: &str) -> PathBuf {
    target().join("x86_64-unknown-linux-gnu/release").join(name)
}
