//! The KVM host's image: partitions as chunks, and the manifest that an installer follows.
//!
//! Invariants: the manifest and the chunks are the whole image (`dayzero_model::install::ImageManifest`); layers are
//! cached apart (packages, file system, agent), so that another agent costs seconds; no identity, key or password is in
//! it. It writes no disk: the agent does.

use crate::cache::{Cache, Key};
use crate::cpio::Archive;
use crate::discovery::{Packing, add_modules, pack};
use crate::error::{self, Error, Result};
use crate::modules::entries;
use crate::tool::Tool;
use crate::{agent, assets, chunks, debootstrap, ext4, fat, grub};
use base64::Engine as _;
use dayzero_model::install::{BiosBoot, HostFile, ImageManifest, PartitionImage, PartitionRole};
use dayzero_model::{Bytes, Sha256};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// The root's content; the file system grows to its partition at the first start.
const ROOT_BYTES: u64 = 1280 * MIB;
/// The least root partition: room for logs, updates and the agent's state.
const ROOT_LEAST: u64 = 2048 * MIB;
/// Kernel and initial RAM disk twice, and room.
const ESP_BYTES: u64 = fat::LEAST;
/// Where the agent lies.
const AGENT: &str = "/usr/lib/dayzero/dayzero-agent";

/// A built host image: everything under `directory` is served to installers.
#[derive(Clone, Debug)]
pub struct HostImage {
    /// Directory with `manifest.json` and `chunks/`.
    pub directory: PathBuf,
    /// The manifest's file.
    pub manifest_path: PathBuf,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: Sha256,
    /// The manifest.
    pub manifest: ImageManifest,
    /// Number of chunks with content.
    pub chunks: usize,
    /// Bytes of all chunks, packed.
    pub packed: u64,
    /// Key of the cache entry.
    pub key: String,
}

/// Builds the KVM host's image with the agent's static binary in it.
///
/// # Errors
/// When `agent` is no static x86-64 ELF file, the archive cannot be reached, or a tool fails.
pub fn build_host(cache: &Cache, agent: &Path) -> Result<HostImage> {
    let program = agent::stripped(cache, agent)?;
    let base = base(cache)?;
    let key = Key::new("host", 2)
        .with("base", &base.key)
        .with("grub", assets::HOST_GRUB)
        .with("cmdline", assets::HOST_CMDLINE)
        .with_file("agent", &program)?;
    let directory = cache.entry("host", &key, |directory| {
        cache.say("host", "adding the agent, cutting into chunks");
        let scratch =
            tempfile::tempdir_in(directory).map_err(Error::io("cannot make a directory in", directory))?;
        let root = scratch.path().join("root.ext4");
        ext4::copy(&base.directory.join("root.ext4"), &root)?;
        ext4::add_program(&root, &program, AGENT, scratch.path())?;
        ext4::check(&root)?;
        let store = directory.join("chunks");
        let known = base.directory.join("chunks");
        let manifest = base.manifest(
            chunks::cut(&base.directory.join("esp.fat"), &store, Some(&known))?,
            chunks::cut(&root, &store, Some(&known))?,
        )?;
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::Input(e.to_string()))?;
        error::write(&directory.join("manifest.json"), text)?;
        error::copy(&base.packages, &directory.join("packages.txt"))
    })?;
    cache.keep_newest("host", 4)?;
    read_host(&directory, key.finish())
}

/// Reads a built host image, wherever it was copied to.
///
/// # Errors
/// When the manifest is missing or of another format.
pub fn read_host(directory: &Path, key: String) -> Result<HostImage> {
    let manifest_path = directory.join("manifest.json");
    let text = error::read(&manifest_path)?;
    let manifest: ImageManifest =
        serde_json::from_slice(&text).map_err(|e| Error::malformed(&manifest_path, e.to_string()))?;
    let totals = manifest.partitions.iter().map(|partition| chunks::totals(&partition.chunks));
    let (count, packed) = totals.fold((0, 0), |(count, sum), (c, s)| (count + c, sum + s));
    Ok(HostImage {
        directory: directory.to_path_buf(),
        manifest_sha256: Sha256::of(&text),
        manifest_path,
        manifest,
        chunks: count,
        packed,
        key,
    })
}

/// All but the agent.
struct Base {
    directory: PathBuf,
    packages: PathBuf,
    key: String,
    kernel: String,
}

