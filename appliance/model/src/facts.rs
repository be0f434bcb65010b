//! What is known of one host: observations with their moments. Control writes them; lifecycle reads them.

use crate::boot::{AgentCheck, BootWindow, Chain};
use crate::condition::Cause;
use crate::ids::{BootId, MacAddr, Sha256};
use crate::install::{DiskConsent, DiskFinding, InstallReport};
use crate::inventory::Inventory;
use crate::network::NetworkReport;
use crate::proof::ProofReport;
use crate::site::BmcProtocol;
use crate::startup::StartReport;
use crate::storage::LunReport;
use crate::units::{MebiBytes, Mhz, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Facts of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The BMC's lease was taken (DHCP acknowledged) at this moment.
    pub bmc_lease: Option<Timestamp>,
    /// What the BMC said.
    pub bmc: Option<BmcFacts>,
    /// How far the credential's rotation is.
    pub credential: CredentialPhase,
    /// Open boot window.
    pub window: Option<WindowFacts>,
    /// The vouched key.
    pub vouch: Option<VouchFacts>,
    /// Keys that were refused on this host's boots, and why.
    #[serde(default)]
    pub refused_keys: Vec<RefusedKey>,
    /// What checked the agent of the last enrolment before it ran; none: nothing did, Secure Boot was not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_check: Option<AgentCheck>,
    /// Hardware.
    pub inventory: Option<Inventory>,
    /// When the inventory was taken.
    pub inventory_at: Option<Timestamp>,
    /// What the OS disk held, when it was found foreign.
    pub finding: Option<DiskFinding>,
    /// A person's consent to wipe it.
    pub consent: Option<DiskConsent>,
    /// The installation.
    pub install: Option<InstallReport>,
    /// Boot order as the BMC showed it after the install; empty = the BMC cannot tell it.
    #[serde(default)]
    pub boot_order: Vec<String>,
    /// How the installed host was started, as it read it of itself after the restart from disk.
    #[serde(default)]
    pub started: Option<StartReport>,
    /// When both were read.
    #[serde(default)]
    pub boot_order_at: Option<Timestamp>,
    /// The agent.
    pub agent: Option<AgentFacts>,
    /// Network as read back.
    pub network: Option<NetworkReport>,
    /// Hash of the wanted network that the report answers.
    #[serde(default)]
    pub network_basis: Option<Sha256>,
    /// LUNs as read back.
    #[serde(default)]
    pub luns: Vec<LunReport>,
    /// Hash of the wanted LUNs that the report answers.
    #[serde(default)]
    pub luns_basis: Option<Sha256>,
    /// Last proof.
    pub proof: Option<ProofReport>,
    /// Hash of network, LUNs and paths that the last proof was about.
    #[serde(default)]
    pub proof_basis: Option<Sha256>,
    /// Capacity as measured at join.
    pub capacity: Option<Capacity>,
    /// What the last operation failed with, until a retry clears it.
    pub failure: Option<Failure>,
    /// Roles of the paths that a proof has pulled just now: to be plugged in again, also after a crash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulled: Vec<crate::ids::Name>,
    /// The installed host went away: its agent is gone and its BMC says that power is off.
    #[serde(default)]
    pub lost: Option<Timestamp>,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Condition whose work failed.
    pub condition: crate::condition::Condition,
    /// Cause.
    pub cause: Cause,
    /// When.
    pub at: Timestamp,
}

/// What a BMC said of itself and its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcFacts {
    /// Address it answered at.
    pub address: Ipv4Addr,
    /// Protocol it spoke.
    pub protocol: BmcProtocol,
    /// Certificate's fingerprint (Redfish).
    pub certificate: Option<Sha256>,
    /// System manufacturer.
    pub manufacturer: Option<String>,
    /// System model.
    pub model: Option<String>,
    /// System serial.
    pub serial: Option<String>,
    /// Board serial.
    pub board_serial: Option<String>,
    /// System UUID in SMBIOS order, lower case.
    pub uuid: Option<String>,
    /// BMC's own MAC.
    pub bmc_mac: Option<MacAddr>,
    /// NIC MACs that it knows.
    pub nic_macs: Vec<MacAddr>,
    /// Host is powered on.
    pub power_on: bool,
    /// Its Secure Boot, where the BMC tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBootFacts>,
    /// Its firmware's list of authorities for HTTPS boot holds the site's; none: the BMC does not show the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_boot: Option<bool>,
    /// When.
    pub at: Timestamp,
}

