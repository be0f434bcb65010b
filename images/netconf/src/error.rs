//! Why a network operation failed.

use dayzero_model::ids::MacAddr;
use dayzero_model::wire::AgentError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Netlink refused or broke off.
    #[error("{what}: {source}")]
    Netlink {
        /// What was asked of the kernel.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A socket or file of this host.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Its error.
        source: std::io::Error,
    },
    /// No NIC has this MAC.
    #[error("no NIC of this host has the MAC {mac}; it has {present}")]
    NoSuchNic {
        /// MAC that was looked for.
        mac: MacAddr,
        /// MACs that are there, as text.
        present: String,
    },
    /// No link has this name (any more).
    #[error("there is no link named '{name}'")]
    NoSuchLink {
        /// Its name.
        name: String,
    },
    /// The network that is wanted contradicts itself.
    #[error("{0}")]
    BadPlan(String),
}

impl NetError {
    /// From rtnetlink's error, keeping the kernel's errno.
    pub(crate) fn netlink(what: impl Into<String>, error: rtnetlink::Error) -> Self {
        let source = match &error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other.to_string()),
        };
        Self::Netlink { what: what.into(), source }
    }

    /// From an I/O error.
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The kernel's errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Netlink { source, .. } | Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl From<NetError> for AgentError {
    fn from(error: NetError) -> Self {
        let sentence = error.to_string();
        let (code, expected, observed) = match error {
            NetError::Netlink { what, source } => ("netlink", what, source.to_string()),
            NetError::Io { what, source } => ("io", what, source.to_string()),
            NetError::NoSuchNic { mac, present } => ("no-such-nic", mac.to_string(), present),
            NetError::NoSuchLink { name } => ("no-such-link", name, "no such link".to_owned()),
            NetError::BadPlan(text) => ("bad-network", "a network that can be made".to_owned(), text),
        };
        Self { code: code.to_owned(), sentence, expected, observed, finding: None }
    }
}
