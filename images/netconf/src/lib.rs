//! A host's network by netlink: observe → [`plan::Plan`] (pure) → apply → read back; LLDP.
//!
//! Invariants: a second pass over an unchanged host has no operations; links are found by MAC or by our own names, and
//! names are resolved to indexes again at each operation; links that are not ours are reported and left alone.
//! It never reads sysfs (that shows another namespace's links) and starts no program.
//!
//! What a user of this crate calls:
//! - [`converge`]`(&HostNetwork) -> NetworkReport`: makes the network so, and reads it back (never fails: problems stand in the report);
//! - [`report`]`(&HostNetwork) -> NetworkReport`: reads back alone, changes nothing;
//! - [`observe::observe`]`() -> Result<Observed, NetError>`, [`plan::Plan::new`]`(&Observed, &HostNetwork)`, [`apply::apply`]`(&Plan) -> Vec<OpStatus>`: the parts;
//! - [`discovery::discovery_up`]`(MacAddr, Ipv4Net, Option<gateway>) -> Result<(), NetError>`: one NIC with a static address, for PID 1;
//! - [`discovery::all_up`]`(&[MacAddr]) -> Result<(), NetError>`: links up without address (all physical ones for an empty list), so that carrier and LLDP are seen;
//! - [`dhcp::keep`]`(MacAddr, hostname, Sender<State>) -> Result<Infallible, NetError>`: an address by DHCP on one NIC, for as long as it is polled;
//! - [`lldp::listen`]`(&[MacAddr], Duration) -> Result<Vec<Neighbour>, NetError>`: neighbours heard; ends early once each NIC heard one;
//! - [`lldp::announce`]`(&[MacAddr], system_name) -> Result<(), NetError>`: one LLDP frame out of each NIC.

pub mod apply;
pub mod bond;
pub mod dhcp;
pub mod discovery;
pub mod error;
mod ethtool;
pub mod foreign;
pub mod lldp;
mod netlink;
pub mod observe;
pub mod observed;
pub mod op;
mod packet;
pub mod plan;
pub mod report;
mod sysctl;

pub use error::NetError;
pub use report::{converge, report};
