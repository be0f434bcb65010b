//! The agent's protocol: frames over mutual TLS (`dayzero-agent/1`).
//!
//! A frame is a length (u32, big endian, at most [`MAX_FRAME`]) and that many bytes of JSON: [`ToAgent`] or
//! [`FromAgent`]. There is no message that runs a command: each order is one of a closed list. A destructive one
//! carries the plan's hash, the disk and what permits it: [`Order::Install`] the consent to what was found on the disk;
//! [`Order::VolumeGroup`], [`Order::VolumeCreate`], [`Order::VolumeFill`] and [`Order::WriterStart`] the LUN's WWN, and no
//! consent, since they refuse whatever Dayzero did not make: a LUN that is not empty, a volume without the plan's mark, a
//! volume that something has open. The golden corpus in `tests/wire` pins the encoding.

use crate::facts::Capacity;
use crate::ids::{BootId, HostName, MacAddr, Name, Sha256, Wwn};
use crate::install::{DiskFinding, InstallOrder, InstallReport};
use crate::inventory::Inventory;
use crate::network::{HostNetwork, NetworkReport};
use crate::proof::WriterProgress;
use crate::startup::StartReport;
use crate::storage::{LunReport, LunSpec, VolumeSpec, VolumeWarrant};
use crate::vm::{TemplateSource, VmReport, VmSpec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of this protocol. The appliance speaks N and N-1.
pub const VERSION: u32 = 1;
/// Longest frame, bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// Prefix of the line that an agent prints on its serial console: `DAYZERO-VOUCH <boot> <key fingerprint>`.
pub const VOUCH_LINE: &str = "DAYZERO-VOUCH";
/// Prefix of the line that the appliance answers over serial-over-LAN: `DAYZERO-CA <CA fingerprint>`.
pub const CA_LINE: &str = "DAYZERO-CA";

/// Why a message is no frame, or bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed: bytes.
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are taken")]
    TooLong(usize),
    /// Not understood.
    #[error("frame: {0}")]
    Json(#[from] serde_json::Error),
}

/// A message as a frame, head included.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    let head = u32::try_from(body.len()).map_err(|_| FrameError::TooLong(body.len()))?.to_be_bytes();
    body_length(head)?;
    Ok([head.as_slice(), &body].concat())
}

/// Length in bytes of the body that follows a frame's head.
///
/// # Errors
/// [`FrameError::TooLong`], before anything is read or kept for it.
pub fn body_length(head: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// The message in a frame's body.
///
/// # Errors
/// [`FrameError::Json`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Body of `POST /enrol`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// Protocol version.
    pub version: u32,
    /// Boot id from the kernel command line; proves nothing.
    pub boot: BootId,
    /// MAC of the boot NIC; proves nothing.
    pub mac: MacAddr,
    /// Public key as SubjectPublicKeyInfo DER, base64.
    pub public_key: String,
    /// Certificate signing request, PEM, signed with that key.
    pub csr: String,
    /// Nonce from the virtual medium, hex, where the BMC offers one.
    pub nonce: Option<String>,
}

/// Body of `POST /clock`: before it enrols, an agent says what time it has, to a server that it does not yet trust. It proves
/// nothing and changes nothing; it is recorded where it is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockReport {
    /// Boot id from the kernel command line.
    pub boot: BootId,
    /// MAC of the boot NIC.
    pub mac: MacAddr,
    /// The agent's clock.
    pub clock: crate::units::Timestamp,
}

/// Answer to an enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum EnrolAnswer {
    /// The key was vouched for.
    Granted {
        /// Host that it belongs to.
        host: HostName,
        /// Host certificate, PEM.
        certificate: String,
        /// CA certificate, PEM.
        ca: String,
    },
    /// Not (yet) vouched for: ask again while the BMC's channel is read.
    Wait {
        /// Seconds to wait.
        seconds: u32,
    },
    /// Refused for good in this boot.
    Refused {
        /// Why, for the console.
        reason: String,
    },
}

/// From the appliance to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ToAgent {
    /// An order. Answered by [`FromAgent::Done`] with the same id; one with an id that is already under way is not begun twice.
    Do {
        /// Id, unique per connection.
        id: u64,
        /// The order.
        order: Order,
    },
    /// Keep-alive; answered by [`FromAgent::Pong`].
    Ping,
}

