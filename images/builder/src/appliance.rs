//! The appliance's disk: one file that starts by BIOS and by UEFI, and serves.
//!
//! Partitions: 1 GRUB for BIOS; 2 ESP with GRUB, kernel, initial RAM disk, `serve.toml` and, written by a person,
//! `network.conf`; 3 boot files, read-only (`vmlinuz`, `initrd`, `host/`, `ipxe/`, `secure/`, `template/tiny.raw`); 4 data, made at
//! the first start on what the disk has left. PID 1 is the agent's (`dayzero_agent::init::appliance`); there is no shell.
//! Invariants: no key, no address and no password is in the image; the master key is made at the first start, on the ESP,
//! not on the data partition. Updates are not done here yet; the appliance itself starts without Secure Boot.

use crate::cache::{Cache, Key};
use crate::cpio::Archive;
use crate::discovery::{Discovery, Packing, add_modules, pack};
use crate::disk::{self, Part};
use crate::error::{self, Error, Result};
use crate::host::HostImage;
use crate::modules::entries;
use crate::tiny::Template;
use crate::tool::Tool;
use crate::{agent, assets, debootstrap, elf, ext4, fat, grub};
use dayzero_model::install::PartitionRole;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const DISK: &str = "da7ae001-0000-4000-8000-000000000000";
/// Programs that `dayzero` and PID 1 call.
const PROGRAMS: [&str; 6] =
    ["sbin/e2fsck", "sbin/mke2fs", "sbin/sfdisk", "usr/bin/ipmitool", "usr/bin/sbsign", "usr/bin/sbverify"];
/// Where the ESP begins on the disk: after the table and GRUB for BIOS.
const ESP_AT: u64 = 2 * MIB;

/// What the appliance carries.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The static `dayzero` binary.
    pub dayzero: &'a Path,
    /// The static agent: PID 1.
    pub agent: &'a Path,
    /// What servers boot first; its kernel is the appliance's too.
    pub discovery: &'a Discovery,
    /// What they install.
    pub host: &'a HostImage,
    /// The guest template, for a first virtual machine.
    pub template: &'a Template,
    /// Bytes that the image leaves for the data partition; a larger disk gives more.
    pub data_bytes: u64,
}

/// A built appliance image.
#[derive(Clone, Debug)]
pub struct Appliance {
    /// The raw disk image (sparse).
    pub disk: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes of the initial RAM disk, packed.
    pub initrd: u64,
    /// Bytes of the partition with the boot files.
    pub files: u64,
    /// Key of the cache entry.
    pub key: String,
}

/// Builds the appliance's disk image.
///
/// # Errors
/// When a binary is no static x86-64 ELF file, the archive cannot be reached, or a tool fails.
pub fn build_appliance(cache: &Cache, parts: &Parts) -> Result<Appliance> {
    let program = agent::stripped(cache, parts.dayzero)?;
    let init = agent::stripped(cache, parts.agent)?;
    let (foreign, foreign_key) = debootstrap::appliance_programs(cache)?;
    let loaders = crate::ipxe::ipxe_loaders(cache)?;
    let key = Key::new("appliance", 3)
        .with("secure", &crate::secure::secure_loaders(cache)?.key)
        .with("ipxe", &loaders.key)
        .with("discovery", &parts.discovery.key)
        .with("host", &parts.host.key)
        .with("template", &parts.template.key)
        .with("foreign", &foreign_key)
        .with("grub", assets::APPLIANCE_GRUB)
        .with("serve", assets::APPLIANCE_SERVE)
        .with("network", assets::APPLIANCE_NETWORK)
        .with("data", parts.data_bytes.to_le_bytes())
        .with_file("dayzero", &program)?
        .with_file("init", &init)?;
    let directory = cache.entry("appliance", &key, |directory| {
        let scratch =
            tempfile::tempdir_in(directory).map_err(Error::io("cannot make a directory in", directory))?;
        cache.say("appliance", "packing the initial RAM disk");
        let initrd = directory.join("initrd");
        let kernel = &parts.discovery.kernel;
        let archive = userland(&foreign.join("root"), &program, &init, &kernel.modules, scratch.path())?;
        error::write(&initrd, pack(&archive.bytes(), Packing::Quick)?)?;
        cache.say("appliance", "making the disk");
        write_disk(cache, directory, scratch.path(), parts, &loaders.directory, &initrd)
    })?;
    cache.keep_newest("appliance", 2)?;
    Ok(Appliance {
        bytes: error::size(&directory.join("disk.raw"))?,
        initrd: error::size(&directory.join("initrd"))?,
        files: error::size(&directory.join("files.ext4"))?,
        disk: directory.join("disk.raw"),
        key: key.finish(),
    })
}

