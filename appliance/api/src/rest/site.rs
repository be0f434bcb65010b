//! The site as a whole: plan, status, why, events, VMs.

use crate::extract::{Body, Segment};
use crate::{Api, Identity, Problem, live};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use dayzero_control::view::{Applied, DoctorFinding, PlanPreview, StatusView, VmRequest, WhyView};
use dayzero_control::{ApplyRequest, DoctorRequest};
use dayzero_model::site::Site;
use dayzero_model::vm::Vm;
use std::sync::Arc;

type Api_ = State<Arc<Api>>;

pub(crate) async fn preview(State(api): Api_, Body(site): Body<Site>) -> Result<Json<PlanPreview>, Problem> {
    Ok(Json(api.service.plan_preview(&site).await?))
}

pub(crate) async fn apply(
    State(api): Api_,
    identity: Identity,
    Body(request): Body<ApplyRequest>,
) -> Result<Json<Applied>, Problem> {
    Ok(Json(api.service.apply(request, &identity.who).await?))
}

pub(crate) async fn status(State(api): Api_) -> Result<Json<StatusView>, Problem> {
    Ok(Json(api.service.status().await?))
}

pub(crate) async fn why(
    State(api): Api_,
    Segment(subject): Segment<String>,
) -> Result<Json<WhyView>, Problem> {
    Ok(Json(api.service.why(&subject).await?))
}

/// A file for Wireshark.
pub(crate) async fn pcap(State(api): Api_, Segment(subject): Segment<String>) -> Result<Response, Problem> {
    let file = api.service.pcap(&subject).await?;
    // Fit for a file's name, whatever was asked for.
    let name: String = subject.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let disposition = format!("attachment; filename=\"dayzero-{name}.pcapng\"");
    Ok(([(CONTENT_TYPE, "application/x-pcapng".to_owned()), (CONTENT_DISPOSITION, disposition)], file)
        .into_response())
}

pub(crate) async fn doctor(
    State(api): Api_,
    Body(request): Body<DoctorRequest>,
) -> Result<Json<Vec<DoctorFinding>>, Problem> {
    Ok(Json(api.service.doctor(request).await?))
}

pub(crate) async fn events(State(api): Api_, identity: Identity) -> Response {
    live::timeline(api, identity).into_response()
}

pub(crate) async fn confirm(
    State(api): Api_,
    identity: Identity,
    Segment(id): Segment<String>,
) -> Result<StatusCode, Problem> {
    api.service.confirm(&id, &identity.who).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn vms(State(api): Api_) -> Result<Json<Vec<Vm>>, Problem> {
    Ok(Json(api.service.vms().await?))
}

pub(crate) async fn vm_create(
    State(api): Api_,
    identity: Identity,
    Body(request): Body<VmRequest>,
) -> Result<(StatusCode, Json<Vm>), Problem> {
    Ok((StatusCode::CREATED, Json(api.service.vm_create(request, &identity.who).await?)))
}
