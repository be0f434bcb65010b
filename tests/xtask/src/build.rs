//! Builds the two binaries and the images, each once, in one profile.

use crate::{paths, shell};
use anyhow::{Context, Result};
use dayzero_images::{Cache, Flavour, Packing};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// What was built.
#[derive(Debug)]
pub struct Images {
    /// Kernel of the discovery image.
    pub vmlinuz: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Directory of the KVM host image: `manifest.json` and `chunks/`.
    pub host: PathBuf,
    /// The demo's guest template, a raw disk.
    pub tiny: PathBuf,
}

/// `dayzero` and `dayzero-agent`, static, in the one profile.
pub fn binaries() -> Result<()> {
    step("building dayzero and its agent", || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(paths::root()).args([
            "build",
            "--quiet",
            "--bins",
            "-p",
            "dayzero",
            "-p",
            "dayzero-agent",
        ]);
        shell::run(&mut cargo)
    })
}

/// Binaries first, since the images hold the agent; then what is not in the cache.
pub fn images() -> Result<Images> {
    binaries()?;
    let cache = Cache::new(
        paths::cache().join("images"),
        Arc::new(|image: &str, what: &str| println!("{image}: {what}")),
    );
    let agent = paths::binary("dayzero-agent");
    let kernel = step("kernel", || dayzero_images::build_kernel(&cache, Flavour::Server).context("kernel"))?;
    let discovery = step("discovery image", || {
        dayzero_images::build_discovery(&cache, &agent, Packing::Quick).context("discovery image")
    })?;
    let host = step("KVM host image", || dayzero_images::build_host(&cache, &agent).context("host image"))?;
    let tiny =
        step("guest template", || dayzero_images::build_template_tiny(&cache).context("guest template"))?;
    Ok(Images { vmlinuz: kernel.vmlinuz, initrd: discovery.initrd, host: host.directory, tiny: tiny.disk })
}

fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = work()?;
    let seconds = began.elapsed().as_secs_f64();
    if seconds > 1.0 {
        println!("{what}: {seconds:.1} s");
    }
    Ok(done)
}
