//! A whole installation: the right disk, judged and permitted; content, personality, table, boot sector, boot entry.
//!
//! Invariants: nothing is written before disk, consent and manifest are all accepted; the disk can start only after
//! everything else is on it. It does not load kernel modules and does not restart the machine.

use crate::block::{Access, Device};
use crate::disks::{self, FoundDisk};
use crate::efi::{self, Loader};
use crate::error::StorageError;
use crate::finding;
use crate::manifest;
use crate::personalise::{Identity, Mounted, personalise};
use crate::source::{ChunkSource, Http, HttpChunks};
use crate::writer::{Writer, Written, blocking};
use dayzero_model::ids::Sha256;
use dayzero_model::install::{
    ImageManifest, InstallOrder, InstallReport, PartitionRole, Personality, set_ext4_uuid,
};
use dayzero_model::units::Bytes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

pub use crate::personalise::Credentials;
pub use crate::writer::Progress;

/// Where partitions are mounted while they are personalised.
const MOUNTS: &str = "/run/dayzero/install";
/// The loader on the ESP, as the host image has it; the same lies at the removable path.
const LOADER: &str = "\\EFI\\dayzero\\grubx64.efi";

/// Carries out an order: finds and judges the disk, fetches the image by HTTP, writes, personalises, finishes.
///
/// # Errors
/// See the codes of [`StorageError`]; with `foreign-disk` nothing was written.
pub async fn install(
    order: &InstallOrder,
    credentials: &Credentials,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<InstallReport, StorageError> {
    let start = Instant::now();
    let step = |what: &str| progress(Progress { what: what.to_owned(), done: 0, total: 0 });
    step("looking at the disk");
    let wanted = order.clone();
    let disk = blocking(move || permitted(&wanted)).await?;
    step("fetching the manifest");
    let http = Http::for_url(&order.manifest_url, &credentials.ca_pem)?;
    let bytes = http.get(&order.manifest_url, manifest::MAX).await?;
    let manifest = manifest::read(&bytes, &order.manifest_sha256, &order.manifest_url)?;
    let source = HttpChunks::new(http, &order.chunks_url);
    install_on(&disk, order, manifest, &source, credentials, progress).await.map(|report| InstallReport {
        millis: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..report
    })
}

/// The disk of the order, if it may be written.
///
/// # Errors
/// `disk-missing`, `disk-ambiguous`, `disk-unfit` or `foreign-disk`.
pub fn permitted(order: &InstallOrder) -> Result<FoundDisk, StorageError> {
    let disks = disks::enumerate()?;
    let disk = disks::select(&disks, &order.disk)?;
    let inspection = finding::inspect(disk)?;
    if let Some(consent) = &order.consent
        && consent.host != order.personality.host
    {
        let why = format!("the consent given is for host {}", consent.host);
        finding::permit(&inspection, None)
            .map_err(|_| StorageError::ForeignDisk { finding: Box::new(inspection.finding.clone()), why })?;
    }
    finding::permit(&inspection, order.consent.as_ref())?;
    Ok(disk.clone())
}

async fn install_on(
    disk: &FoundDisk,
    order: &InstallOrder,
    manifest: ImageManifest,
    source: &dyn ChunkSource,
    credentials: &Credentials,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<InstallReport, StorageError> {
    let step = |what: &str| progress(Progress { what: what.to_owned(), done: 0, total: 0 });
    let identity = Arc::new(Identity::new(&order.personality)?);
    let (path, manifest, plan) = (disk.path.clone(), Arc::new(manifest), order.plan_hash);
    let host_files = manifest.clone();
    let writer = blocking(move || {
        // Exclusively: a disk that is mounted, or a member of something that runs, is refused here.
        let writer = Writer::begin(Arc::new(Device::open(&path, Access::Exclusive)?), manifest, plan)?;
        writer.forget_partitions()?;
        Ok(writer)
    })
    .await?;
    let written = writer.content(source, progress).await?;
    step("making the host itself");
    let own = Own {
        disk: disk.path.clone(),
        personality: order.personality.clone(),
        identity: identity.clone(),
        credentials: credentials.clone(),
        manifest: host_files,
    };
    let writer = blocking(move || own.write(writer)).await?;
    step("writing partition table, boot sector and boot entry");
    let path = disk.path.clone();
    let (guid, boot_entries) = blocking(move || finish(writer, &path)).await?;
    Ok(report(disk, order, written, &identity, guid, boot_entries))
}

/// Table and boot sector, then the firmware's entry.
fn finish(writer: Writer, disk: &Path) -> Result<(Uuid, Vec<String>), StorageError> {
    let esp = writer.place(PartitionRole::Esp).map(|(number, place)| (number, place.clone()));
    let sector = writer.sector();
    let table = writer.finish()?;
    if let Ok(device) = Device::open(disk, Access::Look) {
        device.reread_partitions();
    }
    let entries = match esp {
        Some((number, place)) if Path::new("/sys/firmware/efi").exists() => {
            let loader = Loader {
                partition: number as u32,
                guid: place.guid,
                start: place.start / sector,
                blocks: place.length / sector,
                path: LOADER.to_owned(),
            };
            firmware_entry(&loader)?
        }
        _ => Vec::new(),
    };
    Ok((table.disk, entries))
}

/// What one installation writes into its partitions.
struct Own {
    disk: PathBuf,
    personality: Personality,
    identity: Arc<Identity>,
    credentials: Credentials,
    manifest: Arc<ImageManifest>,
}

impl Own {
    fn write(&self, mut writer: Writer) -> Result<Writer, StorageError> {
        own_ids(&writer, &self.identity)?;
        // A partition cannot be mounted while its disk is held.
        writer.reopen(Access::Direct)?;
        for role in [PartitionRole::Esp, PartitionRole::Root] {
            self.partition(&writer, role)?;
        }
        Ok(writer)
    }

    fn partition(&self, writer: &Writer, role: PartitionRole) -> Result<(), StorageError> {
        let (Some((number, place)), Some((_, root))) =
            (writer.place(role), writer.place(PartitionRole::Root))
        else {
            return Ok(());
        };
        // Kernel numbers are small: a manifest has three partitions.
        let kernel_number = number as i32;
        writer.device().show_partition(kernel_number, place.start, place.length)?;
        let mounted = Mount::new(&node(&self.disk, number), role);
        let result = mounted.and_then(|mounted| {
            let at = Mounted { role, at: &mounted.at };
            let files = &self.manifest.host_files;
            personalise(&at, files, &self.personality, &self.identity, &root.guid, &self.credentials)?;
            mounted.end()
        });
        let hidden = writer.device().hide_partition(kernel_number);
        result.and(hidden)
    }
}

fn report(
    disk: &FoundDisk,
    order: &InstallOrder,
    written: Written,
    identity: &Identity,
    guid: Uuid,
    boot_entries: Vec<String>,
) -> InstallReport {
    let wwn = || disk.disk.wwn.as_ref().map(ToString::to_string);
    InstallReport {
        disk: disk.disk.serial.clone().or_else(wwn).unwrap_or_default(),
        manifest_sha256: order.manifest_sha256,
        chunks_verified: written.chunks,
        chunks_zero: written.zero,
        bytes_written: Bytes(written.bytes),
        disk_guid: guid.to_string(),
        root_uuid: identity.root_uuid.to_string(),
        machine_id: identity.machine_id.clone(),
        initiator: identity.initiator.clone(),
        ssh_host_key: Sha256::of(&identity.ssh.blob),
        boot_entries,
        millis: 0,
    }
}

/// Gives the root file system its UUID and the ESP its volume id, on the disk itself.
pub(crate) fn own_ids(writer: &Writer, identity: &Identity) -> Result<(), StorageError> {
    let device = writer.device();
    if let Some((_, place)) = writer.place(PartitionRole::Root) {
        let at = place.start + 1024;
        let mut superblock = [0; 1024];
        let mut block = crate::block::Aligned::new(4096);
        device.read(place.start, block.bytes_mut())?;
        superblock.copy_from_slice(&block.bytes()[1024..2048]);
        set_ext4_uuid(&mut superblock, *identity.root_uuid.as_bytes()).map_err(StorageError::Manifest)?;
        device.patch(at, &superblock)?;
    }
    if let Some((_, place)) = writer.place(PartitionRole::Esp) {
        let mut block = crate::block::Aligned::new(4096);
        device.read(place.start, block.bytes_mut())?;
        let id = identity.volume_id.to_le_bytes();
        // The boot sector of FAT32 has a copy, by its own word at sector 6 (MS-FAT section 3.3).
        if &block.bytes()[82..87] == b"FAT32" {
            device.patch(place.start + 67, &id)?;
            let copy = u64::from(u16::from_le_bytes([block.bytes()[50], block.bytes()[51]]));
            if (1..32).contains(&copy) {
                device.patch(place.start + copy * 512 + 67, &id)?;
            }
        } else if &block.bytes()[54..57] == b"FAT" {
            device.patch(place.start + 39, &id)?;
        }
    }
    device.sync()?;
    device.drop_cache();
    Ok(())
}

/// `/dev/vda2`, `/dev/nvme0n1p2`.
fn node(disk: &Path, number: usize) -> PathBuf {
    let text = disk.to_string_lossy();
    let separator = if text.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{text}{separator}{number}"))
}

/// A mounted partition; unmounted at the end, whatever happens.
struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    fn new(node: &Path, role: PartitionRole) -> Result<Self, StorageError> {
        let (name, kind) = match role {
            PartitionRole::Esp => ("esp", "vfat"),
            _ => ("root", "ext4"),
        };
        let at = Path::new(MOUNTS).join(name);
        std::fs::create_dir_all(&at).map_err(StorageError::io("making", &at))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some(node), &at, Some(kind), flags, None::<&str>).map_err(|e| {
            StorageError::io(&format!("mounting {} ({kind}) at", node.display()), &at)(e.into())
        })?;
        Ok(Self { at, mounted: true })
    }

    fn end(mut self) -> Result<(), StorageError> {
        self.mounted = false;
        umount2(&self.at, MntFlags::empty()).map_err(|e| StorageError::io("unmounting", &self.at)(e.into()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        }
    }
}

fn firmware_entry(loader: &Loader) -> Result<Vec<String>, StorageError> {
    let vars = Path::new(efi::EFIVARS);
    efi::mounted(vars)?;
    efi::install(vars, loader)
}
