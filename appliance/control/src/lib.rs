//! The control plane: carries out what `dayzero-lifecycle` decides, and is the only writer of states.
//!
//! Entry points: [`open`] and [`Served::run`] (the composition that `dayzero serve` starts), [`Service`] (what people
//! and tools may ask of it), [`view`] (what they are shown). Invariants: a host's facts and conditions change together,
//! in one transaction, decided by one pure function; nothing that must outlive a crash is in memory alone; no lock and
//! no transaction is held while the network is waited for. It serves no people: API, console and CLI are other rooms.
//!
//! The parts: `engine` (a change and what follows), `actions` (one file a kind of work), `boot` (the boot services'
//! questions), `enrol`, `media`, `console`, `agents` (the listeners), `vms`, `observe`, `show`, `requests`, `serve`.

mod actions;
mod agents;
mod boot;
mod config;
mod console;
mod control;
pub mod doctor;
mod engine;
mod enrol;
mod failed_boot;
mod fetch;
mod handshake;
mod https_boot;
mod known_vms;
mod leases;
mod listen;
mod media;
mod observe;
mod pending;
mod pinger;
mod port;
mod puller;
mod records;
mod requests;
pub mod secure;
mod serve;
pub mod service;
mod sessions;
mod show;
mod standing;
pub mod view;
mod vms;
pub mod world;

#[cfg(test)]
mod tests;

pub use config::{ControlConfig, Images, Listener, Ports, Puller};
pub use control::{Control, OpenError};
pub use serve::{BuiltInProfiles, Served, open};
pub use service::{ApplyRequest, ConsentRequest, DoctorRequest, Login, Service, ServiceError};
pub use standing::{Standing, relayed, standings};
