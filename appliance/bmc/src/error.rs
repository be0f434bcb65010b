//! What can go wrong with a BMC, in the terms that control acts on.

use dayzero_model::Sha256;
use dayzero_redfish::RedfishError;
use dayzero_rmcp::RmcpError;

/// A failure of one BMC operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BmcError {
    /// No connection.
    #[error("the BMC at {address} does not answer: {reason}")]
    Unreachable {
        /// Address and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("the BMC at {address} did not finish {what} in time")]
    Timeout {
        /// Address and port.
        address: String,
        /// The operation.
        what: String,
    },
    /// Another certificate than the pinned one.
    #[error(
        "the BMC at {address} shows another certificate: expected sha256 {expected}, observed {observed}"
    )]
    CertificateChanged {
        /// Address and port.
        address: String,
        /// The pin.
        expected: Sha256,
        /// What was shown.
        observed: Sha256,
    },
    /// User or password are refused.
    #[error("the BMC refuses user '{user}' with the password given")]
    WrongCredential {
        /// The account name.
        user: String,
    },
    /// The account's password must be changed before anything else.
    #[error("the BMC asks for a new password of '{user}' first")]
    PasswordChangeRequired {
        /// The account name.
        user: String,
    },
    /// The BMC cannot do that at all.
    #[error("the BMC offers no {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// A write was accepted, but reads back otherwise.
    #[error("{what} was set to {wanted}, but reads back {observed}")]
    ReadBack {
        /// What was written.
        what: String,
        /// The value.
        wanted: String,
        /// What was read.
        observed: String,
    },
    /// It would lock us out.
    #[error("account '{user}' is the one in use: log in with another before it is disabled")]
    OwnAccount {
        /// The account name.
        user: String,
    },
    /// Any other answer of the protocol.
    #[error("the BMC's answer is of no use")]
    Protocol {
        /// What it was.
        #[source]
        source: ProtocolError,
    },
}

/// An error of one of the two protocols.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Redfish.
    #[error(transparent)]
    Redfish(RedfishError),
    /// IPMI.
    #[error(transparent)]
    Ipmi(RmcpError),
}

impl From<RedfishError> for BmcError {
    fn from(error: RedfishError) -> Self {
        match error {
            RedfishError::Unreachable { address, reason } => Self::Unreachable { address, reason },
            RedfishError::Timeout { address, what } => Self::Timeout { address, what },
            RedfishError::CertificateChanged { address, expected, observed } => Self::CertificateChanged {
                address,
                expected: Sha256(expected.0),
                observed: Sha256(observed.0),
            },
            RedfishError::WrongCredential { user } => Self::WrongCredential { user },
            RedfishError::PasswordChangeRequired { user } => Self::PasswordChangeRequired { user },
            RedfishError::Unsupported { what } => Self::Unsupported { what },
            RedfishError::ReadBack { what, wanted, observed } => {
                Self::ReadBack { what: what.into(), wanted, observed }
            }
            other => Self::Protocol { source: ProtocolError::Redfish(other) },
        }
    }
}

impl From<RmcpError> for BmcError {
    fn from(error: RmcpError) -> Self {
        match error {
            RmcpError::Unreachable { address } => {
                Self::Unreachable { address, reason: "no RMCP+ answer".into() }
            }
            RmcpError::Timeout { address, what } => Self::Timeout { address, what },
            RmcpError::WrongCredential { user, .. } => Self::WrongCredential { user },
            RmcpError::ReadBack { what, wanted, observed } => {
                Self::ReadBack { what: what.into(), wanted, observed }
            }
            other => Self::Protocol { source: ProtocolError::Ipmi(other) },
        }
    }
}