fn userland(foreign: &Path, dayzero: &Path, init: &Path, modules: &Path, scratch: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    for name in ["proc", "sys", "dev", "run", "tmp", "files", "esp", "data", "root", "var/lib", "etc/dayzero"]
    {
        archive.directory(name);
    }
    archive.device("dev/console", 0o600, 5, 1);
    archive.device("dev/null", 0o666, 1, 3);
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let content = error::read(&foreign.join(program))?;
        collect(foreign, program, &content, &mut archive, &mut libraries)?;
        archive.file(program, 0o755, content);
    }
    archive.file("init", 0o755, error::read(init)?);
    archive.file("usr/bin/dayzero", 0o755, error::read(dayzero)?);
    archive.file("etc/dayzero/serve.toml", 0o644, assets::APPLIANCE_SERVE);
    archive.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/false\n");
    archive.file("etc/group", 0o644, "root:x:0:\n");
    archive.file("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    add_modules(&mut archive, modules, assets::DISCOVERY_MODULES, &scratch.join("modules"))?;
    Ok(archive)
}

/// Adds the libraries that a program asks for, and those that these ask for.
fn collect(
    foreign: &Path,
    name: &str,
    content: &[u8],
    archive: &mut Archive,
    known: &mut BTreeSet<String>,
) -> Result<()> {
    let path = foreign.join(name);
    let wants = elf::wants(content).map_err(|reason| Error::malformed(&path, reason))?;
    for library in wants.libraries.into_iter().chain(wants.interpreter) {
        if !known.insert(library.clone()) {
            continue;
        }
        let file = library.rsplit('/').next().unwrap_or(&library);
        let places = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
            .map(|directory| format!("{directory}/{file}"));
        let Some(place) = places.iter().find(|place| foreign.join(place).exists()) else {
            return Err(Error::malformed(&path, format!("it asks for {library}, which no package brought")));
        };
        let content = error::read(&foreign.join(place))?;
        collect(foreign, place, &content, archive, known)?;
        // Under its soname: the loader looks for that, whatever the file behind is called.
        let target = if library.starts_with('/') { library.trim_start_matches('/') } else { place };
        archive.file(target, 0o755, content);
    }
    Ok(())
}

fn write_disk(
    cache: &Cache,
    directory: &Path,
    scratch: &Path,
    parts: &Parts,
    loaders: &Path,
    initrd: &Path,
) -> Result<()> {
    let guid = |part: u32| format!("da7ae001-0000-4000-8000-{part:012x}");
    let files = directory.join("files.ext4");
    boot_files(cache, &files, &scratch.join("files"), parts, loaders)?;

    let (loader, config) = (scratch.join("loader"), scratch.join("config"));
    error::write(&loader, grub::efi(scratch)?)?;
    error::write(&config, assets::APPLIANCE_GRUB.replace("@FILES_PARTUUID@", &guid(3)))?;
    let kernel = scratch.join("vmlinuz");
    error::copy(&parts.discovery.kernel.vmlinuz, &kernel)?;
    let (serve, network) = (scratch.join("serve.toml"), scratch.join("network.conf.example"));
    error::write(&serve, assets::APPLIANCE_SERVE)?;
    error::write(&network, assets::APPLIANCE_NETWORK)?;
    let esp = scratch.join("esp.fat");
    let items = [
        fat::Item::Directory("/EFI"),
        fat::Item::Directory("/EFI/BOOT"),
        fat::Item::Directory("/dayzero"),
        fat::Item::File("/EFI/BOOT/BOOTX64.EFI", &loader),
        fat::Item::File("/dayzero/grub.cfg", &config),
        fat::Item::File("/dayzero/vmlinuz", &kernel),
        fat::Item::File("/dayzero/initrd.img", initrd),
        fat::Item::File("/dayzero/serve.toml", &serve),
        fat::Item::File("/dayzero/network.conf.example", &network),
    ];
    fat::build(&esp, fat::LEAST, "DAYZEROAPPL", &items)?;
    let bios = grub::bios(scratch, "(,gpt2)/dayzero", None)?;
    let part =
        |number, gpt_type, name, bytes, content| Part { gpt_type, name, guid: guid(number), bytes, content };
    let list = [
        part(1, PartitionRole::BiosBoot.gpt_type(), "dayzero-bios", MIB, None),
        part(2, PartitionRole::Esp.gpt_type(), "dayzero-esp", fat::LEAST, Some(esp.as_path())),
        part(3, LINUX, "dayzero-files", error::size(&files)?, Some(files.as_path())),
    ];
    let disk = directory.join("disk.raw");
    disk::write(&disk, DISK, &list, &bios)?;
    disk::grow(&disk, parts.data_bytes)
}

