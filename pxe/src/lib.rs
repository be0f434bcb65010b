//! Network boot services: DHCP for IPv4 and IPv6, router advertisement, DNS, TFTP, HTTP boot, boot scripts, and a doctor that looks before
//! they are switched on.
//!
//! Purpose: answer whatever powers on in the racks. Invariants: it decides no host's life: who a MAC is and what it
//! may boot is asked of a [`BootDirector`], each time anew; what it saw and did goes there as events; nothing that
//! it serves is secret; nothing from the network changes a state but DHCP leases, which are durable before they are
//! acknowledged. One socket a service and interface, bound to the device, so that networks never mix.
//!
//! The parts: `dhcp` and `dhcp6` (pure cores and their sockets), `ra`, `dns`, `tftp` (over `dayzero-tftp-server`), `http`, `script`,
//! `doctor`; `server` starts them by what `opened` lists, and `live` has them follow another plan.

mod config;
pub mod dhcp;
mod dhcp6;
mod director;
mod dns;
pub mod doctor;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod late;
mod limit;
mod live;
mod machine;
mod neighbours;
mod net;
mod opened;
mod overhear;
mod ra;
pub mod script;
mod server;
mod session;
mod tftp;
mod time;

pub use config::{
    BootFiles, ConfigError, DhcpTimes, Ipv4Prefix, Ipv6Prefix, LeasePool, Loaders, NameZone, Ports,
    PxeConfig, SecureLoaders, ServedInterface, ServedNetwork,
};
pub use dhcp::lease::{Lease, LeaseChange, LeaseStore, LeaseStoreError, MemoryLeases};
pub use director::{BootDirector, PxeEvent, RelayPort, ScriptQuery, SeenClient};
pub use late::LateFiles;
pub use limit::Limit;
pub use live::Live;
pub use server::{PxeServer, RunError, StartError};
