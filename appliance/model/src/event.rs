//! Timeline events: what each source saw, by host, MAC and boot. `dayzero why` reads them.

use crate::boot::{Arch, BootAction};
use crate::condition::Condition;
use crate::ids::{BootId, HostName, MacAddr, Sha256};
use crate::units::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// One event, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Host, where known.
    pub host: Option<HostName>,
    /// MAC, where the source is a datagram.
    pub mac: Option<MacAddr>,
    /// Boot, where one was open.
    pub boot: Option<BootId>,
    /// What.
    pub what: What,
}

/// What was seen or done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A DHCP message came in.
    DhcpIn {
        /// Message type word, such as `DISCOVER`.
        kind: String,
        /// Interface.
        interface: String,
        /// PXE architecture, if a PXE client.
        arch: Option<Arch>,
        /// User class says iPXE.
        ipxe: bool,
        /// UUID of option 97, in SMBIOS order.
        uuid: Option<String>,
        /// Option 60.
        vendor_class: Option<String>,
    },
    /// A DHCP message went out.
    DhcpOut {
        /// Message type word, such as `OFFER`.
        kind: String,
        /// Address.
        address: Option<Ipv4Addr>,
        /// Boot file, if any.
        file: Option<String>,
    },
    /// A DHCP message was not answered, and why.
    DhcpIgnored {
        /// Why.
        reason: String,
    },
    /// TFTP transfer began.
    TftpStart {
        /// File.
        file: String,
    },
    /// TFTP transfer ended.
    TftpEnd {
        /// File.
        file: String,
        /// Bytes acknowledged.
        bytes: u64,
        /// Milliseconds.
        ms: u64,
        /// Error; none = complete. A transfer that the client aborts after the OACK is no failure and not recorded as one.
        error: Option<String>,
    },
    /// A boot script was served.
    Script {
        /// What it says.
        action: BootAction,
        /// Client.
        peer: IpAddr,
    },
    /// An HTTP boot file was served.
    HttpFile {
        /// Path.
        path: String,
        /// Client.
        peer: IpAddr,
        /// Status code.
        status: u16,
        /// Bytes sent.
        bytes: u64,
    },
    /// An operation on the BMC.
    Bmc {
        /// What, such as `power on`.
        operation: String,
        /// Read back or failed.
        result: String,
        /// Failed.
        failed: bool,
    },
    /// An enrolment was decided.
    Enrol {
        /// Certificate given.
        granted: bool,
        /// Fingerprint of the key.
        key: Sha256,
        /// By which channel, or why refused.
        reason: String,
        /// Client.
        peer: IpAddr,
    },
    /// The agent connected, disconnected, reported.
    Agent {
        /// What.
        message: String,
    },
    /// A condition changed.
    Condition {
        /// Which.
        condition: Condition,
        /// Its new state, as text.
        state: String,
        /// Evidence or cause.
        detail: String,
    },
    /// A path was pulled or plugged in.
    Rack {
        /// What.
        message: String,
    },
    /// A person did something.
    Person {
        /// Who.
        who: String,
        /// What.
        did: String,
    },
}
