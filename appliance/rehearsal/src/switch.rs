//! The lab's switches: a pure core, and the thread that carries frames between it and sockets and taps.

pub mod core;
pub mod fabric;
pub mod frame;
pub mod lacp;
pub mod lldp;
pub mod table;
pub mod tap;

#[cfg(test)]
mod tests;
