//! The appliance's own disk: found by the GUID of the partition that its boot loader named, its data partition made at the
//! first start, its file systems mounted.
//!
//! Invariants: only the disk that holds that partition is ever written to; two disks that hold it are a fault, not a
//! choice; a data partition that holds a file system is checked and never made anew; every step may be cut off by a
//! loss of power, and is begun again at the next start.

use super::Fault;
use dayzero_storage::block::{Access, Device};
use dayzero_storage::gpt;
use nix::mount::MsFlags;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The partition with the boot files, read-only.
pub(crate) const FILES: &str = "/files";
/// The EFI partition: what a person may edit, and the master key.
pub(crate) const ESP: &str = "/esp";
/// What `dayzero serve` keeps.
pub(crate) const DATA: &str = "/data";
const DATA_NAME: &str = "dayzero-data";
const BLOCK: &str = "/sys/class/block";
/// How long the kernel may take to show a new partition.
const APPEARS: Duration = Duration::from_secs(10);

/// A partition of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    name: String,
    guid: String,
    device: PathBuf,
}

/// The disk and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    device: PathBuf,
    parts: Vec<Part>,
}

impl Disk {
    /// The disk whose partition has this GUID; none while there is none.
    ///
    /// # Errors
    /// Two disks have it.
    pub(crate) fn find(guid: &str) -> Result<Option<Self>, Fault> {
        let mut found: Vec<Self> = disks().iter().filter_map(|name| read(name)).collect();
        found.retain(|disk| disk.parts.iter().any(|part| part.guid.eq_ignore_ascii_case(guid)));
        match found.as_slice() {
            [] => Ok(None),
            [_] => Ok(found.pop()),
            several => {
                let names: Vec<_> = several.iter().map(|disk| disk.device.display().to_string()).collect();
                let what = format!("{} are copies of one appliance disk", names.join(" and "));
                Err(Fault::new(what, "take all but one out, then restart"))
            }
        }
    }

    fn part(&self, name: &str) -> Option<&Path> {
        self.parts.iter().find(|part| part.name == name).map(|part| part.device.as_path())
    }

    /// Makes the data partition if it is missing, and mounts all three.
    ///
    /// # Errors
    /// What a person must look at; nothing that holds data was changed.
    pub(crate) fn mount(mut self) -> Result<(), Fault> {
        if self.part(DATA_NAME).is_none() {
            self = self.with_data_partition()?;
        }
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        let missing = |name: &str| {
            let what = format!("{} has no partition '{name}'", self.device.display());
            Fault::new(what, "write the appliance's image to it anew; its data partition is lost then")
        };
        let files = self.part("dayzero-files").ok_or_else(|| missing("dayzero-files"))?;
        mount(files, FILES, "ext4", plain | MsFlags::MS_RDONLY, None)?;
        let esp = self.part("dayzero-esp").ok_or_else(|| missing("dayzero-esp"))?;
        // FAT keeps no modes: everything on it is for root alone.
        mount(esp, ESP, "vfat", plain, Some("umask=077"))?;
        let data = self.part(DATA_NAME).ok_or_else(|| missing(DATA_NAME))?;
        if has_file_system(data)? {
            check(data)?;
        } else {
            run(Command::new("/sbin/mke2fs").args(["-q", "-F", "-t", "ext4", "-L", DATA_NAME]).arg(data))
                .map_err(|said| {
                    Fault::new(format!("no file system could be made on {}: {said}", data.display()), DISK)
                })?;
        }
        mount(data, DATA, "ext4", plain, None)
    }

    /// The rest of the disk becomes the data partition.
    fn with_data_partition(self) -> Result<Self, Fault> {
        // The image may have been smaller than the disk: the second partition table belongs to its end.
        let _as_it_is = run(sfdisk(&self.device).args(["--relocate", "gpt-bak-std"]));
        let script = format!("type=linux, name=\"{DATA_NAME}\"\n");
        run_with(sfdisk(&self.device).arg("--append"), &script).map_err(|said| {
            let what = format!("no data partition could be made on {}: {said}", self.device.display());
            Fault::new(what, "the disk must be larger than the image, by a GiB or more")
        })?;
        let name = self.device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let until = Instant::now() + APPEARS;
        loop {
            match read(&name) {
                Some(disk) if disk.part(DATA_NAME).is_some_and(Path::exists) => return Ok(disk),
                _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                _ => {
                    let what = format!("the new data partition of {} does not appear", self.device.display());
                    return Err(Fault::new(what, "restart; if that does not help, the disk is broken"));
                }
            }
        }
    }
}

