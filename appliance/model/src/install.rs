//! Installing a host's operating system from an image: manifest, disk consent, personality.

use crate::ids::{HostName, Sha256, Wwn};
use crate::network::HostNetwork;
use crate::site::DiskSelector;
use crate::units::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

/// A host image: partitions as compressed, hashed chunks, and what makes it bootable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// Format version of this manifest: 1.
    pub format: u32,
    /// Image name, such as `kvm-debian12`.
    pub name: String,
    /// Kernel release in it.
    pub kernel: String,
    /// Partitions in disk order; the n-th has number n in the GPT (GRUB's BIOS core counts on the ESP as number 2).
    /// The BIOS boot partition has no chunks: its content is `bios.core_img`.
    pub partitions: Vec<PartitionImage>,
    /// Code for BIOS boot.
    pub bios: BiosBoot,
    /// Kernel command line without `root=`.
    pub cmdline: String,
    /// Path of kernel and initrd inside the root filesystem.
    pub kernel_path: String,
    /// Path of the initrd inside the root filesystem.
    pub initrd_path: String,
    /// Files that the installer writes on top, once a partition's chunks are there and verified.
    #[serde(default)]
    pub host_files: Vec<HostFile>,
}

/// A file that is each host's own, written by the installer into the mounted partition (FAT: `vfat`, root: `ext4`).
/// GRUB is loaded from the ESP of its own disk and reads `/dayzero/grub.cfg`, kernel and initrd there, so that other
/// disks with the same image never matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// The partition that it goes to.
    pub partition: PartitionRole,
    /// Absolute path inside that partition; its directory exists.
    pub path: String,
    /// Permission bits, such as 0o644 (FAT has none).
    pub mode: u32,
    /// Content with placeholders: `@HOSTNAME@` (short name), `@FQDN@`, `@MACHINE_ID@` (32 hex digits), `@INITIATOR@`
    /// (iSCSI name), `@ROOT_PARTUUID@` (GPT GUID of the root partition, lower case), `@ROOT_UUID@` (filesystem UUID).
    pub content: String,
}

/// Gives an ext4 filesystem its own UUID by its first superblock (the 1024 bytes at offset 1024 of the partition).
/// Images are made with `metadata_csum` and `metadata_csum_seed`, so that no other block depends on the UUID; the
/// superblock's own CRC-32C is made anew. Backup superblocks get it when the filesystem is grown.
///
/// # Errors
/// A sentence, if these bytes are no ext4 superblock with both features; nothing is changed then.
pub fn set_ext4_uuid(superblock: &mut [u8; 1024], uuid: [u8; 16]) -> Result<(), String> {
    const UUID: usize = 0x68;
    const CHECKSUM: usize = 0x3fc;
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| superblock[at + i]));
    if superblock[0x38..0x3a] != [0x53, 0xef] {
        return Err("no ext4 filesystem: the magic number 0xef53 is missing at offset 0x438".to_owned());
    }
    let (incompatible, read_only_compatible) = (word(0x60), word(0x64));
    if incompatible & 0x2000 == 0 || read_only_compatible & 0x400 == 0 {
        return Err(format!(
            "the ext4 filesystem lacks metadata_csum_seed or metadata_csum (features {incompatible:#x}, \
             {read_only_compatible:#x}), so its UUID cannot be changed in the superblock alone"
        ));
    }
    superblock[UUID..UUID + 16].copy_from_slice(&uuid);
    let mut crc = u32::MAX;
    for byte in &superblock[..CHECKSUM] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    superblock[CHECKSUM..].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionRole {
    /// GRUB's core image under BIOS (type 21686148-…).
    BiosBoot,
    /// EFI system partition (FAT).
    Esp,
    /// Root filesystem (ext4); grows to the end of the disk.
    Root,
}

impl PartitionRole {
    /// GPT partition type GUID (UEFI 2.10 section 5.3.3; Discoverable Partitions Specification for the root on x86-64).
    pub fn gpt_type(self) -> &'static str {
        match self {
            Self::BiosBoot => "21686148-6449-6e6f-744e-656564454649",
            Self::Esp => "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            Self::Root => "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        }
    }

    /// GPT partition name.
    pub fn gpt_name(self) -> &'static str {
        match self {
            Self::BiosBoot => "dayzero-bios",
            Self::Esp => "dayzero-esp",
            Self::Root => "dayzero-root",
        }
    }
}

