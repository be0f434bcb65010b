//! IPMI 2.0 over RMCP+ (the LAN side of a BMC), through Debian's `ipmitool` 1.8.19 as a child process.
//!
//! Invariants: cipher suite 3 unless asked otherwise (never 0); a password never stands on an argument list: the login's goes
//! by environment, one that is to be set goes by standard input; each call is bounded in time and output, and its child is
//! killed with it; nothing of a call that carried a password is logged.
//!
//! It knows the commands, not the vendors: byte orders and lies of firmware are the caller's.

mod error;
mod parse;
mod sol;
mod tool;
mod user;
mod verbs;

pub use error::RmcpError;
pub use parse::{BootDevice, BootFlags, Fru, LanInfo, McInfo, User};
pub use sol::{LineBuffer, SolSession};
pub use tool::{Ipmi, Limits, Login};
pub use user::{MAX_NAME, MAX_PASSWORD};
pub use verbs::PowerCommand;
