//! The agent: PID 1 of the discovery image, then a service on each installed host; and PID 1 of the appliance.
//!
//! In discovery it reads the hardware, makes a key that the host's BMC vouches for, enrols, and carries out orders
//! (inventory, installation). On the installed host it owns network and storage paths, runs the proof's writer and
//! drives VMs through libvirt. It decides nothing: orders come over mutual TLS from the appliance, from the closed
//! list of `dayzero_model::wire::Order`; there is no message that runs a command.

pub mod ask;
pub mod channel;
pub mod cmdline;
pub mod console;
pub mod credentials;
pub mod discovery;
pub mod enrol;
pub mod frames;
pub mod init;
pub mod inventory;
pub mod jobs;
pub mod kmod;
pub mod orders;
pub mod service;
pub mod smbios;
pub mod vms;
pub mod vouch;
