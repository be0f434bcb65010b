//! One host's life, decided: twelve conditions in order, each with one pure step; no I/O, no clock, no randomness.
//!
//! [`advance`] looks at a [`Snapshot`] and says which conditions changed and which one [`Action`] is to be carried out.
//! Invariants: the phase is the first condition that is not met; a met condition whose facts changed is looked at
//! again; each piece of work and each wait has a deadline, and each condition a limit that no sequence of them
//! outlasts. What an action does is `dayzero-control`'s task.
//!
//! Where do I add a condition: one file in `conditions/`, one row in [`conditions::step`].

mod action;
mod advance;
pub mod boot;
pub mod cause;
pub mod conditions;
pub mod deadlines;
pub mod desired;
pub mod retry;
mod snapshot;
pub mod started;

#[cfg(test)]
mod testing;

pub use action::{Action, ActionKind, ProofOrder, ProofPath, RotateStep};
pub use advance::{Advance, advance};
pub use snapshot::{Outcome, Snapshot, Surroundings, basis};
