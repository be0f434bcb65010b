//! The transport: one client to one service. Authentication, ETags, bounded bodies, links that stay on the host.

use crate::error::innermost;
use crate::tls::{Fingerprint, PinVerifier};
use crate::{RedfishError, view};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The service root (DSP0266, 6.3): the only path that is known beforehand.
pub(crate) const ROOT: &str = "/redfish/v1/";
const TOKEN: &str = "X-Auth-Token";
const MAX_REDIRECTS: usize = 3;
const MAX_PAGES: usize = 64;

/// A user and a password. `Debug` shows the user alone; the password is wiped on drop.
#[derive(Clone)]
pub struct Credential {
    /// Account name.
    pub user: String,
    password: Zeroizing<String>,
}

impl Credential {
    /// A credential from its two parts.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).field("password", &"..").finish()
    }
}

/// How to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// A session where the service has them and grants one, else basic.
    #[default]
    Auto,
    /// HTTP basic authentication with each request: leaves no session behind.
    Basic,
    /// Sessions only.
    Session,
}

/// Bounds of one client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TCP and TLS.
    pub connect: Duration,
    /// One request with its answer.
    pub request: Duration,
    /// Bytes of one body.
    pub body: usize,
    /// Members that are read of one collection.
    pub members: usize,
    /// How long a task or a read-back is waited for.
    pub settle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
            body: 4 << 20,
            members: 256,
            settle: Duration::from_secs(60),
        }
    }
}

/// What a client is built from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and TLS port (443) of the service.
    pub address: SocketAddr,
    /// Who we are; none reads the service root only.
    pub credential: Option<Credential>,
    /// Session or basic.
    pub auth: AuthMode,
    /// The known certificate; none trusts the first one.
    pub pin: Option<Fingerprint>,
    /// Bounds.
    pub limits: Limits,
}

struct Session {
    token: Zeroizing<String>,
    location: Option<String>,
}

enum Auth {
    Unknown,
    Basic,
    Session(Session),
}

/// A resource as it was read: its JSON and its entity tag.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) etag: Option<String>,
    /// Methods that the service allows on it (`Allow`), where it says so.
    pub(crate) allow: Option<String>,
}

/// An answer to a write.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A client of one Redfish service. All verbs are in [`Client`]'s other `impl` blocks.
pub struct Client {
    http: reqwest::Client,
    pub(crate) address: SocketAddr,
    credential: Option<Credential>,
    pub(crate) mode: AuthMode,
    auth: tokio::sync::Mutex<Auth>,
    verifier: Arc<PinVerifier>,
    pub(crate) limits: Limits,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .field("credential", &self.credential)
            .finish()
    }
}

impl Client {
    /// Builds a client; nothing is sent yet.
    ///
    /// # Errors
    /// [`RedfishError::Setup`] when TLS cannot be set up.
    pub fn new(options: Options) -> Result<Self, RedfishError> {
        let setup = |e: &dyn std::error::Error| RedfishError::Setup(innermost(e));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(PinVerifier::new(options.pin, provider.clone()));
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(&e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.limits.connect)
            .timeout(options.limits.request)
            .pool_max_idle_per_host(2)
            .build()
            .map_err(|e| setup(&e))?;
        Ok(Self {
            http,
            address: options.address,
            credential: options.credential,
            mode: options.auth,
            auth: tokio::sync::Mutex::new(Auth::Unknown),
            verifier,
            limits: options.limits,
        })
    }

