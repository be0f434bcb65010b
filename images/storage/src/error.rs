//! Why a storage operation failed, with the stable code that the appliance acts on.

use dayzero_model::install::DiskFinding;
use dayzero_model::wire::AgentError;
use std::path::Path;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done, with the device or file.
        what: String,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// No disk is what the order names.
    #[error("no disk of this host is {wanted}; it has {present}")]
    DiskMissing {
        /// Selector as text.
        wanted: String,
        /// Disks that are there, as text.
        present: String,
    },
    /// Several disks are what the order names.
    #[error("{wanted} names more than one disk: {matches}")]
    DiskAmbiguous {
        /// Selector as text.
        wanted: String,
        /// Disks that fit.
        matches: String,
    },
    /// The disk can be reached by other hosts, or is busy, or is too small, or cannot be written.
    #[error("disk {disk} cannot be the operating system's: {why}")]
    DiskUnfit {
        /// Disk, as text.
        disk: String,
        /// Why.
        why: String,
    },
    /// The disk holds what is not ours, and no consent covers it.
    #[error("disk {} holds foreign data and {why}", name_of(finding))]
    ForeignDisk {
        /// What was found.
        finding: Box<DiskFinding>,
        /// What is wrong with the consent.
        why: String,
    },
    /// A manifest that cannot be followed.
    #[error("the image manifest cannot be followed: {0}")]
    Manifest(String),
    /// A file has another digest than the order says.
    #[error("{what} has another SHA-256 than the order says")]
    Digest {
        /// File, by its URL.
        what: String,
        /// Digest of the order.
        expected: String,
        /// Digest of what came.
        observed: String,
    },
    /// A chunk's content is not what its name says.
    #[error("chunk {index} of partition {partition} is corrupt")]
    ChunkCorrupt {
        /// Number of the chunk, from 0.
        index: usize,
        /// Partition's name.
        partition: String,
        /// BLAKE3 of the manifest.
        expected: String,
        /// What came: a hash, or why it cannot be unpacked.
        observed: String,
    },
    /// What was read back is not what was written.
    #[error("{what} reads back wrong")]
    ReadBack {
        /// What was written.
        what: String,
        /// Hash that was written.
        expected: String,
        /// Hash that was read.
        observed: String,
    },
    /// A download failed for good.
    #[error("cannot fetch {url}: {reason}")]
    Fetch {
        /// URL.
        url: String,
        /// Last reason.
        reason: String,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {message}")]
    Tool {
        /// Program with its arguments.
        program: String,
        /// Exit status.
        status: String,
        /// Last lines of its error output.
        message: String,
    },
    /// Something did not come about in time.
    #[error("{what} did not come within {seconds} s; last seen: {seen}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// Last observation.
        seen: String,
    },
    /// Shared storage is not as it must be.
    #[error("{sentence}")]
    Wrong {
        /// Stable word, such as `foreign-lun`, `template-corrupt`, `no-such-nic`.
        code: &'static str,
        /// One sentence.
        sentence: String,
        /// What was expected.
        expected: String,
        /// What was observed.
        observed: String,
    },
    /// A volume or volume group is not as it is asked for.
    #[error("{what} is not as planned")]
    Volume {
        /// Volume or group.
        what: String,
        /// As planned.
        expected: String,
        /// As it is.
        observed: String,
    },
}

fn name_of(finding: &DiskFinding) -> String {
    let wwn = || finding.wwn.as_ref().map(ToString::to_string);
    finding.serial.clone().or_else(wwn).unwrap_or_else(|| "without serial".to_owned())
}

impl StorageError {
    /// From an I/O error at a path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }

    /// Shared storage that is not as it must be.
    pub(crate) fn wrong(
        code: &'static str,
        sentence: impl Into<String>,
        expected: impl Into<String>,
        observed: impl Into<String>,
    ) -> Self {
        Self::Wrong { code, sentence: sentence.into(), expected: expected.into(), observed: observed.into() }
    }

    /// The stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::DiskMissing { .. } => "disk-missing",
            Self::DiskAmbiguous { .. } => "disk-ambiguous",
            Self::DiskUnfit { .. } => "disk-unfit",
            Self::ForeignDisk { .. } => "foreign-disk",
            Self::Manifest(_) => "manifest-bad",
            Self::Digest { .. } => "digest",
            Self::ChunkCorrupt { .. } => "chunk-corrupt",
            Self::ReadBack { .. } => "read-back",
            Self::Fetch { .. } => "fetch",
            Self::Tool { .. } => "tool",
            Self::Timeout { .. } => "timeout",
            Self::Wrong { code, .. } => code,
            Self::Volume { .. } => "volume",
        }
    }
}

impl From<crate::tool::ToolError> for StorageError {
    fn from(error: crate::tool::ToolError) -> Self {
        use crate::tool::ToolError;
        match error {
            ToolError::Start { program, source } => Self::Io { what: format!("starting {program}"), source },
            ToolError::TimedOut { program, seconds } => Self::Timeout {
                what: format!("the end of {program}"),
                seconds,
                seen: "it still ran, and was killed".to_owned(),
            },
            ToolError::Failed { program, args, status, message } => {
                Self::Tool { program: format!("{program} {args}"), status, message }
            }
        }
    }
}

impl From<StorageError> for AgentError {
    fn from(error: StorageError) -> Self {
        let (code, sentence) = (error.code().to_owned(), error.to_string());
        let mut finding = None;
        let (expected, observed) = match error {
            StorageError::Io { what, source } => (what, source.to_string()),
            StorageError::DiskMissing { wanted, present } => (wanted, present),
            StorageError::DiskAmbiguous { wanted, matches } => {
                (format!("one disk that is {wanted}"), matches)
            }
            StorageError::DiskUnfit { disk, why } => (format!("{disk} usable for the operating system"), why),
            StorageError::ForeignDisk { finding: found, why } => {
                let observed = found.found.join("; ");
                finding = Some(found);
                (format!("an empty disk, one of ours, or consent to its wiping; {why}"), observed)
            }
            StorageError::Manifest(reason) => ("a manifest of format 1".to_owned(), reason),
            StorageError::ChunkCorrupt { expected, observed, .. } => {
                (format!("chunk {expected} with content of that BLAKE3 hash"), observed)
            }
            StorageError::Digest { expected, observed, .. }
            | StorageError::ReadBack { expected, observed, .. }
            | StorageError::Wrong { expected, observed, .. }
            | StorageError::Volume { expected, observed, .. } => (expected, observed),
            StorageError::Fetch { url, reason } => (url, reason),
            StorageError::Tool { program, status, message } => (program, format!("{status}: {message}")),
            StorageError::Timeout { what, seen, .. } => (what, seen),
        };
        Self { code, sentence, expected, observed, finding }
    }
}
