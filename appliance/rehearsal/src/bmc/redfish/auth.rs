//! Who asks: by session token or by HTTP basic authentication.

use super::{Answer, Service};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;

/// An authenticated account.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) account: u32,
    pub(super) administrator: bool,
}

/// The caller, or the refusal.
pub(super) async fn caller(service: &Service, headers: &HeaderMap) -> Result<Caller, Answer> {
    if let Some(token) = headers.get("x-auth-token").and_then(|v| v.to_str().ok()) {
        let state = service.state();
        let session = state.sessions.values().find(|s| s.token == token);
        let account = session.and_then(|s| state.accounts.get(&s.account).map(|a| (s.account, a)));
        let caller = account.filter(|(_, a)| a.enabled);
        return caller
            .map(|(id, a)| Caller { account: id, administrator: a.role == "Administrator" })
            .ok_or_else(refusal);
    }
    let (user, password) = basic(headers).ok_or_else(refusal)?;
    check(service, &user, &password).await.ok_or_else(refusal)
}

/// 401, with the way in.
pub(super) fn refusal() -> Answer {
    let answer =
        Answer::error(StatusCode::UNAUTHORIZED, "NoValidSession", "There is no valid session or credential.");
    answer.with(header::WWW_AUTHENTICATE, "Basic realm=\"BMC\"")
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let plain = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let (user, password) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The enabled account of that name and password.
pub(super) async fn check(service: &Service, user: &str, password: &str) -> Option<Caller> {
    let (account, kept, administrator) = {
        let state = service.state();
        let (id, account) = state.account_of(user).filter(|(_, a)| a.enabled)?;
        (id, account.password.clone(), account.role == "Administrator")
    };
    let password = password.to_owned();
    let good = tokio::task::spawn_blocking(move || kept.matches(&password)).await.unwrap_or(false);
    good.then_some(Caller { account, administrator })
}
