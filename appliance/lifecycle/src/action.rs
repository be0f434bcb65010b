//! What lifecycle asks control to do. Each is idempotent: after a crash it is derived again from the facts and begun anew.

use crate::deadlines;
use crate::desired::Bound;
use dayzero_model::condition::Condition;
use dayzero_model::ids::{MacAddr, Name, Sha256, Wwn};
use dayzero_model::install::InstallOrder;
use dayzero_model::network::HostNetwork;
use dayzero_model::proof::{Break, Probe};
use dayzero_model::storage::LunSpec;
use dayzero_model::units::Millis;

/// A step of the BMC credential's rotation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateStep {
    /// Generate one to the BMC's policy and store it, encrypted and synced.
    Store,
    /// Set it on the BMC, and try it.
    Send,
    /// Disable the factory one, and see it refused.
    DisableFactory,
}

/// One path of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofPath {
    /// NIC role.
    pub role: Name,
    /// NIC.
    pub mac: MacAddr,
    /// What is measured on it.
    pub probe: Probe,
    /// Bound for each way of breaking it.
    pub bounds: Vec<(Break, Bound)>,
}

/// All that a proof needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofOrder {
    /// Paths in the order of their trials.
    pub paths: Vec<ProofPath>,
    /// Primary storage that the writer's volume is on; none = no block storage, no writer.
    pub storage: Option<Name>,
    /// What the proof is about.
    pub basis: Sha256,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Reach the BMC, pin its certificate, log in, read identity.
    ContactBmc,
    /// Go one step on with the credential.
    RotateCredential(RotateStep),
    /// Open a window, insert the medium or open serial-over-LAN, set one-time PXE, read it back, power on.
    BootDiscovery,
    /// Ask the agent for the hardware.
    Inventory {
        /// Longest listening for LLDP, seconds.
        lldp_s: u32,
    },
    /// Write the operating system.
    Install(Box<InstallOrder>),
    /// Restart from disk.
    RebootToDisk,
    /// Read the boot order back.
    ReadBootOrder,
    /// Make the network.
    ApplyNetwork(Box<HostNetwork>, Sha256),
    /// Connect LUNs.
    ConnectStorage(Vec<LunSpec>, Sha256),
    /// Elected host: make the volume group, or see that it is ours.
    MakeVolumeGroup {
        /// Primary storage.
        storage: Name,
        /// LUN.
        wwn: Wwn,
    },
    /// Pull every path while traffic runs.
    Prove(Box<ProofOrder>),
    /// Measure capacity.
    Measure,
}

/// An action without its parameters: what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// [`Action::ContactBmc`].
    ContactBmc,
    /// [`Action::RotateCredential`].
    RotateCredential,
    /// [`Action::BootDiscovery`].
    BootDiscovery,
    /// [`Action::Inventory`].
    Inventory,
    /// [`Action::Install`].
    Install,
    /// [`Action::RebootToDisk`].
    RebootToDisk,
    /// [`Action::ReadBootOrder`].
    ReadBootOrder,
    /// [`Action::ApplyNetwork`].
    ApplyNetwork,
    /// [`Action::ConnectStorage`].
    ConnectStorage,
    /// [`Action::MakeVolumeGroup`].
    MakeVolumeGroup,
    /// [`Action::Prove`].
    Prove,
    /// [`Action::Measure`].
    Measure,
}

impl Action {
    /// What kind it is.
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::ContactBmc => ActionKind::ContactBmc,
            Self::RotateCredential(_) => ActionKind::RotateCredential,
            Self::BootDiscovery => ActionKind::BootDiscovery,
            Self::Inventory { .. } => ActionKind::Inventory,
            Self::Install(_) => ActionKind::Install,
            Self::RebootToDisk => ActionKind::RebootToDisk,
            Self::ReadBootOrder => ActionKind::ReadBootOrder,
            Self::ApplyNetwork(..) => ActionKind::ApplyNetwork,
            Self::ConnectStorage(..) => ActionKind::ConnectStorage,
            Self::MakeVolumeGroup { .. } => ActionKind::MakeVolumeGroup,
            Self::Prove(_) => ActionKind::Prove,
            Self::Measure => ActionKind::Measure,
        }
    }
}

impl ActionKind {
    /// Condition that it works on.
    pub fn condition(self) -> Condition {
        match self {
            Self::ContactBmc | Self::RotateCredential => Condition::Found,
            Self::BootDiscovery => Condition::Vouched,
            Self::Inventory => Condition::Inventoried,
            Self::Install | Self::RebootToDisk | Self::ReadBootOrder => Condition::Imaged,
            Self::ApplyNetwork | Self::ConnectStorage | Self::MakeVolumeGroup => Condition::Wired,
            Self::Prove => Condition::Proven,
            Self::Measure => Condition::Joined,
        }
    }

    /// Longest time that control gives it before it is failed as `timeout`. The condition's deadline lies a little later.
    pub fn timeout(self) -> Millis {
        match self {
            Self::ContactBmc => deadlines::CONTACT,
            Self::RotateCredential => deadlines::ROTATE,
            Self::BootDiscovery => deadlines::POWER_ON,
            Self::Inventory => deadlines::INVENTORY,
            Self::Install => deadlines::INSTALL,
            Self::RebootToDisk | Self::ReadBootOrder => deadlines::SHORT_ORDER,
            Self::ApplyNetwork => deadlines::NETWORK,
            Self::ConnectStorage | Self::MakeVolumeGroup => deadlines::STORAGE,
            Self::Prove => deadlines::PROOF,
            Self::Measure => deadlines::SHORT_ORDER,
        }
    }
}
