//! One host: its view, and what a person may have done to it.

use crate::extract::{Asked, Body, Segment};
use crate::{Api, Identity, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dayzero_control::ConsentRequest;
use dayzero_control::view::{HostSummary, HostView};
use dayzero_model::ids::{HostName, Name};
use dayzero_model::proof::ProofReport;
use dayzero_trust::Credential;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Events of a timeline that are shown unless asked otherwise.
pub const EVENTS: usize = 200;
/// Most events of a timeline in one answer.
const MOST_EVENTS: usize = 10_000;

type Api_ = State<Arc<Api>>;

/// Query of `GET /v1/hosts/{host}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowQuery {
    /// How many of the last events.
    events: Option<usize>,
}

/// Body of `POST /v1/hosts/{host}/prove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProveRequest {
    /// Role of the NIC that is pulled first and left out: the control, which must fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_leg: Option<Name>,
}

pub(crate) async fn list(State(api): Api_) -> Result<Json<Vec<HostSummary>>, Problem> {
    let status = api.service.status().await?;
    Ok(Json(status.racks.into_iter().flat_map(|rack| rack.hosts).collect()))
}

pub(crate) async fn show(
    State(api): Api_,
    Segment(host): Segment<HostName>,
    Asked(query): Asked<ShowQuery>,
) -> Result<Json<HostView>, Problem> {
    let events = query.events.unwrap_or(EVENTS).min(MOST_EVENTS);
    Ok(Json(api.service.host(&host, events).await?))
}

/// Query of `DELETE /v1/hosts/{host}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetireQuery {
    /// A generated BMC credential is forgotten too.
    #[serde(default)]
    forget_credential: bool,
}

pub(crate) async fn credential(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
) -> Result<Json<Vec<Credential>>, Problem> {
    Ok(Json(api.service.bmc_credentials(&host, &identity.who).await?))
}

pub(crate) async fn retire(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
    Asked(query): Asked<RetireQuery>,
) -> Result<StatusCode, Problem> {
    api.service.retire(&host, query.forget_credential, &identity.who).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn retry(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
) -> Result<StatusCode, Problem> {
    api.service.retry(&host, &identity.who).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn reset(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
) -> Result<StatusCode, Problem> {
    api.service.reset_host(&host, &identity.who).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn consent(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
    Body(request): Body<ConsentRequest>,
) -> Result<StatusCode, Problem> {
    api.service.consent(&host, request, &identity.who).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn prove(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
    Body(request): Body<ProveRequest>,
) -> Result<Json<ProofReport>, Problem> {
    Ok(Json(api.service.prove(&host, request.without_leg, &identity.who).await?))
}
