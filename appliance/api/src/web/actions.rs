//! What a person may do from a page. Each leads back to the page that it belongs to.

use super::problem_page;
use crate::extract::Segment;
use crate::{Api, Identity};
use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use dayzero_control::{ConsentRequest, ServiceError};
use dayzero_model::ids::HostName;
use std::sync::Arc;

type Api_ = State<Arc<Api>>;

async fn back(api: &Api, identity: &Identity, host: &HostName, done: Result<(), ServiceError>) -> Response {
    match done {
        Ok(()) => Redirect::to(&format!("/hosts/{host}")).into_response(),
        Err(error) => problem_page(api, identity, error.into()).await,
    }
}

pub(crate) async fn retry(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
) -> Response {
    let done = api.service.retry(&host, &identity.who).await;
    back(&api, &identity, &host, done).await
}

pub(crate) async fn consent(
    State(api): Api_,
    identity: Identity,
    Segment(host): Segment<HostName>,
    Form(request): Form<ConsentRequest>,
) -> Response {
    let done = api.service.consent(&host, request, &identity.who).await;
    back(&api, &identity, &host, done).await
}
