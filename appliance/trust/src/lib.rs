//! Trust: the site's CA, enrolment and vouching, BMC certificate pins and credentials, secrets at rest, users and roles.
//!
//! Invariants:
//! - secrets are in the store only sealed (see [`Vault`]) or hashed; the master key is outside the data directory;
//! - a certificate is issued only for a key that a BMC vouched for, at most one key a boot window (see [`Window`]);
//! - a credential is stored before it is sent (see [`CredentialRecord`]).
//!
//! Pure logic (windows, credentials, throttle, password policy) is apart from what reads and writes the store. It opens no
//! sockets: listeners, cookies and BMC sessions are other rooms'.
//!
//! Start-up of the appliance: [`Vault::open`] → [`SiteCa::open`] → [`Enrolment::new`], [`BmcPins::new`], [`Users::new`] +
//! [`Users::first_claim`]; TLS by [`SiteCa::listener`], [`SiteCa::kept_listener`] and [`agents_server_config`] / [`operators_server_config`].

mod bmc_credentials;
mod ca;
mod enrolment;
mod error;
mod ffdhe;
mod hash;
mod kept;
mod loader_ca;
mod master_key;
mod password;
mod pins;
mod rsa_key;
mod secure_boot;
mod throttle;
mod tls;
mod users;
mod vault;
mod window;

pub use bmc_credentials::{Credential, CredentialRecord, NextStep};
pub use ca::{AGENT_ALPN, CheckedRequest, Issued, Revocation, SiteCa, check_request, fingerprint, host_of};
pub use enrolment::{Enrolled, Enrolment, Opened};
pub use error::TrustError;
pub use kept::Wanted;
pub use loader_ca::LoaderCa;
pub use master_key::{KeySource, MasterKey};
pub use password::PasswordPolicy;
pub use pins::{BmcPins, Pin, PinVerdict};
pub use secure_boot::SecureBootKey;
pub use tls::{agents_server_config, boot_server_config, operators_server_config};
pub use users::{LoggedIn, LoginError, Role, Session, User, Users};
pub use vault::{Sealed, Vault};
pub use window::{Channel, Decision, Refusal, RefusalReason, Vouch, Window, WindowState};
