//! The discovery image: an initial RAM disk whose PID 1 is the agent, with the drivers that servers need.
//!
//! Invariants: deterministic for its inputs; no shell, no user, no secret, nothing of a site in it. What the agent finds:
//! `/init` (itself), `/lib/modules/<release>` with `modules.dep`, `.alias`, `.softdep`, `.builtin` as text, unpacked
//! `.ko` files, `/dev/console`, `/dev/null`, and empty `/proc /sys /dev /run /tmp /etc /mnt /var/lib/dayzero`.

use crate::agent;
use crate::assets::DISCOVERY_MODULES as MODULES;
use crate::cache::{Cache, Key};
use crate::cpio::Archive;
use crate::error::{self, Error, Result};
use crate::kernel::{self, Kernel};
use crate::modules::Index;
use crate::tool::Tool;
use std::path::{Path, PathBuf};

/// How hard the image is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// zstd level 3: for a developer who changes the agent every few minutes.
    Quick,
    /// zstd level 19: smallest and soonest unpacked; what is released.
    Small,
}

/// A built discovery image.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// Its kernel.
    pub kernel: Kernel,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// Bytes of the initial RAM disk, packed.
    pub packed: u64,
    /// Bytes of it, unpacked.
    pub unpacked: u64,
    /// Number of modules in it.
    pub modules: usize,
    /// Key of the cache entry.
    pub key: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Facts {
    unpacked: u64,
    modules: usize,
}

/// Builds the discovery image around the agent's static binary.
///
/// # Errors
/// When `agent` is no static x86-64 ELF file, or a tool fails.
pub fn build_discovery(cache: &Cache, agent: &Path, packing: Packing) -> Result<Discovery> {
    let kernel = kernel::build_kernel(cache, kernel::Flavour::Server)?;
    let program = agent::stripped(cache, agent)?;
    let key = Key::new("discovery", 2)
        .with("kernel", &kernel.key)
        .with("modules", MODULES)
        .with("packing", format!("{packing:?}"))
        .with_file("agent", &program)?;
    let base = packed_modules(cache, &kernel, packing)?;
    let directory = cache.entry("discovery", &key, |directory| {
        cache.say("discovery", "packing the agent");
        let mut archive = Archive::default();
        archive.file("init", 0o755, error::read(&program)?);
        let unpacked = archive.bytes();
        // The kernel unpacks one archive after the other, each frame by itself: the modules are packed once.
        let mut initrd = error::read(&base.join("initrd"))?;
        let mut facts: Facts = serde_json::from_slice(&error::read(&base.join("facts.json"))?)
            .map_err(|e| Error::malformed(&base.join("facts.json"), e.to_string()))?;
        facts.unpacked += unpacked.len() as u64;
        initrd.extend_from_slice(&pack(&unpacked, packing)?);
        error::write(&directory.join("initrd"), initrd)?;
        write_facts(directory, &facts)
    })?;
    cache.keep_newest("discovery", 4)?;
    let initrd = directory.join("initrd");
    let facts: Facts = serde_json::from_slice(&error::read(&directory.join("facts.json"))?)
        .map_err(|e| Error::malformed(&directory.join("facts.json"), e.to_string()))?;
    Ok(Discovery {
        packed: error::size(&initrd)?,
        unpacked: facts.unpacked,
        modules: facts.modules,
        key: key.finish(),
        kernel,
        initrd,
    })
}

fn write_facts(directory: &Path, facts: &Facts) -> Result<()> {
    let text = serde_json::to_vec_pretty(facts).map_err(|e| Error::Input(e.to_string()))?;
    error::write(&directory.join("facts.json"), text)
}

/// The part of the image that does not change with the agent.
fn packed_modules(cache: &Cache, kernel: &Kernel, packing: Packing) -> Result<PathBuf> {
    let key = Key::new("discovery-base", 2)
        .with("kernel", &kernel.key)
        .with("modules", MODULES)
        .with("packing", format!("{packing:?}"));
    cache.entry("discovery-base", &key, |directory| {
        cache.say("discovery", "choosing and packing kernel modules");
        let mut archive = Archive::default();
        for name in ["proc", "sys", "run", "tmp", "etc", "mnt", "var/lib/dayzero"] {
            archive.directory(name);
        }
        archive.device("dev/console", 0o600, 5, 1);
        archive.device("dev/null", 0o666, 1, 3);
        let modules = add_modules(&mut archive, &kernel.modules, MODULES, &directory.join("tree"))?;
        crate::cache::remove_tree(&directory.join("tree"))?;
        let unpacked = archive.bytes();
        error::write(&directory.join("initrd"), pack(&unpacked, packing)?)?;
        write_facts(directory, &Facts { unpacked: unpacked.len() as u64, modules })
    })
}

/// Adds the listed modules of `lib/modules/<release>` and their indexes to an archive; `scratch` is a directory that may be made.
pub(crate) fn add_modules(
    archive: &mut Archive,
    modules: &Path,
    list: &str,
    scratch: &Path,
) -> Result<usize> {
    let index = Index::read(modules)?;
    let paths = index.closure(list)?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let base = format!("lib/modules/{release}");
    let tree = scratch.join(&base);
    for path in &paths {
        let to = tree.join(path);
        error::make_dir(to.parent().unwrap_or(&tree))?;
        error::copy(&modules.join(path), &to)?;
        archive.file(&format!("{base}/{path}"), 0o644, error::read(&to)?);
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        error::copy(&modules.join(name), &tree.join(name))?;
    }
    Tool::new("depmod").arg("-b").arg(scratch).arg(&release).run("indexing the chosen modules")?;
    for name in ["modules.dep", "modules.alias", "modules.softdep", "modules.builtin"] {
        archive.file(&format!("{base}/{name}"), 0o644, error::read(&tree.join(name))?);
    }
    Ok(paths.len())
}

/// One zstd frame, in a window that the kernel's unpacker accepts (`ZSTD_WINDOWLOG_MAX` there is 27).
pub(crate) fn pack(bytes: &[u8], packing: Packing) -> Result<Vec<u8>> {
    let level = match packing {
        Packing::Quick => 3,
        Packing::Small => 19,
    };
    let mut packed = zstd::bulk::compress(bytes, level).map_err(|e| Error::Input(format!("zstd: {e}")))?;
    // The kernel looks for the next archive on a boundary of four.
    packed.resize(packed.len().next_multiple_of(4), 0);
    Ok(packed)
}
