//! Login, claim and logout as pages.

use super::render;
use crate::identity::{From, Identity};
use crate::rest::session::{ClaimRequest, LoginRequest, clear_cookie, enter, enter_by_code, set_cookie};
use crate::{Api, Problem};
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use dayzero_model::secret::Secret;
use dayzero_trust::{LoggedIn, LoginError};
use serde::Deserialize;
use std::sync::Arc;

type Api_ = State<Arc<Api>>;

#[derive(Template)]
#[template(path = "login.html")]
struct Door {
    claim: bool,
    has_users: bool,
    user: String,
    problem: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct DoorQuery {
    claim: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginForm {
    user: String,
    password: Secret<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimForm {
    code: Secret<String>,
    password: Secret<String>,
    again: Secret<String>,
}

fn has_users(api: &Api) -> Result<bool, Problem> {
    Ok(!api.users.users()?.is_empty())
}

pub(crate) async fn page(State(api): Api_, Query(query): Query<DoorQuery>) -> Result<Response, Problem> {
    let has_users = has_users(&api)?;
    let claim = !has_users || query.claim.is_some();
    Ok(render(&Door { claim, has_users, user: String::new(), problem: None }))
}

fn entered(login: &LoggedIn) -> Response {
    ([(header::SET_COOKIE, set_cookie(&login.id))], Redirect::to("/")).into_response()
}

fn refused(error: LoginError, page: impl FnOnce(String) -> Door) -> Response {
    let problem = Problem::from(error);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, render(&page(problem.detail))).into_response()
}

pub(crate) async fn login(
    State(api): Api_,
    From(from): From,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    let request = LoginRequest { user: form.user.trim().to_owned(), password: form.password };
    match enter(&api, &from, &request).await {
        Ok(login) => Ok(entered(&login)),
        Err(error) => {
            let has_users = has_users(&api)?;
            let user = request.user.chars().take(64).collect();
            Ok(refused(error, |text| Door { claim: !has_users, has_users, user, problem: Some(text) }))
        }
    }
}

pub(crate) async fn claim(
    State(api): Api_,
    From(from): From,
    Form(form): Form<ClaimForm>,
) -> Result<Response, Problem> {
    let has_users = has_users(&api)?;
    let door = |text| Door { claim: true, has_users, user: String::new(), problem: Some(text) };
    if form.password != form.again {
        let page = door("the two passwords are not the same: type both again".to_owned());
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, render(&page)).into_response());
    }
    let request = ClaimRequest { code: form.code, password: form.password };
    match enter_by_code(&api, &from, &request).await {
        Ok(login) => Ok(entered(&login)),
        Err(error) => Ok(refused(error, door)),
    }
}

pub(crate) async fn logout(State(api): Api_, identity: Identity) -> Result<Response, Problem> {
    if let Some(id) = &identity.session {
        api.users.logout(id.expose()).await?;
    }
    Ok(([(header::SET_COOKIE, clear_cookie())], Redirect::to("/login")).into_response())
}
