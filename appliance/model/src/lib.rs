//! Plain types that every room of Dayzero shares: the site plan, hosts and their conditions, inventory, network,
//! storage, VMs, timeline events and the agent's wire protocol.
//!
//! Invariants: no I/O, no clock, no randomness; everything serialises with serde; what Dayzero itself owns
//! (plan, wire protocol) denies unknown fields. It does not validate relations between objects: that is
//! `dayzero-plan`'s task.

pub mod boot;
pub mod condition;
pub mod datagram;
pub mod event;
pub mod facts;
pub mod ids;
pub mod install;
pub mod inventory;
pub mod lldp;
pub mod media;
pub mod network;
pub mod proof;
pub mod secret;
pub mod site;
pub mod startup;
pub mod storage;
pub mod units;
pub mod vm;
pub mod wire;

pub use ids::{BootId, HostName, MacAddr, Name, OptionBytes, Sha256, Wwn};
pub use secret::Secret;
pub use units::{Bytes, MebiBytes, Millis, Timestamp};
