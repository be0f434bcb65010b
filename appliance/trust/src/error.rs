//! What can go wrong in trust, and what a person does about it. No variant holds a secret.

use std::path::{Path, PathBuf};

use dayzero_store::StoreError;

/// An error of this room.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The store refused.
    #[error("the store failed while {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: StoreError,
    },
    /// A file of the master key.
    #[error("cannot {action} the master key file {}", path.display())]
    KeyFile {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The key file is not usable as it stands.
    #[error("the master key file {}: {problem}", path.display())]
    BadKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The key does not open this store's vault.
    #[error(
        "this master key does not belong to this data directory: give the key file (or passphrase) that it was made with"
    )]
    WrongKey,
    /// A sealed value that does not open: changed on disk, or moved under another name.
    #[error(
        "the sealed value '{name}' does not open: it was changed, or moved from another name. Restore an export"
    )]
    Sealed {
        /// The value's name.
        name: String,
    },
    /// A sealed value whose content is not what this version expects.
    #[error("the sealed value '{name}' opens, but is not what it should be")]
    Content {
        /// The value's name.
        name: String,
        /// The cause; serde's messages about types, never the text itself.
        source: serde_json::Error,
    },
    /// A certificate or key operation failed.
    #[error("cannot {action}: {detail}")]
    Certificate {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// The cause.
        detail: String,
    },
    /// What a peer sent cannot be accepted.
    #[error("{what}: {problem}")]
    BadRequest {
        /// Which part of the request.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A step of a credential's life out of order.
    #[error("a credential in state {state} cannot become {wanted}")]
    WrongStep {
        /// The state that it is in.
        state: &'static str,
        /// What was asked.
        wanted: &'static str,
    },
    /// A password policy that nothing can satisfy.
    #[error("no password can satisfy the policy: {problem}")]
    Policy {
        /// Which bound.
        problem: String,
    },
    /// No boot window of that id.
    #[error("no boot window {boot} is open")]
    NoWindow {
        /// The boot.
        boot: dayzero_model::BootId,
    },
    /// A boot file could not be signed for Secure Boot.
    #[error("cannot sign for Secure Boot: {detail}")]
    Signing {
        /// The cause, and what to do.
        detail: String,
    },
    /// Argon2 refused its input.
    #[error("cannot derive a key from the passphrase: {detail}")]
    Derive {
        /// The cause.
        detail: String,
    },
}

impl TrustError {
    pub(crate) fn store(doing: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |source| Self::Store { doing, source }
    }

    pub(crate) fn key_file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::KeyFile { action, path, source }
    }

    pub(crate) fn certificate<E: std::fmt::Display>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |e| Self::Certificate { action, detail: e.to_string() }
    }
}
