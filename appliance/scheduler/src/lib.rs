//! Where a VM goes: capacity of hosts and storage, the N-1 cap, thresholds, and one deterministic choice.
//!
//! Pure: no I/O, no clock, no randomness. Invariants: a placement never exceeds a capacity; the same cluster and
//! request give the same host; a refusal names, for each host, an inequality that really fails, with its numbers.
//! Memory is never overcommitted; CPU is, by the cluster's factor. It carries nothing out: `control` reserves what was
//! placed by [`ClusterView::reserve`] in the step that stores it.

mod cluster;
mod place;
mod policy;

pub use cluster::{ClusterView, HostView, StorageView, Unknown, Usage};
pub use place::{HostRefusal, Inequality, Placement, Refusal, Request, Resource, place};
pub use policy::{Policy, Thresholds};