fn base(cache: &Cache) -> Result<Base> {
    let (packages, packages_key) = debootstrap::host_packages(cache)?;
    let mut key = Key::new("host-base", 2)
        .with("packages", &packages_key)
        .with("masked", assets::HOST_MASKED)
        .with("customize", assets::HOST_CUSTOMIZE)
        .with("init", assets::HOST_INIT)
        .with("initrd modules", assets::HOST_INITRD_MODULES)
        .with("sizes", format!("{ROOT_BYTES} {ESP_BYTES}"));
    for (path, mode, content) in assets::HOST_OVERLAY {
        key = key.with(path, mode.to_le_bytes()).with(path, content);
    }
    let directory = cache.entry("host-base", &key, |directory| {
        cache.say("host", "making the file systems");
        make_base(directory, &packages.join("root"))
    })?;
    cache.keep_newest("host-base", 2)?;
    let kernel = error::read_text(&directory.join("kernel-release"))?.trim().to_owned();
    Ok(Base { packages: packages.join("packages.txt"), key: key.finish(), kernel, directory })
}

fn make_base(directory: &Path, installed: &Path) -> Result<()> {
    let tree = directory.join("tree");
    Tool::new("cp").args(["-a", "--reflink=auto"]).arg(installed).arg(&tree).run("copying the tree")?;
    let overlay = directory.join("overlay");
    for (path, mode, content) in assets::HOST_OVERLAY {
        use std::os::unix::fs::PermissionsExt as _;
        let to = overlay.join(path);
        error::make_dir(to.parent().unwrap_or(&overlay))?;
        error::write(&to, content)?;
        let permissions = std::fs::Permissions::from_mode(*mode);
        std::fs::set_permissions(&to, permissions).map_err(Error::io("cannot set the mode of", &to))?;
    }
    let masked = directory.join("masked");
    error::write(&masked, entries(assets::HOST_MASKED).map(|unit| format!("{unit}\n")).collect::<String>())?;
    let script = directory.join("customize.sh");
    error::write(&script, assets::HOST_CUSTOMIZE)?;
    Tool::new("sh").arg(&script).arg(&tree).arg(&overlay).arg(&masked).run("turning packages into a host")?;

    let release = kernel_release(&tree)?;
    let kernel = tree.join(format!("boot/vmlinuz-{release}"));
    let initrd = tree.join(format!("boot/initrd.img-{release}"));
    error::write(&initrd, initial_ramdisk(&tree, &release, &directory.join("modules"))?)?;
    make_esp(directory, &kernel, &initrd)?;
    let root = directory.join("root.ext4");
    ext4::build(&root, ROOT_BYTES, 32, "dayzero-root", &tree)?;
    error::write(&directory.join("kernel-release"), &release)?;
    for name in ["root.ext4", "esp.fat"] {
        chunks::cut(&directory.join(name), &directory.join("chunks"), None)?;
    }
    for path in [&tree, &overlay, &directory.join("modules")] {
        crate::cache::remove_tree(path)?;
    }
    Ok(())
}