/// What an agent may be told to do. Idempotent, each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Order {
    /// Read the hardware; listens for LLDP at most `lldp_s` seconds.
    Inventory {
        /// Seconds.
        lldp_s: u32,
    },
    /// Look at a disk: what is on it.
    InspectDisk {
        /// The disk.
        disk: crate::site::DiskSelector,
    },
    /// Write the operating system. Destructive.
    Install(Box<InstallOrder>),
    /// Restart the machine.
    Reboot,
    /// Read how the running system was started. For installed hosts.
    StartReport,
    /// Make and keep this network.
    Network(Box<HostNetwork>),
    /// Read the network back.
    NetworkReport,
    /// Connect these LUNs.
    Storage(Vec<LunSpec>),
    /// Read the LUNs back.
    StorageReport,
    /// Elected host only: make the volume group on an empty LUN, or check that it is ours.
    VolumeGroup {
        /// Primary storage.
        storage: Name,
        /// LUN.
        wwn: Wwn,
        /// Plan that it follows from; a new group is marked with it.
        plan_hash: Sha256,
    },
    /// Elected host only: make a volume and mark it with the plan's hash (metadata change).
    VolumeCreate {
        /// Volume.
        volume: VolumeSpec,
        /// Plan and LUN.
        warrant: VolumeWarrant,
    },
    /// Activate a volume here, and fill it from a template. Destructive.
    VolumeFill {
        /// Volume.
        volume: VolumeSpec,
        /// Plan and LUN.
        warrant: VolumeWarrant,
        /// Content.
        template: TemplateSource,
    },
    /// Start the proof's writer on a volume (made before by the elected host). It pushes [`FromAgent::Writer`].
    /// Destructive.
    WriterStart {
        /// Volume that belongs to the proof alone.
        volume: VolumeSpec,
        /// Plan and LUN.
        warrant: VolumeWarrant,
    },
    /// Read back all blocks written so far, over whichever path is alive.
    WriterVerify,
    /// Stop the writer.
    WriterStop,
    /// Measure capacity.
    Capacity,
    /// Define and start a VM.
    VmStart(VmSpec),
    /// Stop a VM.
    VmStop {
        /// Its name.
        name: Name,
    },
    /// List VMs with the tails of their consoles.
    Vms,
}

/// From an agent to the appliance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum FromAgent {
    /// First frame.
    Hello {
        /// Protocol version.
        version: u32,
        /// Agent's version.
        agent: String,
        /// Started from disk.
        installed: bool,
        /// Kernel's boot id.
        kernel_boot: String,
    },
    /// An order's progress.
    Progress {
        /// Order's id.
        id: u64,
        /// What is being done.
        what: String,
        /// Done so far.
        done: u64,
        /// Of so many; 0 = unknown.
        total: u64,
    },
    /// An order ended.
    Done {
        /// Order's id.
        id: u64,
        /// Its result.
        result: Result<Report, AgentError>,
    },
    /// The proof's writer, every 50 ms.
    Writer(WriterProgress),
    /// Answer to a ping.
    Pong,
}

/// What an order answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Report {
    /// Nothing to say.
    Ok,
    /// Hardware.
    Inventory(Box<Inventory>),
    /// A disk's content.
    Disk(DiskFinding),
    /// The installation.
    Installed(Box<InstallReport>),
    /// How the system was started.
    Started(Box<StartReport>),
    /// The network.
    Network(Box<NetworkReport>),
    /// LUNs.
    Storage(Vec<LunReport>),
    /// The writer.
    Writer(WriterProgress),
    /// Capacity.
    Capacity(Capacity),
    /// A volume was filled.
    Filled {
        /// SHA-256 of what was read back from the volume.
        sha256: Sha256,
    },
    /// VMs.
    Vms(Vec<VmReport>),
}

/// Why an order failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{sentence}")]
pub struct AgentError {
    /// Stable word, such as `chunk-corrupt`, `foreign-disk`, `disk-missing`, `no-such-nic`, `timeout`.
    pub code: String,
    /// One sentence.
    pub sentence: String,
    /// What was expected.
    pub expected: String,
    /// What was observed.
    pub observed: String,
    /// Found on the disk, with `foreign-disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Box<DiskFinding>>,
}
