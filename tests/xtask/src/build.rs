//! Builds the two binaries and the images, each once, in one profile.

use crate::{paths, shell, workspace};
use anyhow::{Context, Result};
use dayzero_images::{Appliance, Cache, Flavour, Packing, Parts};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What the appliance's image leaves for its data, where the disk is not larger.
const DATA_BYTES: u64 = 3 << 30;

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
    /// Directory of the loaders that the appliance's image has too: `undionly.kpxe`, `snponly.efi`, `ipxe-arm64.efi`.
    pub ipxe: PathBuf,
}

/// `dayzero` and `dayzero-agent`, static, in the one profile.
pub fn binaries() -> Result<()> {
    if workspace::is_built() {
        return Ok(());
    }
    step("building dayzero and its agent", || {
        let mut cargo = shell::cargo(&["build", "--quiet", "--bins", "-p", "dayzero", "-p", "dayzero-agent"]);
        shell::run(&mut cargo)
    })
}

/// `dayzero` as it is released, for what is measured beside released peers.
pub fn released() -> Result<()> {
    step("building dayzero as released", || {
        let mut cargo = shell::cargo(&["build", "--quiet", "--release", "--bin", "dayzero"]);
        shell::run(&mut cargo)
    })
}

/// What the images are made of.
struct Made {
    kernel: dayzero_images::Kernel,
    discovery: dayzero_images::Discovery,
    host: dayzero_images::HostImage,
    tiny: dayzero_images::Template,
}

fn cache() -> Cache {
    let said = Arc::new(|image: &str, what: &str| println!("{image}: {what}"));
    Cache::new(paths::cache().join("images"), said)
}

/// Binaries first, since the images hold the agent; then what is not in the cache.
fn make(cache: &Cache) -> Result<Made> {
    binaries()?;
    let agent = paths::binary("dayzero-agent");
    Ok(Made {
        kernel: step("kernel", || dayzero_images::build_kernel(cache, Flavour::Server).context("kernel"))?,
        discovery: step("discovery image", || {
            dayzero_images::build_discovery(cache, &agent, Packing::Quick).context("discovery image")
        })?,
        host: step("KVM host image", || dayzero_images::build_host(cache, &agent).context("host image"))?,
        tiny: step("guest template", || {
            dayzero_images::build_template_tiny(cache).context("guest template")
        })?,
    })
}

/// Everything that hosts boot and install.
pub fn images() -> Result<Images> {
    let cache = cache();
    let Made { kernel, discovery, host, tiny } = make(&cache)?;
    let ipxe = step("loaders", || dayzero_images::ipxe_loaders(&cache).context("loaders"))?;
    Ok(Images {
        vmlinuz: kernel.vmlinuz,
        initrd: discovery.initrd,
        host: host.directory,
        tiny: tiny.disk,
        ipxe: ipxe.directory,
    })
}

/// The same, and Debian's signed loaders in the cache, out of which labs of Secure Boot take them: a lab has no way to fetch
/// anything.
pub fn images_for_labs() -> Result<Images> {
    let images = images()?;
    step("signed loaders", || dayzero_images::secure_loaders(&cache()).context("signed loaders"))?;
    Ok(images)
}

/// The appliance's disk, with all of that in it. It lies in the cache: only copies of it are ever started.
pub fn appliance() -> Result<Appliance> {
    let cache = cache();
    let made = make(&cache)?;
    let parts = Parts {
        dayzero: &paths::binary("dayzero"),
        agent: &paths::binary("dayzero-agent"),
        discovery: &made.discovery,
        host: &made.host,
        template: &made.tiny,
        data_bytes: DATA_BYTES,
    };
    step("appliance image", || dayzero_images::build_appliance(&cache, &parts).context("appliance image"))
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
