//! The timeline: what every source saw, by host and MAC, in memory and in the store; and `why`, which reads it.
//!
//! Invariants: memory and store are bounded for each subject and in all, whoever sends what on the boot network;
//! recording never blocks and never fails (an event that could not be stored is still in memory, and the loss is
//! logged). It decides nothing and changes no state.
//!
//! The parts: `keep` has the events, `capture` the datagrams as they came, `boots` those of failed boots in the store, `pcapng`
//! writes them for Wireshark, `why` is the rules, `text` one line an event.

mod boots;
pub mod capture;
mod keep;
mod pcapng;
pub mod text;
pub mod why;

pub use boots::Failure;
pub use keep::Timeline;
pub use why::{Finding, Hop, WhyContext, why};
