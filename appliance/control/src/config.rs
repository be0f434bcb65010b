//! What the control plane needs to know of its machine. Addresses come from the plan: each network's `appliance` address
//! is looked up among the local interfaces.

use dayzero_model::site::NetworkRole;
use dayzero_trust::KeySource;
use std::path::PathBuf;

/// TCP ports of our own listeners. Others than these are for tests.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// HTTP boot, on the management network.
    pub http: u16,
    /// The same over TLS: what installed and installing hosts fetch.
    pub https: u16,
    /// Enrolment, on the management network.
    pub enrol: u16,
    /// Agents, on the management network.
    pub agents: u16,
    /// Virtual media, on the BMC network.
    pub media: u16,
}

/// One of our listeners on a network of the plan, beside those of network boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Agents.
    Agents,
    /// Enrolment.
    Enrol,
    /// Virtual media.
    Media,
}

impl Listener {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Listener::Agents => "agents' listener",
            Listener::Enrol => "enrolment listener",
            Listener::Media => "virtual media listener",
        }
    }
}

impl Ports {
    /// What listens at our address on a network of this role, and on which port.
    pub fn listeners(&self, role: NetworkRole) -> Vec<(Listener, u16)> {
        match role {
            NetworkRole::Management => vec![(Listener::Agents, self.agents), (Listener::Enrol, self.enrol)],
            NetworkRole::Bmc => vec![(Listener::Media, self.media)],
            NetworkRole::Storage | NetworkRole::Guest => Vec::new(),
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: 8080, https: 8445, enrol: 8444, agents: 7443, media: 8082 }
    }
}

/// Files that hosts boot and install.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// Kernel of the discovery image.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Directory with `undionly.kpxe` and `snponly.efi`, such as `/usr/lib/ipxe`; arm64 boots where it has
    /// `ipxe-arm64.efi` too.
    pub ipxe: PathBuf,
    /// Directory of the KVM host image: `manifest.json` and `chunks/`.
    pub host: PathBuf,
    /// Directory with `uki.efi` (unsigned), `shimx64.efi` and `grubx64.efi`; none: no host boots under Secure Boot.
    pub secure: Option<PathBuf>,
}

/// Who pulls paths for a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Puller {
    /// A person, asked on the to-do list.
    #[default]
    Person,
    /// The virtual rack's daemon, by its socket.
    Lab(PathBuf),
}

/// The configuration.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Data directory.
    pub data: PathBuf,
    /// Where the master key comes from; never inside the data directory.
    pub master_key: KeySource,
    /// Boot and host images.
    pub images: Images,
    /// Who pulls paths.
    pub puller: Puller,
    /// Ports.
    pub ports: Ports,
}
