//! A lenient Redfish client (DMTF DSP0266) for the verbs that bring a server up: who it is, its power, its one-time boot
//! target, its virtual media and its accounts.
//!
//! Invariants: TLS always, with the leaf certificate pinned (trust on first use when no pin is given); links are followed,
//! no path beyond `/redfish/v1/` is assumed; only the fields in use are required; each body, collection and wait is
//! bounded; a redirect to another host is refused; no password reaches a log, a URL or an error text.
//!
//! It does not know vendors (quirks are the caller's), events, firmware updates or storage.

mod account;
#[cfg(test)]
mod captures;
mod client;
mod error;
mod media;
mod secure_boot;
mod service;
mod tls;
mod view;

pub use account::{Account, AccountPolicy, NewAccount};
pub use client::{AuthMode, Client, Credential, Limits, Options};
pub use error::RedfishError;
pub use media::VirtualMedia;
pub use secure_boot::{DatabaseCertificate, SecureBoot};
pub use tls::Fingerprint;
pub use view::{Boot, BootOption, Manager, Nic, ServiceRoot, System};