    /// The certificate that this client talks to: known after the first answer.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.verifier.accepted()
    }

    /// The account that this client uses.
    pub fn user(&self) -> Option<&str> {
        self.credential.as_ref().map(|c| c.user.as_str())
    }

    /// Ends the session, if there is one. Without this a session stays until the service times it out.
    pub async fn close(&self) {
        let before = std::mem::replace(&mut *self.auth.lock().await, Auth::Unknown);
        if let Auth::Session(Session { token, location: Some(location) }) = before {
            let headers = token_header(&token);
            if let Err(error) = self.exchange(Method::DELETE, &location, None, headers, false).await {
                tracing::debug!(%error, "the session was not ended");
            }
        }
    }

    /// Reads a resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Resource, RedfishError> {
        let mut at = path.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(Method::GET, &at, None, None, false).await?;
            if answer.status.is_redirection() {
                let target = text_header(&answer.headers, header::LOCATION).unwrap_or_default();
                at = self.local_path(&at, &target)?;
                continue;
            }
            if !answer.body.is_object() {
                return Err(RedfishError::Body { path: at, problem: "the answer is no JSON object".into() });
            }
            let etag = text_header(&answer.headers, header::ETAG)
                .or_else(|| view::text(&answer.body, "/@odata.etag").map(str::to_owned));
            let allow = text_header(&answer.headers, header::ALLOW);
            return Ok(Resource { path: at, body: answer.body, etag, allow });
        }
        Err(RedfishError::Body { path: path.to_owned(), problem: "too many redirects".into() })
    }

    /// Reads the resource that `pointer` of `from` links to.
    pub(crate) async fn follow(&self, from: &Resource, pointer: &str) -> Result<Resource, RedfishError> {
        let link = self.link(from, pointer)?;
        self.get(&link).await
    }

    /// The path that `pointer` of `from` links to.
    pub(crate) fn link(&self, from: &Resource, pointer: &str) -> Result<String, RedfishError> {
        let missing = || RedfishError::Missing {
            path: from.path.clone(),
            field: pointer.trim_matches('/').replace('/', "."),
        };
        let link = view::text(&from.body, &format!("{pointer}/@odata.id")).ok_or_else(missing)?;
        self.local_path(&from.path, link)
    }

    /// Links of a collection's members, bounded.
    pub(crate) async fn members(&self, collection: &Resource) -> Result<Vec<String>, RedfishError> {
        let mut links = Vec::new();
        let mut page = collection.clone();
        for _ in 0..MAX_PAGES {
            for member in page.body.get("Members").and_then(Value::as_array).into_iter().flatten() {
                if let Some(link) = view::text(member, "/@odata.id") {
                    links.push(self.local_path(&page.path, link)?);
                }
                if links.len() >= self.limits.members {
                    return Ok(links);
                }
            }
            let Some(next) = view::text(&page.body, "/Members@odata.nextLink") else { break };
            let next = self.local_path(&page.path, next)?;
            page = self.get(&next).await?;
        }
        Ok(links)
    }

    /// Changes a resource: `If-Match` with its entity tag; when that has changed meanwhile, reads it again and tries once more.
    pub(crate) async fn patch(
        &self,
        at: &Resource,
        body: &Value,
        secret: bool,
    ) -> Result<Answer, RedfishError> {
        let first = self.send(Method::PATCH, &at.path, Some(body), at.etag.as_deref(), secret).await;
        match first {
            Err(RedfishError::Http { status: 412 | 428, .. }) => {
                let etag = self.get(&at.path).await?.etag.unwrap_or_else(|| "*".into());
                self.send(Method::PATCH, &at.path, Some(body), Some(&etag), secret).await
            }
            other => other,
        }
    }

    /// Posts to a collection or an action, and waits for its task, if it makes one.
    pub(crate) async fn post(&self, path: &str, body: &Value, secret: bool) -> Result<Answer, RedfishError> {
        let answer = self.send(Method::POST, path, Some(body), None, secret).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Ok(answer);
        }
        let Some(monitor) = text_header(&answer.headers, header::LOCATION) else { return Ok(answer) };
        let monitor = self.local_path(path, &monitor)?;
        self.wait_for_task(path, &monitor).await
    }

    /// A task monitor answers 202 until the task ends (DSP0266, 12.2), then with the operation's own answer.
    async fn wait_for_task(&self, what: &str, monitor: &str) -> Result<Answer, RedfishError> {
        let deadline = tokio::time::Instant::now() + self.limits.settle;
        loop {
            let answer = self.send(Method::GET, monitor, None, None, false).await?;
            if answer.status != StatusCode::ACCEPTED {
                return match view::text(&answer.body, "/TaskState") {
                    Some(state @ ("Exception" | "Killed" | "Cancelled")) => Err(RedfishError::Http {
                        method: "POST".into(),
                        path: what.to_owned(),
                        status: answer.status.as_u16(),
                        message: format!("its task ended as {state}"),
                    }),
                    _ => Ok(answer),
                };
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(self.timed_out(format!("the task of {what}")));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub(crate) fn timed_out(&self, what: String) -> RedfishError {
        RedfishError::Timeout { address: self.address.to_string(), what }
    }

    /// A link as a path on this service; anything that leads elsewhere is refused.
    pub(crate) fn local_path(&self, from: &str, link: &str) -> Result<String, RedfishError> {
        let off =
            || RedfishError::OffHost { path: from.to_owned(), target: link.chars().take(200).collect() };
        let path = match link.strip_prefix("https://") {
            None => link,
            Some(rest) => {
                let split = rest.find('/').unwrap_or(rest.len());
                let (host, path) = rest.split_at(split);
                let default_port = self.address.port() == 443 && host == self.address.ip().to_string();
                if !default_port && host != self.address.to_string() {
                    return Err(off());
                }
                path
            }
        };
        let path = path.split('#').next().unwrap_or_default();
        let plain = path.starts_with('/') && !path.starts_with("//") && path.len() <= 1024;
        if plain && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            Ok(path.to_owned())
        } else {
            Err(off())
        }
    }

    /// One authenticated exchange; an expired session is renewed once.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
        secret: bool,
    ) -> Result<Answer, RedfishError> {
        let mut renewed = false;
        loop {
            let (mut headers, by_session) = self.authenticate(path).await?;
            if let Some(value) = if_match.and_then(|tag| HeaderValue::from_str(tag).ok()) {
                headers.insert(header::IF_MATCH, value);
            }
            let answer = self.exchange(method.clone(), path, body, headers, secret).await?;
            if answer.status == StatusCode::UNAUTHORIZED && by_session && !renewed {
                *self.auth.lock().await = Auth::Unknown;
                renewed = true;
                continue;
            }
            return self.judge(method, path, answer, secret);
        }
    }

    /// Headers of an authenticated request, and whether they are a session's.
    async fn authenticate(&self, path: &str) -> Result<(HeaderMap, bool), RedfishError> {
        let Some(credential) = &self.credential else { return Ok((HeaderMap::new(), false)) };
        if path == ROOT {
            return Ok((HeaderMap::new(), false));
        }
        let mut auth = self.auth.lock().await;
        if matches!(*auth, Auth::Unknown) {
            *auth = match self.mode {
                AuthMode::Basic => Auth::Basic,
                AuthMode::Session => Auth::Session(self.login(credential).await?),
                AuthMode::Auto => match self.login(credential).await {
                    Ok(session) => Auth::Session(session),
                    // No session service, or no session left: basic needs neither.
                    Err(RedfishError::Http { .. } | RedfishError::Unsupported { .. }) => Auth::Basic,
                    Err(other) => return Err(other),
                },
            };
        }
        match &*auth {
            Auth::Session(session) => Ok((token_header(&session.token), true)),
            _ => Ok((basic_header(credential)?, false)),
        }
    }

    async fn login(&self, credential: &Credential) -> Result<Session, RedfishError> {
        let none = || RedfishError::Unsupported { what: "session service".into() };
        let root = self.exchange(Method::GET, ROOT, None, HeaderMap::new(), false).await?;
        let root = self.judge(Method::GET, ROOT, root, false)?;
        let sessions = view::text(&root.body, "/Links/Sessions/@odata.id").ok_or_else(none)?;
        let sessions = self.local_path(ROOT, sessions)?;
        let body =
            serde_json::json!({ "UserName": credential.user, "Password": credential.password.as_str() });
        let answer = self.exchange(Method::POST, &sessions, Some(&body), HeaderMap::new(), true).await?;
        let answer = self.judge(Method::POST, &sessions, answer, true)?;
        let token =
            text_header(&answer.headers, header::HeaderName::from_static("x-auth-token")).ok_or_else(none)?;
        let location = text_header(&answer.headers, header::LOCATION)
            .or_else(|| view::text(&answer.body, "/@odata.id").map(str::to_owned))
            .and_then(|link| self.local_path(&sessions, &link).ok());
        Ok(Session { token: Zeroizing::new(token), location })
    }

    /// Turns a status into success or a typed failure.
    fn judge(
        &self,
        method: Method,
        path: &str,
        answer: Answer,
        secret: bool,
    ) -> Result<Answer, RedfishError> {
        let user = || self.user().unwrap_or_default().to_owned();
        let status = answer.status;
        if status.is_success() || (method == Method::GET && status.is_redirection()) {
            return Ok(answer);
        }
        let ids = view::message_ids(&answer.body);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && ids.iter().any(|id| id.ends_with("PasswordChangeRequired"))
        {
            return Err(RedfishError::PasswordChangeRequired { user: user() });
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(RedfishError::WrongCredential { user: user() });
        }
        let message = if secret { ids.join(", ") } else { view::messages(&answer.body) };
        Err(RedfishError::Http {
            method: method.to_string(),
            path: path.to_owned(),
            status: status.as_u16(),
            message,
        })
    }

    /// One HTTP exchange, bounded in time and size.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: HeaderMap,
        secret: bool,
    ) -> Result<Answer, RedfishError> {
        let what = format!("{method} {path}");
        let mut request = self
            .http
            .request(method, format!("https://{}{path}", self.address))
            .header(header::ACCEPT, "application/json")
            .header("OData-Version", "4.0")
            .headers(headers);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|e| self.transport(&e, &what))?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(&e, &what))? {
            if bytes.len() + chunk.len() > self.limits.body {
                let problem = format!("the body is larger than {} bytes", self.limits.body);
                return Err(RedfishError::Body { path: path.to_owned(), problem });
            }
            bytes.extend_from_slice(&chunk);
        }
        tracing::debug!(address = %self.address, %what, status = status.as_u16(), bytes = bytes.len(), secret, "redfish");
        let body = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            Err(e) if status.is_success() && !bytes.iter().all(u8::is_ascii_whitespace) => {
                return Err(RedfishError::Body { path: path.to_owned(), problem: format!("no JSON: {e}") });
            }
            Err(_) => Value::Null,
        };
        Ok(Answer { status, headers, body })
    }

    fn transport(&self, error: &reqwest::Error, what: &str) -> RedfishError {
        let address = self.address.to_string();
        if let Some((expected, observed)) = self.verifier.mismatch() {
            return RedfishError::CertificateChanged { address, expected, observed };
        }
        if error.is_timeout() && !error.is_connect() {
            return self.timed_out(what.to_owned());
        }
        RedfishError::Unreachable { address, reason: innermost(error) }
    }
}