/// What finds the root partition: a quarter of the seconds that a general one with udev takes on a slow machine.
fn initial_ramdisk(tree: &Path, release: &str, scratch: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in ["proc", "sys", "root", "tmp"] {
        archive.directory(name);
    }
    archive.device("dev/console", 0o600, 5, 1);
    archive.device("dev/null", 0o666, 1, 3);
    archive.file("bin/busybox", 0o755, error::read(&tree.join("usr/bin/busybox"))?);
    for applet in [
        "cat",
        "dd",
        "echo",
        "find",
        "hexdump",
        "modprobe",
        "mount",
        "pwd",
        "reboot",
        "sh",
        "sleep",
        "sort",
        "switch_root",
        "tr",
        "xargs",
    ] {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    archive.file("init", 0o755, assets::HOST_INIT);
    add_modules(
        &mut archive,
        &tree.join("usr/lib/modules").join(release),
        assets::HOST_INITRD_MODULES,
        scratch,
    )?;
    pack(&archive.bytes(), Packing::Small)
}

fn kernel_release(tree: &Path) -> Result<String> {
    let modules = tree.join("usr/lib/modules");
    let listing = std::fs::read_dir(&modules).map_err(Error::io("cannot list", &modules))?;
    let names: Vec<_> =
        listing.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.as_slice() {
        [release] => Ok(release.clone()),
        _ => Err(Error::malformed(
            &modules,
            format!("one kernel release expected, found: {}", names.join(" ")),
        )),
    }
}

fn make_esp(directory: &Path, kernel: &Path, initrd: &Path) -> Result<()> {
    let efi = grub::efi(directory)?;
    let loader = directory.join("grubx64.efi");
    error::write(&loader, efi)?;
    let items = [
        fat::Item::Directory("/EFI"),
        fat::Item::Directory("/EFI/BOOT"),
        fat::Item::Directory("/EFI/dayzero"),
        fat::Item::Directory("/dayzero"),
        // The fallback path is what firmware starts when its boot entries are lost.
        fat::Item::File("/EFI/BOOT/BOOTX64.EFI", &loader),
        fat::Item::File("/EFI/dayzero/grubx64.efi", &loader),
        fat::Item::File("/dayzero/vmlinuz", kernel),
        fat::Item::File("/dayzero/initrd.img", initrd),
    ];
    fat::build(&directory.join("esp.fat"), ESP_BYTES, "DAYZEROESP", &items)
}

impl Base {
    fn manifest(
        &self,
        esp: Vec<dayzero_model::install::Chunk>,
        root: Vec<dayzero_model::install::Chunk>,
    ) -> Result<ImageManifest> {
        let scratch = tempfile::tempdir_in(&self.directory)
            .map_err(Error::io("cannot make a directory in", &self.directory))?;
        // The ESP is partition 2 of the disk that GRUB itself was started from.
        let bios = grub::bios(scratch.path(), "(,gpt2)/dayzero", None)?;
        let cmdline = assets::HOST_CMDLINE.trim().to_owned();
        let partition = |role, size, content, chunks| PartitionImage {
            role,
            size: Bytes(size),
            content: Bytes(content),
            chunk_size: chunks::SIZE as u32,
            chunks,
        };
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        Ok(ImageManifest {
            format: 1,
            name: "kvm-debian12".to_owned(),
            partitions: vec![
                partition(PartitionRole::BiosBoot, MIB, 0, vec![]),
                partition(PartitionRole::Esp, ESP_BYTES, ESP_BYTES, esp),
                partition(PartitionRole::Root, ROOT_LEAST, ROOT_BYTES, root),
            ],
            bios: BiosBoot { boot_img: encode(&bios.boot_img), core_img: encode(&bios.core_img) },
            kernel_path: format!("/boot/vmlinuz-{}", self.kernel),
            initrd_path: format!("/boot/initrd.img-{}", self.kernel),
            kernel: self.kernel.clone(),
            host_files: host_files(&cmdline),
            cmdline,
        })
    }
}

/// The files that make an installed host itself, beside what the agent keeps for itself.
fn host_files(cmdline: &str) -> Vec<HostFile> {
    let file = |partition, path: &str, mode, content: &str| HostFile {
        partition,
        path: path.to_owned(),
        mode,
        content: content.to_owned(),
    };
    let root = PartitionRole::Root;
    vec![
        file(
            PartitionRole::Esp,
            "/dayzero/grub.cfg",
            0o644,
            &assets::HOST_GRUB.replace("@CMDLINE@", cmdline),
        ),
        file(root, "/etc/hostname", 0o644, "@HOSTNAME@\n"),
        file(
            root,
            "/etc/hosts",
            0o644,
            "127.0.0.1 localhost\n127.0.1.1 @FQDN@ @HOSTNAME@\n::1 localhost ip6-localhost ip6-loopback\n",
        ),
        file(root, "/etc/machine-id", 0o444, "@MACHINE_ID@\n"),
        file(root, "/etc/iscsi/initiatorname.iscsi", 0o600, "InitiatorName=@INITIATOR@\n"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_host_gets_of_its_own() {
        let files = host_files(assets::HOST_CMDLINE.trim());
        insta::assert_snapshot!(files[0].content, @r#"
        # Written by the installer: this host's own root partition. Kernel and initrd are beside this file.
        set timeout=0
        if [ "$grub_platform" = pc ]; then
            serial --unit=0 --speed=115200
            terminal_output console serial
        fi
        linux /dayzero/vmlinuz root=PARTUUID=@ROOT_PARTUUID@ rw console=tty0 console=ttyS0,115200 quiet no_timer_check panic=30 systemd.gpt_auto=0
        initrd /dayzero/initrd.img
        boot
        "#);
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        insta::assert_snapshot!(paths.join(" "), @"/dayzero/grub.cfg /etc/hostname /etc/hosts /etc/machine-id /etc/iscsi/initiatorname.iscsi");
    }
}
