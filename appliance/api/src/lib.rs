//! The API: native REST with OpenAPI, the event stream and the web console, over [`dayzero_control::Service`].
//!
//! Entry points: [`Api`] (what both listeners share), [`unix`] (the CLI's socket: peer credentials), [`operators`]
//! (HTTPS: login, session cookie, console). Where do I add a command: one row in [`routes`], one handler in `rest/`.
//!
//! Invariants:
//! - each route stands in one table with the role that it needs; what is not marked open is refused without an identity;
//! - an asker's fault is answered with 4xx, a system's with 5xx, both as `application/problem+json` (RFC 9457);
//! - request bodies are bounded, and unknown fields are refused;
//! - no secret is in an answer, but for a claim code to root on the Unix socket and a session's own cookie.
//!
//! It decides nothing about hosts: it asks the service, and shows what that answers.

mod api;
mod extract;
mod identity;
mod live;
mod openapi;
pub mod operators;
mod problem;
pub mod rest;
pub mod routes;
pub mod unix;
mod web;

pub use api::{Api, Health};
pub use identity::Identity;
pub use openapi::document as openapi;
pub use problem::Problem;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
