//! One interface to a host's BMC over Redfish and IPMI: identity, power, the one-time boot device, accounts, and the channel by
//! which the BMC vouches for its host.
//!
//! Invariants: a write is checked before, made once and read back after; one operation at a time per BMC address, the others
//! wait in order; a vendor's peculiarity is a row in [`quirks`], never a branch in a driver; no secret is logged.
//!
//! It decides nothing: when to power on, what a contradiction of identities means and when to try again is control's.

mod connect;
mod error;
mod identity;
mod ipmi;
mod lane;
mod password;
pub mod quirks;
mod redfish;

pub use connect::{Credential, Target, connect};
pub use error::{BmcError, ProtocolError};
pub use identity::{BmcIdentity, GuidOrder, guid_text};
pub use password::{AccountPolicy, Alphabet, generate_password};

use async_trait::async_trait;
use dayzero_model::facts::SecureBootFacts;
use dayzero_model::inventory::BootMode;
use dayzero_model::site::BmcProtocol;
use dayzero_model::{MacAddr, Secret};
use serde::{Deserialize, Serialize};

/// Power of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// Between the two.
    Changing,
}

/// What can be done to the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Power up; nothing where it is on.
    On,
    /// Cut the power; nothing where it is off.
    ForceOff,
    /// Ask the operating system; the state follows in its own time.
    GracefulOff,
    /// Hard reset; the host must be on.
    Reset,
    /// Off, a pause, on; the host must be on.
    Cycle,
}

/// A boot device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootTarget {
    /// No override: the boot order holds.
    None,
    /// Network.
    Pxe,
    /// Local disk.
    Disk,
    /// CD, virtual ones included.
    Cd,
    /// Firmware setup.
    Setup,
    /// Something else.
    Other,
}

/// How long a boot override lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lasting {
    /// There is none.
    Disabled,
    /// For the next boot.
    Once,
    /// Until it is changed: after the boot it must be cleared by us.
    Continuous,
}

/// The boot override as it reads back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOverride {
    /// Device.
    pub target: BootTarget,
    /// How long.
    pub lasting: Lasting,
    /// Firmware mode, where the BMC says it.
    pub mode: Option<BootMode>,
    /// What was read, for the record.
    pub observed: String,
}

impl BootOverride {
    /// Whether the next boot goes to `target`.
    pub fn boots(&self, target: BootTarget) -> bool {
        self.target == target && self.lasting != Lasting::Disabled
    }
}

const HTTPS_BOOT: &str = "certificates for HTTPS boot";

/// A certificate of the site, for Secure Boot or HTTPS boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteCertificate {
    /// PEM.
    pub pem: String,
    /// Its subject's common name, by which a BMC that shows no certificates is asked.
    pub common_name: String,
}

/// How this BMC can vouch for a key of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VouchChannel {
    /// A CD image with a single-use nonce.
    VirtualMedia,
    /// The key's fingerprint, read on the serial console.
    SerialOverLan,
    /// None: the host stays unvouched.
    None,
}

/// The host's serial console through its BMC.
#[async_trait]
pub trait Console: Send {
    /// The next line that the host printed, without control characters; none when the session has ended. Cancel safe.
    async fn next_line(&mut self) -> Result<Option<String>, BmcError>;
    /// Types a line: printable ASCII without `~`, ended by CR. A BMC may swallow the first one of a session (ipmi_sim takes it
    /// for a repeat of the last session's): say it again until the host shows that it heard.
    async fn write_line(&mut self, line: &str) -> Result<(), BmcError>;
    /// Ends the session on both sides.
    async fn close(self: Box<Self>);
}

/// One BMC, logged into.
#[async_trait]
pub trait Bmc: Send + Sync {
    /// The protocol that is spoken.
    fn protocol(&self) -> BmcProtocol;
    /// Who the host and the BMC are. Parts that cannot be read are absent, and logged.
    async fn identity(&self) -> Result<BmcIdentity, BmcError>;
    /// Links of the host's NICs, of those that the BMC tells (not by IPMI): MAC, and whether it has a link.
    async fn nic_links(&self) -> Result<Vec<(MacAddr, bool)>, BmcError> {
        Ok(Vec::new())
    }
    /// Power of the host.
    async fn power(&self) -> Result<PowerState, BmcError>;
    /// Changes the power. `On` and `ForceOff` return when the state reads so; the others when the BMC accepted them.
    async fn set_power(&self, action: PowerAction) -> Result<(), BmcError>;
    /// Sets the device of the next boot alone, and reads it back. With IPMI it holds for 60 s: power the host on at once.
    /// `mode` is asked for where it is given; a BMC that cannot keep it shows so in the answer.
    async fn set_boot_once(
        &self,
        target: BootTarget,
        mode: Option<BootMode>,
    ) -> Result<BootOverride, BmcError>;
    /// The boot override as it is now.
    async fn boot_override(&self) -> Result<BootOverride, BmcError>;
    /// Names of the boot order's entries, first one first; empty where the BMC does not know it (IPMI).
    async fn boot_order(&self) -> Result<Vec<String>, BmcError>;
    /// What a password must be.
    async fn account_policy(&self) -> Result<AccountPolicy, BmcError>;
    /// Makes an enabled administrator with this name and password, or brings the one of that name in line.
    async fn create_or_set_account(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError>;
    /// Logs in with another credential, over a connection of its own.
    ///
    /// # Errors
    /// [`BmcError::WrongCredential`] when it is refused.
    async fn try_login(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError>;
    /// Disables an account. Never the one that this connection uses: that is refused before anything is sent.
    async fn disable_account(&self, name: &str) -> Result<(), BmcError>;
    /// How it can vouch.
    async fn vouch_channel(&self) -> Result<VouchChannel, BmcError>;
    /// Puts the image at `url` into a virtual CD drive. The URL is a secret until it is used.
    async fn insert_media(&self, url: &Secret<String>) -> Result<(), BmcError>;
    /// Empties the virtual CD drives.
    async fn eject_media(&self) -> Result<(), BmcError>;
    /// Opens the serial console, ending a session that someone left open.
    async fn open_sol(&self) -> Result<Box<dyn Console>, BmcError>;
    /// Secure Boot of the host; none where the BMC does not tell. `site` is looked for in the signature database.
    async fn secure_boot(&self, site: Option<&SiteCertificate>) -> Result<Option<SecureBootFacts>, BmcError> {
        let _ = site;
        Ok(None)
    }
    /// Puts the site's certificate into the firmware's signature database (`db`), and reads it back. The firmware may take
    /// it up at the next boot only.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC offers no such database.
    async fn enrol_secure_boot(&self, site: &SiteCertificate) -> Result<(), BmcError> {
        let _ = site;
        Err(BmcError::Unsupported { what: "Secure Boot databases".into() })
    }
    /// Whether the firmware's list of authorities for HTTPS boot holds this one; none where the BMC does not show the list.
    async fn https_boot(&self, site: &SiteCertificate) -> Result<Option<bool>, BmcError> {
        let _ = site;
        Ok(None)
    }
    /// Puts the authority into that list, and reads it back. The firmware may take it up at the next boot only.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where the BMC offers no such list.
    async fn enrol_https_boot(&self, site: &SiteCertificate) -> Result<(), BmcError> {
        let _ = site;
        Err(BmcError::Unsupported { what: HTTPS_BOOT.into() })
    }
    /// Ends what the connection holds on the BMC (a session). The value is of no use afterwards.
    async fn close(&self);
}
