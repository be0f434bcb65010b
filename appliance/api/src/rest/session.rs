//! Logging in and out. The cookie is made and read here alone.

use crate::extract::Body;
use crate::identity::{From, Identity};
use crate::{Api, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dayzero_model::secret::Secret;
use dayzero_trust::{LoggedIn, LoginError, Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Name of the session cookie. `__Host-` binds it to this host, to HTTPS and to `/` (RFC 6265bis section 4.1.3).
pub const COOKIE: &str = "__Host-dayzero";
/// Age of the cookie, seconds; the store's record ends the session.
const AGE: u32 = 12 * 3600;

type Api_ = State<Arc<Api>>;

/// Body of `POST /v1/login`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// User's name.
    pub user: String,
    /// Password.
    pub password: Secret<String>,
}

/// Body of `POST /v1/login/claim`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The claim code.
    pub code: Secret<String>,
    /// The administrator's new password, 12 to 256 characters.
    pub password: Secret<String>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoAmI {
    /// Name.
    pub who: String,
    /// What it may do.
    pub role: Role,
}

/// Answer of `POST /v1/claim`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimCode {
    /// The code: shown once, works once.
    pub claim: Secret<String>,
}

/// The cookie that carries a session's id.
pub(crate) fn set_cookie(id: &Secret<String>) -> HeaderValue {
    let text = format!("{COOKIE}={}; Path=/; Max-Age={AGE}; HttpOnly; Secure; SameSite=Strict", id.expose());
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// The cookie that removes it.
pub(crate) fn clear_cookie() -> HeaderValue {
    HeaderValue::from_static("__Host-dayzero=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict")
}

/// The session id in the request's cookies: 64 hex digits, or nothing.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<Secret<String>> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, id) = pairs.find(|(name, _)| *name == COOKIE)?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Secret::new(id.to_owned()))
}

/// Logs in by password, and says so on the log without the secret.
pub(crate) async fn enter(api: &Api, from: &str, request: &LoginRequest) -> Result<LoggedIn, LoginError> {
    let login = api.users.login(&request.user, &request.password, from, api.now()).await;
    match &login {
        Ok(login) => tracing::info!(user = %login.session.user, from, "logged in"),
        Err(error) => tracing::warn!(from, %error, "a login was refused"),
    }
    login
}

/// Logs in by claim code.
pub(crate) async fn enter_by_code(
    api: &Api,
    from: &str,
    request: &ClaimRequest,
) -> Result<LoggedIn, LoginError> {
    let login = api.users.claim(&request.code, &request.password, from, api.now()).await;
    match &login {
        Ok(_) => tracing::info!(from, "the appliance was claimed"),
        Err(error) => tracing::warn!(from, %error, "a claim was refused"),
    }
    login
}

fn entered(login: LoggedIn) -> Response {
    let who = WhoAmI { who: login.session.user.to_string(), role: login.session.role };
    ([(header::SET_COOKIE, set_cookie(&login.id))], Json(who)).into_response()
}

pub(crate) async fn login(
    State(api): Api_,
    From(from): From,
    Body(request): Body<LoginRequest>,
) -> Result<Response, Problem> {
    Ok(entered(enter(&api, &from, &request).await?))
}

pub(crate) async fn claim(
    State(api): Api_,
    From(from): From,
    Body(request): Body<ClaimRequest>,
) -> Result<Response, Problem> {
    Ok(entered(enter_by_code(&api, &from, &request).await?))
}

pub(crate) async fn logout(State(api): Api_, identity: Identity) -> Result<Response, Problem> {
    if let Some(id) = &identity.session {
        api.users.logout(id.expose()).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, clear_cookie())]).into_response())
}

pub(crate) async fn whoami(identity: Identity) -> Json<WhoAmI> {
    Json(WhoAmI { who: identity.who, role: identity.role })
}

pub(crate) async fn new_claim(State(api): Api_, identity: Identity) -> Result<Json<ClaimCode>, Problem> {
    let claim = api.users.new_claim(api.now()).await?;
    tracing::info!(who = identity.who, "a new claim code was made");
    Ok(Json(ClaimCode { claim }))
}
