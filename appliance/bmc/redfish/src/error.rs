//! What can go wrong between us and a Redfish service. The source is kept, not repeated in the text.

use crate::tls::Fingerprint;

/// A failure of one Redfish operation. `path` is the resource, without host or query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedfishError {
    /// No TCP or TLS connection.
    #[error("no connection to the Redfish service at {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The innermost reason, such as "Connection refused".
        reason: String,
    },
    /// No answer in time.
    #[error("the Redfish service at {address} did not answer {what} in time")]
    Timeout {
        /// Host and port.
        address: String,
        /// Method and path, or what was waited for.
        what: String,
    },
    /// The leaf certificate is not the pinned one.
    #[error("the certificate of {address} changed: expected sha256 {expected}, observed {observed}")]
    CertificateChanged {
        /// Host and port.
        address: String,
        /// The pin.
        expected: Fingerprint,
        /// What was presented.
        observed: Fingerprint,
    },
    /// 401 with our credential.
    #[error("the Redfish service refuses user '{user}' with the password given")]
    WrongCredential {
        /// The account name.
        user: String,
    },
    /// The account may do nothing before its password is changed (DSP0266, 13.3.7.1).
    #[error("the account '{user}' must have its password changed first")]
    PasswordChangeRequired {
        /// The account name.
        user: String,
    },
    /// A status that is no success.
    #[error("{method} {path} answered {status}: {message}")]
    Http {
        /// HTTP method.
        method: String,
        /// Resource path.
        path: String,
        /// HTTP status code.
        status: u16,
        /// The service's own words (`@Message.ExtendedInfo`), shortened; message ids only where a secret was sent.
        message: String,
    },
    /// A body that is too large, or no JSON object.
    #[error("{path}: {problem}")]
    Body {
        /// Resource path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field that this operation needs is absent.
    #[error("{path} has no usable '{field}'")]
    Missing {
        /// Resource path.
        path: String,
        /// Field, as a dotted path.
        field: String,
    },
    /// The service lists its allowable values, and ours is not among them.
    #[error("{what} '{wanted}' is not among what the service allows: {allowed}")]
    NotAllowed {
        /// The property.
        what: &'static str,
        /// What was asked for.
        wanted: String,
        /// The service's list.
        allowed: String,
    },
    /// The service offers no such thing at all.
    #[error("the service offers no {what}")]
    Unsupported {
        /// What was looked for.
        what: String,
    },
    /// A write was accepted, but reads back otherwise.
    #[error("{what} was set to {wanted}, but reads back {observed}")]
    ReadBack {
        /// The property.
        what: &'static str,
        /// What was written.
        wanted: String,
        /// What was read.
        observed: String,
    },
    /// A redirect or link leads to another host.
    #[error("{path} leads off the service, to '{target}'; not followed")]
    OffHost {
        /// Where it stood.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// The client could not be built from the options.
    #[error("cannot build the Redfish client: {0}")]
    Setup(String),
}

/// The deepest reason of an error chain.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}