const DISK: &str = "look at the disk: nothing on it was changed";

/// From now on nothing on the EFI partition is written: a loss of power cannot harm it.
pub(crate) fn seal_esp() {
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME;
    if let Err(error) = nix::mount::mount(None::<&str>, ESP, None::<&str>, flags, Some("umask=077")) {
        tracing::warn!("the EFI partition stays writable: {error}");
    }
}

/// Flushes and unmounts what can be unmounted.
pub(crate) fn unmount() {
    nix::unistd::sync();
    for target in [DATA, ESP, FILES] {
        if nix::mount::umount(target).is_err() {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            let _ = nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>);
        }
    }
    nix::unistd::sync();
}

fn sfdisk(device: &Path) -> Command {
    let mut command = Command::new("/sbin/sfdisk");
    command.arg("--quiet").arg(device);
    command
}

/// Whole disks, by kernel name.
fn disks() -> Vec<String> {
    let entries = std::fs::read_dir(BLOCK).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let no_disk = ["loop", "ram", "zram", "sr", "fd", "dm-", "md"];
    let mut names: Vec<String> = names
        .filter(|name| !no_disk.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !Path::new(BLOCK).join(name).join("partition").exists())
        .collect();
    names.sort();
    names
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A disk's table, with the kernel's device of each partition.
fn read(name: &str) -> Option<Disk> {
    let device = Path::new("/dev").join(name);
    let directory = Path::new(BLOCK).join(name);
    let sector = number(&directory.join("queue/logical_block_size"))?;
    let table = gpt::read(&Device::open(&device, Access::Look).ok()?, sector).ok()??;
    let mut known = Vec::new();
    for entry in std::fs::read_dir(&directory).ok()?.flatten() {
        // In sectors of 512 bytes, whatever the disk's are.
        if let Some(start) =
            number(&entry.path().join("start")).filter(|_| entry.path().join("partition").exists())
        {
            known.push((start * 512, Path::new("/dev").join(entry.file_name())));
        }
    }
    let parts = table.partitions.into_iter().filter_map(|partition| {
        let (_, device) = known.iter().find(|(start, _)| *start == partition.start)?;
        Some(Part { name: partition.name, guid: partition.guid.to_string(), device: device.clone() })
    });
    Some(Disk { device, parts: parts.collect() })
}

/// The magic number of an ext superblock; mke2fs writes it last.
fn has_file_system(device: &Path) -> Result<bool, Fault> {
    let opened = Device::open(device, Access::Look).and_then(|open| open.read_some(1024 + 56, 2));
    let magic =
        opened.map_err(|error| Fault::new(format!("{} cannot be read: {error}", device.display()), DISK))?;
    Ok(magic == [0x53, 0xef])
}

/// Repairs what a loss of power leaves (e2fsck(8): 0 sound, 1 repaired).
fn check(device: &Path) -> Result<(), Fault> {
    let output = Command::new("/sbin/e2fsck").arg("-p").arg(device).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Fault::new(format!("e2fsck does not start: {error}"), DISK))?;
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        code => {
            let said = last_line(&output.stdout, &output.stderr);
            let what =
                format!("the data partition {} is damaged (e2fsck: {code:?}): {said}", device.display());
            Err(Fault::new(
                what,
                "copy the partition, then run `e2fsck -y` on it at another machine, or restore your backup",
            ))
        }
    }
}

fn mount(
    device: &Path,
    target: &str,
    kind: &str,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Fault> {
    let made = std::fs::create_dir_all(target);
    let done = made.and_then(|()| Ok(nix::mount::mount(Some(device), target, Some(kind), flags, options)?));
    done.map_err(|error| {
        Fault::new(format!("{} cannot be mounted on {target}: {error}", device.display()), DISK)
    })
}

fn last_line(stdout: &[u8], stderr: &[u8]) -> String {
    let text = [stderr, b"\n", stdout].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    lines.join("; ").chars().take(300).collect()
}

/// Runs a program to its end; the error is what it said.
fn run(command: &mut Command) -> Result<(), String> {
    run_with(command, "")
}

fn run_with(command: &mut Command, input: &str) -> Result<(), String> {
    use std::io::Write;
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let done = spawned.and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(last_line(&output.stdout, &output.stderr)),
        Err(error) => Err(format!("{}: {error}", command.get_program().to_string_lossy())),
    }
}
