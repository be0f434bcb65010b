//! What can go wrong between us and a BMC over IPMI.

/// A failure of one IPMI operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RmcpError {
    /// Nobody answers RMCP+ at that address.
    #[error("no IPMI answer from {address}")]
    Unreachable {
        /// Host and port.
        address: String,
    },
    /// The session was refused: wrong password, unknown or disabled user.
    #[error("the BMC refuses user '{user}': {reason}")]
    WrongCredential {
        /// The account name.
        user: String,
        /// What the handshake said.
        reason: &'static str,
    },
    /// The child took longer than its bound, and was killed.
    #[error("'ipmitool {what}' at {address} did not end in time")]
    Timeout {
        /// Host and port.
        address: String,
        /// The command, without secrets.
        what: String,
    },
    /// The BMC answered with an error.
    #[error("'ipmitool {what}' failed: {reason}")]
    Command {
        /// The command, without secrets.
        what: String,
        /// The last lines of its error output, shortened; empty where a password was involved.
        reason: String,
    },
    /// The answer does not have the expected form.
    #[error("the answer to '{what}' is not understood: {observed}")]
    Answer {
        /// The command.
        what: String,
        /// What was read, shortened.
        observed: String,
    },
    /// A write was accepted, but reads back otherwise.
    #[error("{what} was set to {wanted}, but reads back {observed}")]
    ReadBack {
        /// What was written.
        what: &'static str,
        /// The value.
        wanted: String,
        /// What was read.
        observed: String,
    },
    /// A name, password or line that cannot be sent; the value is not shown.
    #[error("{what} cannot be used: {rule}")]
    BadInput {
        /// Which input.
        what: &'static str,
        /// What would be accepted.
        rule: &'static str,
    },
    /// The BMC has no user slot left.
    #[error("the BMC has no free user slot ({slots} in use)")]
    NoFreeUser {
        /// How many slots were looked at.
        slots: usize,
    },
    /// No such user on the BMC.
    #[error("the BMC has no user '{user}'")]
    NoSuchUser {
        /// The name.
        user: String,
    },
    /// The console session ended or could not be opened.
    #[error("the serial console over LAN is closed: {reason}")]
    SolClosed {
        /// What `ipmitool` said last.
        reason: String,
    },
    /// `ipmitool` cannot be started, or a pipe or terminal to it failed.
    #[error("cannot run ipmitool: {context}")]
    Spawn {
        /// What was being done.
        context: &'static str,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
}