/// Secure Boot of a host, as its BMC told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureBootFacts {
    /// At the next boot the firmware refuses what nobody trusted signed.
    pub enforced: bool,
    /// Its signature database holds the site's certificate; none: the BMC does not show the database.
    pub site_key: Option<bool>,
}

/// How far a BMC's credential is rotated. The stored credential of each phase works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialPhase {
    /// Factory credential in use.
    #[default]
    Factory,
    /// Generated one is stored and synced; may or may not be on the BMC.
    Stored,
    /// Generated one was tried and works.
    Works,
    /// Factory one was disabled, and refused when tried.
    FactoryDisabled,
}

/// A boot window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFacts {
    /// The window.
    pub window: BootWindow,
    /// Opened.
    pub opened: Timestamp,
    /// One-time PXE as read back from the BMC; empty = not set yet.
    pub override_read_back: String,
    /// Power was switched on for this boot.
    #[serde(default)]
    pub powered: Option<Timestamp>,
    /// By what the host boots in it.
    #[serde(default)]
    pub chain: Chain,
    /// Channel by which the BMC vouches: `virtual media` or `serial-over-LAN`; empty = not chosen yet.
    #[serde(default)]
    pub channel: String,
    /// Firmware of the host asked by DHCP since then: when it first did so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_seen: Option<Timestamp>,
    /// Our loader was transferred completely.
    pub ipxe_served: Option<Timestamp>,
    /// The script was served, or the agent was told of its boot.
    pub script_served: Option<Timestamp>,
    /// The link was full, and the host was told to come back for a file: when it was told so last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_to_wait: Option<Timestamp>,
    /// Kernel and initramfs were served.
    pub kernel_served: Option<Timestamp>,
    /// The discovery agent asked for a certificate, granted or not.
    #[serde(default)]
    pub enrol_asked: Option<Timestamp>,
    /// Keys that asked in this boot and that nothing has vouched for (yet): once one is vouched for, the others count as
    /// refused. At most eight.
    #[serde(default)]
    pub waiting: Vec<WaitingKey>,
}

impl WindowFacts {
    /// A window that was opened, and in which nothing has happened yet.
    pub fn new(window: BootWindow, opened: Timestamp) -> Self {
        Self {
            window,
            opened,
            override_read_back: String::new(),
            powered: None,
            chain: Chain::default(),
            channel: String::new(),
            dhcp_seen: None,
            ipxe_served: None,
            script_served: None,
            told_to_wait: None,
            kernel_served: None,
            enrol_asked: None,
            waiting: Vec::new(),
        }
    }
}

/// A key that asked for a certificate and waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingKey {
    /// Fingerprint.
    pub key: Sha256,
    /// Client's address.
    pub peer: String,
    /// When it first asked.
    pub at: Timestamp,
}

/// The vouched key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VouchFacts {
    /// Boot in which it was vouched.
    pub boot: BootId,
    /// Key's fingerprint.
    pub key: Sha256,
    /// Certificate's fingerprint.
    pub certificate: Sha256,
    /// By which channel: `virtual media` or `serial-over-LAN`.
    pub channel: String,
    /// When.
    pub at: Timestamp,
}

/// A key that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedKey {
    /// Fingerprint.
    pub key: Sha256,
    /// Why.
    pub reason: String,
    /// Client's address.
    pub peer: String,
    /// When.
    pub at: Timestamp,
}

/// The agent's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Runs from disk (installed host), not from the discovery image.
    pub installed: bool,
    /// Agent's version.
    pub version: String,
    /// Kernel boot id, to tell boots apart.
    pub kernel_boot: String,
    /// Connected now.
    pub connected: bool,
    /// Since when connected or gone.
    pub since: Timestamp,
}

/// Capacity as measured on the installed host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Hardware threads.
    pub threads: u32,
    /// Threads x MHz.
    pub cpu: Mhz,
    /// Memory left for VMs.
    pub memory: MebiBytes,
    /// `/dev/kvm` answers and libvirt offers domain type kvm.
    pub kvm: bool,
}