fn text_header(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn token_header(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(mut value) = HeaderValue::from_str(token) {
        value.set_sensitive(true);
        headers.insert(TOKEN.parse().unwrap_or(header::AUTHORIZATION), value);
    }
    headers
}

fn basic_header(credential: &Credential) -> Result<HeaderMap, RedfishError> {
    use base64::Engine;
    let plain = Zeroizing::new(format!("{}:{}", credential.user, credential.password.as_str()));
    let encoded = Zeroizing::new(format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(plain.as_bytes())
    ));
    let mut value = HeaderValue::from_str(&encoded).map_err(|e| RedfishError::Setup(e.to_string()))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new(Options {
            address: "192.0.2.7:443".parse().unwrap(),
            credential: Some(Credential::new("root", "hunter2")),
            auth: AuthMode::Auto,
            pin: None,
            limits: Limits::default(),
        })
        .unwrap()
    }

    #[test]
    fn links_stay_on_the_host() {
        let client = client();
        for (link, path) in [
            ("/redfish/v1/Systems/1", "/redfish/v1/Systems/1"),
            ("/redfish/v1/Chassis/1/Thermal#/Fans/0", "/redfish/v1/Chassis/1/Thermal"),
            ("https://192.0.2.7/redfish/v1/x", "/redfish/v1/x"),
            ("https://192.0.2.7:443/redfish/v1/x", "/redfish/v1/x"),
        ] {
            assert_eq!(client.local_path("/", link).unwrap(), path, "{link}");
        }
        for link in [
            "https://192.0.2.8/x",
            "http://192.0.2.7/x",
            "//evil/x",
            "https://192.0.2.7@evil/x",
            "https://192.0.2.71/x",
            "x",
            "",
            "/a b",
            "/\\evil",
        ] {
            assert!(matches!(client.local_path("/", link), Err(RedfishError::OffHost { .. })), "{link}");
        }
    }

    #[test]
    fn nothing_shows_the_password() {
        let shown =
            format!("{:?} {:?}", client(), basic_header(&Credential::new("root", "hunter2")).unwrap());
        assert!(
            shown.contains("root") && !shown.contains("hunter2") && !shown.contains("aHVudGVy"),
            "{shown}"
        );
    }

    #[test]
    fn an_error_after_sending_a_secret_carries_message_ids_only() {
        let body = serde_json::json!({"error": {"@Message.ExtendedInfo": [
            {"MessageId": "Base.1.13.PropertyValueFormatError", "Message": "The value 'hunter2' of Password is bad"}]}});
        for (secret, shown) in [(true, false), (false, true)] {
            let answer =
                Answer { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new(), body: body.clone() };
            let text = client().judge(Method::POST, "/x", answer, secret).unwrap_err().to_string();
            assert_eq!(text.contains("hunter2"), shown, "{text}");
            assert_eq!(text.contains("PropertyValueFormatError"), secret, "{text}");
        }
    }
}
