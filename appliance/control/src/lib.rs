//! The control plane: carries out what `dayzero-lifecycle` decides, and is the only writer of states.
//!
//! Entry points: [`Service`] (what people and tools may ask), [`view`] (what they are shown).

pub mod service;
pub mod view;

pub use service::{ApplyRequest, ConsentRequest, Login, Service, ServiceError};
