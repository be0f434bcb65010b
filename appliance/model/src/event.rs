//! Timeline events: what each source saw, by host, MAC and boot. `dayzero why` reads them.

use crate::boot::{Arch, BootAction};
use crate::condition::Condition;
use crate::ids::{BootId, HostName, MacAddr, Sha256};
use crate::units::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
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
        kind: Cow<'static, str>,
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
        kind: Cow<'static, str>,
        /// Address.
        address: Option<Ipv4Addr>,
        /// Boot file, if any.
        file: Option<String>,
    },
    /// That message could not leave: nobody but us is at fault.
    DhcpUnsent {
        /// Its type word.
        kind: Cow<'static, str>,
        /// Where it was sent to.
        to: IpAddr,
        /// What the kernel said.
        error: String,
    },
    /// A DHCP message was not answered, or not as its client wished, and why.
    DhcpIgnored {
        /// Why, for a person.
        reason: String,
        /// Why, for the rules.
        #[serde(default)]
        why: Ignored,
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
    /// A TFTP transfer broke off, or was refused.
    TftpBroken {
        /// File; empty if the request could not be read.
        file: String,
        /// Why.
        fault: TftpFault,
        /// Blocks that the client had acknowledged.
        after_block: u64,
        /// The same in bytes.
        bytes: u64,
        /// Block size; 0 = nothing was agreed.
        block: u16,
        /// In words: what the client's error packet, or ours, said.
        message: String,
    },
    /// Our loader was fetched whole, and it is made for another machine than the one that fetched it.
    WrongLoader {
        /// File.
        file: String,
        /// What the client says that it is.
        arch: Arch,
        /// What the file is made for.
        made_for: String,
    },
    /// A client asks us, and does not answer ARP for the address that it has.
    ArpSilent {
        /// The address.
        address: Ipv4Addr,
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
        /// By HTTPS.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
    },
    /// The answer to an HTTP request broke off.
    HttpBroken {
        /// Path.
        path: String,
        /// Client.
        peer: IpAddr,
        /// Bytes sent.
        bytes: u64,
        /// Bytes that the answer has.
        length: u64,
        /// Why.
        error: String,
    },
    /// A client broke off a TLS handshake, or we did.
    TlsRefused {
        /// Client.
        peer: IpAddr,
        /// Listener, such as `enrolment`.
        listener: String,
        /// Why.
        reason: String,
        /// It says that our certificate is not valid at this time: its clock and ours differ.
        clock: bool,
    },
    /// A machine told its clock, and it differs from ours.
    Clock {
        /// Whose: `the agent`, `the BMC`.
        whose: String,
        /// Seconds that it is ahead of ours; negative: behind.
        ahead: i64,
    },
    /// The link of a NIC, as somebody else than the host sees it.
    Link {
        /// The NIC.
        nic: MacAddr,
        /// It has a link.
        up: bool,
        /// Who says so: `the BMC`.
        told_by: String,
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

impl What {
    /// Firmware or a loader asks by DHCP, and no operating system or BMC. Old firmware names no architecture.
    pub fn asks_to_boot(&self) -> bool {
        let What::DhcpIn { arch, ipxe, vendor_class, .. } = self else { return false };
        let class = vendor_class.as_deref().unwrap_or_default();
        arch.is_some() || *ipxe || class.starts_with("PXEClient") || class.starts_with("HTTPClient")
    }
}

/// Why a DHCP message was not answered, or not as its client wished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ignored {
    /// Anything that has no word of its own.
    #[default]
    Other,
    /// Its client is not in the plan.
    Pending,
    /// Its client is planned on another network.
    WrongNetwork,
    /// There is no pool for its client.
    NoPool,
    /// The pool has no address left.
    PoolUsedUp,
    /// Its client took the offer of this server, which is not ours.
    OtherServer {
        /// The server.
        address: Ipv4Addr,
    },
    /// The same by DHCPv6, where a server is known by its identifier alone.
    OtherServer6 {
        /// The server's DUID, in hexadecimal.
        duid: String,
        /// The MAC that it is made of, where it is.
        mac: Option<MacAddr>,
    },
    /// It came by a relay that the plan does not list.
    UnknownRelay {
        /// The relay.
        relay: IpAddr,
    },
    /// Its client declines the address.
    Declined {
        /// The address.
        address: IpAddr,
    },
    /// Somebody else answers for the address that its client is to have.
    InUse {
        /// The address.
        address: Ipv4Addr,
        /// Who.
        by: MacAddr,
    },
    /// There is no loader for its client's architecture: no boot file.
    NoLoader {
        /// Architecture.
        arch: Option<Arch>,
    },
    /// It boots under Secure Boot, and nothing that is signed is here for it: no boot file.
    NothingSigned,
    /// It boots under Secure Boot, and no boot is open for it: no boot file, so that its firmware goes on to its disk.
    NoWindow,
    /// Its UUID is not the planned host's: no boot file.
    OtherMachine,
    /// Its lease could not be stored.
    NotStored,
    /// It breaks the protocol's rules, so that nobody can say what it asks for.
    Malformed,
}

/// How a TFTP transfer broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TftpFault {
    /// The client fell silent.
    Silent,
    /// The client sent an error.
    Aborted {
        /// Its code.
        code: u16,
    },
    /// The client's port was closed.
    PortClosed,
    /// We answered by an error.
    Refused {
        /// Our code.
        code: u16,
    },
    /// Too many transfers at once.
    Busy,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events are stored: what an older version wrote is read, and what is written today is read by the next one.
    #[test]
    fn stored_events_keep_their_form() {
        let mac = MacAddr([2, 0, 0, 0, 0, 0x66]);
        let ignored = |why| What::DhcpIgnored { reason: "x".into(), why };
        for (what, stored) in [
            (ignored(Ignored::Other), r#"{"dhcp-ignored":{"reason":"x","why":"other"}}"#),
            (
                ignored(Ignored::OtherServer { address: [10, 77, 0, 66].into() }),
                r#"{"dhcp-ignored":{"reason":"x","why":{"other-server":{"address":"10.77.0.66"}}}}"#,
            ),
            (
                ignored(Ignored::OtherServer6 { duid: "00:04".into(), mac: Some(mac) }),
                r#"{"dhcp-ignored":{"reason":"x","why":{"other-server6":{"duid":"00:04","mac":"02:00:00:00:00:66"}}}}"#,
            ),
            (ignored(Ignored::Malformed), r#"{"dhcp-ignored":{"reason":"x","why":"malformed"}}"#),
            (
                What::DhcpUnsent { kind: "OFFER".into(), to: [10, 88, 0, 1].into(), error: "y".into() },
                r#"{"dhcp-unsent":{"kind":"OFFER","to":"10.88.0.1","error":"y"}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&what).unwrap(), stored);
            assert_eq!(serde_json::from_str::<What>(stored).unwrap(), what);
        }
        let oldest: What = serde_json::from_str(r#"{"dhcp-ignored":{"reason":"x"}}"#).unwrap();
        assert_eq!(oldest, ignored(Ignored::Other));
    }
}