/// Puts a file into `/dayzero` on the ESP of an appliance's disk, as a person does from any PC; one of that name is
/// replaced. The disk must not be in use.
///
/// # Errors
/// When mtools cannot write there.
pub fn put_on_esp(disk: &Path, name: &str, content: &str) -> Result<()> {
    let scratch =
        tempfile::NamedTempFile::new().map_err(Error::io("cannot make a file in", Path::new("/tmp")))?;
    error::write(scratch.path(), content)?;
    Tool::new("mcopy")
        .args(["-o", "-i"])
        .arg(format!("{}@@{ESP_AT}", error::text(disk)?))
        .arg(scratch.path())
        .arg(format!("::/dayzero/{name}"))
        .run("writing a file to the appliance's ESP")
        .map(drop)
}

/// The read-only partition: what hosts boot and install.
fn boot_files(cache: &Cache, image: &Path, staging: &Path, parts: &Parts, loaders: &Path) -> Result<()> {
    error::make_dir(&staging.join("template"))?;
    let copy = |from: &Path, to: &str| {
        Tool::new("cp")
            .args(["-rL", "--reflink=auto"])
            .arg(from)
            .arg(staging.join(to))
            .run("gathering boot files")
            .map(drop)
    };
    copy(&parts.discovery.kernel.vmlinuz, "vmlinuz")?;
    copy(&parts.discovery.initrd, "initrd")?;
    copy(&parts.host.directory, "host")?;
    copy(&parts.template.disk, "template/tiny.raw")?;
    copy(loaders, "ipxe")?;
    let discovery = parts.discovery;
    let secure = staging.join("secure");
    crate::secure::put_secure_files(cache, &discovery.kernel.vmlinuz, &discovery.initrd, &secure)?;
    let used =
        Tool::new("du").args(["-sm", "--apparent-size"]).arg(staging).text("measuring the boot files")?;
    let used: u64 = used.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    // Room for the inodes, the bitmaps and the last block of each file.
    let bytes = (used + used / 10 + 32) * MIB;
    ext4::build(image, bytes, 0, "dayzero-files", staging)
}

/// The names of the foreign packages, for `debootstrap`.
pub(crate) fn packages() -> Vec<&'static str> {
    entries(assets::APPLIANCE_PACKAGES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_holds_no_shell() {
        assert!(!packages().iter().any(|name| {
            ["busybox", "bash", "dash", "openssh", "login"].iter().any(|bad| name.contains(bad))
        }));
        assert!(PROGRAMS.iter().all(|program| !program.ends_with("sh")));
    }

    #[test]
    fn the_example_of_network_conf_sets_nothing() {
        assert!(assets::APPLIANCE_NETWORK.lines().all(|line| line.is_empty() || line.starts_with('#')));
        assert!(
            assets::APPLIANCE_GRUB.contains(" gpt "),
            "the kernel must believe the second partition table too"
        );
    }
}
