//! The virtual rack: QEMU machines that really PXE-boot, the switches between them, a SAN, a store and the BMCs.
//!
//! Invariants: everything that the lab makes (namespaces, processes, sockets) is written down before it is used and
//! is gone after it; machines and switches need nothing of the root network namespace. It contains no part of the
//! product that it tests: it shares types with it, not behaviour.

pub mod blueprint;
pub mod bmc;
pub mod cleanup;
pub mod client;
pub mod forward;
pub mod lab;
pub mod machine;
pub mod netns;
pub mod process;
pub mod protocol;
pub mod qmp;
pub mod san;
pub mod serial;
pub mod state;
pub mod store;
pub mod switch;

pub use client::LabClient;
pub use lab::{Lab, LabError, LabOptions, run_lab};