/// One partition's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionImage {
    /// Role.
    pub role: PartitionRole,
    /// Least size of the partition on the disk; content may be shorter.
    pub size: Bytes,
    /// Uncompressed length of the content.
    pub content: Bytes,
    /// Bytes of each chunk before compression (the last may be shorter).
    pub chunk_size: u32,
    /// Chunks in order.
    pub chunks: Vec<Chunk>,
}

/// One chunk: zeros, or a zstd frame in `chunks/<first two digits>/<blake3 of the uncompressed content>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Chunk {
    /// All zero.
    Zero,
    /// Content.
    Data {
        /// blake3 of the uncompressed content, hex.
        blake3: String,
        /// Compressed length.
        compressed: u32,
    },
}

/// GRUB for BIOS: the first 440 bytes of the disk, and the core image for the BIOS boot partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiosBoot {
    /// boot.img, base64; the writer patches the core image's LBA at 0x5c (u64 LE) and two NOPs at 0x66.
    pub boot_img: String,
    /// core.img, base64; the writer patches its own blocklist at 500 (LBA+1 u64, sectors-1 u16, segment 0x820 u16).
    pub core_img: String,
}

/// What was found on a disk that is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFinding {
    /// Serial of the disk.
    pub serial: Option<String>,
    /// Its WWN.
    pub wwn: Option<Wwn>,
    /// Signatures and data found, as sentences; sorted.
    pub found: Vec<String>,
    /// SHA-256 over serial, WWN and `found`: what a consent names.
    pub digest: Sha256,
}

impl DiskFinding {
    /// A finding with its digest.
    pub fn new(serial: Option<String>, wwn: Option<Wwn>, mut found: Vec<String>) -> Self {
        found.sort();
        let text = format!("{serial:?}\n{wwn:?}\n{found:?}");
        Self { serial, wwn, digest: Sha256::of(text.as_bytes()), found }
    }
}

/// A person's consent to wipe one disk with what was found on it; used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConsent {
    /// The host.
    pub host: HostName,
    /// Serial (or WWN) of the disk that it names.
    pub serial: String,
    /// Digest of the finding that was shown.
    pub finding: Sha256,
    /// Who gave it.
    pub given_by: String,
    /// When.
    pub given_at: Timestamp,
}

/// Order to write an image to a disk. Destructive: carries plan hash, disk and consent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallOrder {
    /// Hash of the plan it follows from.
    pub plan_hash: Sha256,
    /// The disk.
    pub disk: DiskSelector,
    /// Consent, where the disk holds foreign data.
    pub consent: Option<DiskConsent>,
    /// URL of the manifest.
    pub manifest_url: String,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: Sha256,
    /// URL under which `chunks/…` lie.
    pub chunks_url: String,
    /// What makes this host itself.
    pub personality: Personality,
}

/// What makes an installed host itself. Keys, GUIDs and machine id are made on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Personality {
    /// Host name.
    pub host: HostName,
    /// DNS domain.
    pub domain: String,
    /// Address and port of the agents' listener.
    pub agent_server: std::net::SocketAddr,
    /// Network, applied at each boot before anything needs it.
    pub network: HostNetwork,
}

/// What the installation did, read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// Serial (or WWN) of the written disk.
    pub disk: String,
    /// SHA-256 of the manifest that was followed.
    pub manifest_sha256: Sha256,
    /// Chunks written and verified.
    pub chunks_verified: u64,
    /// Chunks of zeros, not transferred.
    pub chunks_zero: u64,
    /// Bytes written.
    pub bytes_written: Bytes,
    /// GPT disk GUID, made on the host.
    pub disk_guid: String,
    /// Filesystem UUID of the root, made on the host.
    pub root_uuid: String,
    /// Machine id, made on the host.
    pub machine_id: String,
    /// iSCSI initiator name, made on the host.
    pub initiator: String,
    /// SHA-256 of the SSH host public key.
    pub ssh_host_key: Sha256,
    /// Firmware's boot order as the installer left it, as text (UEFI); empty with BIOS. What the firmware made of it shows
    /// after the restart: [`crate::startup::StartReport`].
    pub boot_entries: Vec<String>,
    /// Seconds x 1000 that writing took, by the host's clock.
    pub millis: u64,
}
