//! What must be true of the machine before anything is built: said first, with what to do.

use crate::{packages, paths};
use anyhow::{Result, bail};
use std::process::Command;

/// Memory that two hosts, the builds and the page cache want, MiB.
const MEMORY_MIB: u64 = 7 * 1024;
/// Disk for target directory, images and the hosts' disks, GiB.
const DISK_GIB: u64 = 15;

/// Checks memory, disk and rights, then installs missing packages.
pub fn run() -> Result<()> {
    let mut wrong = Vec::new();
    let free = meminfo("MemAvailable:");
    if free < MEMORY_MIB {
        wrong.push(format!("{free} MiB of memory are free, {MEMORY_MIB} are needed: end other programs, or use a larger machine"));
    }
    for dir in [paths::target(), paths::cache(), paths::demo()] {
        let gib = free_gib(&dir);
        if gib < DISK_GIB {
            wrong.push(format!("{gib} GiB are free below {}, {DISK_GIB} are needed: free some, or set CARGO_TARGET_DIR and DAYZERO_CACHE", dir.display()));
        }
    }
    if !nix::unistd::geteuid().is_root() {
        wrong.push("network namespaces and image building need root: run this as root".to_owned());
    }
    if !wrong.is_empty() {
        bail!("this machine is not ready:\n  {}", wrong.join("\n  "));
    }
    packages::ensure()
}

fn meminfo(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Free space of the nearest directory above that exists.
fn free_gib(dir: &std::path::Path) -> u64 {
    let mut at = dir;
    while !at.exists() {
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    let said =
        crate::shell::ask(Command::new("df").args(["--output=avail", "-B1G"]).arg(at)).unwrap_or_default();
    said.stdout.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}
