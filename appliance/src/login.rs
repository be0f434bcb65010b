//! `dayzero login` and `dayzero logout`: a session at an appliance elsewhere.
//!
//! Invariants: codes and passwords are read from the terminal without echo, or from standard input, a line each; they
//! stand in no argument and no URL, and are sent only over TLS to the certificate that was compared.

use crate::cli::LoginOptions;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::remote::Server;
use crate::session::{self, Login, Sessions};
use dayzero_api::rest::session::{COOKIE, ClaimRequest, LoginRequest, WhoAmI};
use dayzero_model::Secret;
use dayzero_model::ids::Sha256;
use hyper::header::SET_COOKIE;
use hyper::{HeaderMap, Method};
use serde::Serialize;

/// User that a claim code makes.
const ADMIN: &str = "admin";

/// What `-o json` shows of a login.
#[derive(Serialize)]
struct Shown<'a> {
    server: &'a Server,
    who: &'a str,
    role: dayzero_trust::Role,
}

/// Logs in, and keeps the session in the session file.
pub(crate) async fn login(out: Output, options: LoginOptions) -> Result<(), Failure> {
    let file = session::place()?;
    let mut sessions = Sessions::load(&file)?;
    let server = options.appliance;
    let known = sessions.logins.get(&server).map(|login| login.fingerprint);
    let fingerprint = match options.fingerprint.or(known) {
        Some(fingerprint) => fingerprint,
        None => compared(out, &server).await?,
    };
    // Before anything is typed.
    drop(server.connect(fingerprint).await?);
    let client = Client::at(server.clone(), fingerprint, None);
    let (headers, who): (HeaderMap, WhoAmI) = if options.claim {
        let code = out.ask_secret("Claim code:")?;
        let password = new_password(out)?;
        client.post_for_headers("/v1/login/claim", &ClaimRequest { code, password }).await?
    } else {
        let user = options.user.unwrap_or_else(|| ADMIN.to_owned());
        let password = out.ask_secret(&format!("Password of '{user}':"))?;
        client.post_for_headers("/v1/login", &LoginRequest { user, password }).await?
    };
    let session = cookie(&headers).ok_or_else(|| Failure::System(format!("{server} gave no session")))?;
    let login = Login { fingerprint, user: who.who.clone(), session };
    sessions.logins.insert(server.clone(), login);
    sessions.current = Some(server.clone());
    sessions.save(&file)?;
    out.show(&Shown { server: &server, who: &who.who, role: who.role }, |shown| {
        format!(
            "logged in to {} as {}; commands go there until `dayzero logout`, for 12 hours at most",
            shown.server, shown.who
        )
    })
}

/// Ends the session there, and forgets it here.
pub(crate) async fn logout(out: Output, server: Option<Server>) -> Result<(), Failure> {
    let file = session::place()?;
    let mut sessions = Sessions::load(&file)?;
    let server = server
        .or_else(|| sessions.current.clone())
        .ok_or_else(|| Failure::user("nobody is logged in to an appliance"))?;
    let Some(login) = sessions.logins.remove(&server) else {
        return Err(Failure::user(format!("nobody is logged in to {server}")));
    };
    if sessions.current.as_ref() == Some(&server) {
        sessions.current = None;
    }
    sessions.save(&file)?;
    let client = Client::at(server.clone(), login.fingerprint, Some(login.session));
    if let Err(failure) = client.act(Method::POST, "/v1/logout").await {
        let why = failure.message().unwrap_or_default().to_owned();
        out.note(&format!("note: the session may go on at {server} until its time is over: {why}"));
    }
    out.done(&format!("logged out of {server}"))
}

/// A fingerprint that nobody gave is shown, and a person compares it.
async fn compared(out: Output, server: &Server) -> Result<Sha256, Failure> {
    if !out.is_person() {
        return Err(Failure::user(
            "nobody is there to compare the certificate: add --fingerprint with what the appliance's screen shows",
        ));
    }
    let shown = server.look().await?;
    out.note(&format!("{server} shows this certificate:\nfingerprint: {shown}"));
    match out.ask("Does the appliance's screen show the same? (yes/no)")?.as_deref().map(str::trim) {
        Some("yes" | "y") => Ok(shown),
        _ => Err(Failure::user("nothing was sent")),
    }
}

fn new_password(out: Output) -> Result<Secret<String>, Failure> {
    let password = out.ask_secret("New password for 'admin', 12 characters or more:")?;
    if out.is_person() && out.ask_secret("Once more:")? != password {
        return Err(Failure::user("the two are different; nothing was sent"));
    }
    Ok(password)
}

/// The session in the answer's cookies.
fn cookie(headers: &HeaderMap) -> Option<Secret<String>> {
    let cookies = headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let id = cookies
        .filter_map(|line| line.split(';').next()?.split_once('='))
        .find(|(name, _)| *name == COOKIE)?
        .1;
    (!id.is_empty()).then(|| Secret::new(id.to_owned()))
}
