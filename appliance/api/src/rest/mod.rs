//! REST handlers: thin, each asks the service once.

pub mod hosts;
pub mod session;
pub(crate) mod site;

use crate::identity::Maybe;
use crate::{Api, Health, Problem};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(crate) async fn health(State(api): State<Arc<Api>>, Maybe(identity): Maybe) -> Json<Health> {
    Json(api.health(identity.is_some()))
}

pub(crate) async fn openapi() -> Json<serde_json::Value> {
    Json(crate::openapi())
}

/// Answer of `POST /v1/store/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// Records, each with a sound checksum.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs, each read and hashed.
    pub blobs: u64,
}

pub(crate) async fn verify(State(api): State<Arc<Api>>) -> Result<Json<Verified>, Problem> {
    let store = api.store.clone();
    let found = tokio::task::spawn_blocking(move || store.verify()).await;
    let found = found.map_err(|error| Problem::system(&error))??;
    Ok(Json(Verified { records: found.records, bytes: found.bytes, blobs: found.blobs }))
}
