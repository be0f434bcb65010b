//! Storage of a host: which disk is which, what is on it, writing an image to it, and shared storage by iSCSI,
//! multipath and LVM.
//!
//! What a user of this crate calls. In the discovery image (no external programs):
//! - `disks::enumerate() -> Result<Vec<FoundDisk>, StorageError>`, `FoundDisk::disk` is the model's `Disk` with signatures;
//! - `disks::select(&[FoundDisk], &DiskSelector) -> Result<&FoundDisk, StorageError>`: exactly one, local, not multipath;
//! - `finding::inspect(&FoundDisk) -> Result<Inspection, StorageError>`: `Inspection { finding: DiskFinding, ours: bool }`;
//! - `install::install(&InstallOrder, &Credentials, &dyn Fn(Progress)) -> Result<InstallReport, StorageError>`: consent, manifest, writing,
//!   personality, boot entry; all of it. `Credentials { key_pem: Secret<String>, certificate_pem, ca_pem }` are what the installed agent starts with.
//!
//! On an installed host (`iscsiadm`, `multipathd`, `lvm` by fixed argument lists, never a shell):
//! - `luns::connect(&[LunSpec]) -> Vec<LunReport>` (idempotent; run at each boot) and `luns::report(&[LunSpec]) -> Vec<LunReport>`;
//! - `luns::device(&Wwn) -> PathBuf`: the multipath device of a LUN;
//! - `lvm::make_group(&Name, &Path, &Sha256) -> Result<(), StorageError>`, `lvm::create(&VolumeSpec, &Path, &Sha256)` (elected host only);
//! - `lvm::activate(&VolumeSpec, &Path) -> Result<PathBuf, StorageError>` and `lvm::deactivate` (the using host), and before
//!   it is overwritten `lvm::may_overwrite(&VolumeSpec, &Path, &Sha256) -> Result<(), StorageError>`;
//! - `fill::fill(&Path, url, &Sha256) -> Result<Sha256, StorageError>`: template by HTTP into a volume, read back;
//! - `proof::Writer::start(&Path) -> Result<Writer, StorageError>`, `.progress()`, `.verify()`, `.stop() -> WriterProgress`.
//!
//! `AgentError` is made from a [`StorageError`] by `From`, with its stable code.

pub mod block;
pub mod disks;
pub mod efi;
pub mod error;
pub mod fill;
pub mod finding;
pub mod gpt;
pub mod install;
pub mod iscsi;
pub mod luns;
pub mod lvm;
pub mod manifest;
pub mod marker;
pub mod multipath;
pub mod personalise;
pub mod proof;
pub mod source;
pub mod sshkey;
pub mod startup;
#[cfg(test)]
mod testing;
pub mod tool;
pub mod writer;

pub use error::StorageError;
