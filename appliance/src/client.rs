//! The CLI's side of the API: one HTTP/1.1 request a connection, over the Unix socket or, to an appliance elsewhere, over
//! TLS with a session; answers as the views of control.
//!
//! It follows no redirect and speaks to no other place than the one chosen. A problem answer becomes a [`Failure`]: the
//! asker's fault exits with 2, the system's with 1.

use crate::failure::{Failure, chain};
use crate::remote::Server;
use crate::session::Sessions;
use dayzero_api::Problem;
use dayzero_api::rest::session::COOKIE;
use dayzero_model::Secret;
use dayzero_model::ids::Sha256;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Largest answer, bytes.
const MOST: usize = 256 << 20;

/// A client of one appliance.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// This machine's, by its socket.
    Socket(PathBuf),
    /// One elsewhere.
    Server { server: Server, fingerprint: Sha256, session: Option<Secret<String>> },
}

/// What the command line and the environment say of the place; the first that is there counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// `--socket`.
    pub(crate) socket: Option<PathBuf>,
    /// `--server`.
    pub(crate) server: Option<Server>,
    /// `DAYZERO_SOCKET`.
    pub(crate) socket_variable: Option<PathBuf>,
    /// `DAYZERO_SERVER`.
    pub(crate) server_variable: Option<Server>,
}

/// An answer, whatever its status.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    /// By its socket.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { place: Place::Socket(socket.to_owned()) }
    }

    /// Of an appliance elsewhere.
    pub(crate) fn at(server: Server, fingerprint: Sha256, session: Option<Secret<String>>) -> Self {
        Self { place: Place::Server { server, fingerprint, session } }
    }

    /// Of the appliance that is wanted: by name, else where the person is logged in, else this machine's.
    pub(crate) fn choose(
        wanted: Wanted,
        sessions: impl FnOnce() -> Result<Sessions, Failure>,
        default: &Path,
    ) -> Result<Self, Failure> {
        if let Some(socket) = wanted.socket {
            return Ok(Self::new(&socket));
        }
        let server = match (wanted.server, wanted.socket_variable) {
            (Some(server), _) => Some(server),
            (None, Some(socket)) => return Ok(Self::new(&socket)),
            (None, None) => wanted.server_variable,
        };
        let mut sessions = sessions()?;
        let Some(server) = server.or_else(|| sessions.current.clone()) else { return Ok(Self::new(default)) };
        match sessions.logins.remove(&server) {
            Some(login) => Ok(Self::at(server, login.fingerprint, Some(login.session))),
            None => Err(Failure::user(format!("nobody is logged in to {server}: `dayzero login {server}`"))),
        }
    }

    /// The appliance elsewhere that commands go to; none: this machine's.
    pub(crate) fn elsewhere(&self) -> Option<&Server> {
        match &self.place {
            Place::Socket(_) => None,
            Place::Server { server, .. } => Some(server),
        }
    }

    /// `GET`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read(path, &self.call(Method::GET, path, None).await?.body)
    }

    /// `GET` of what is no JSON.
    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Bytes, Failure> {
        Ok(self.call(Method::GET, path, None).await?.body)
    }

    /// `POST` with an answer.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        read(path, &self.call(Method::POST, path, Some(json(body)?)).await?.body)
    }

    /// `POST` without a body, with an answer.
    pub(crate) async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read(path, &self.call(Method::POST, path, None).await?.body)
    }

    /// `POST` of a body, with the answer's headers.
    pub(crate) async fn post_for_headers<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<(HeaderMap, T), Failure> {
        let answer = self.call(Method::POST, path, Some(json(body)?)).await?;
        Ok((answer.headers, read(path, &answer.body)?))
    }

    /// Anything that answers with nothing.
    pub(crate) async fn act(&self, method: Method, path: &str) -> Result<(), Failure> {
        self.call(method, path, None).await.map(drop)
    }

    /// `POST` of a body that answers with nothing.
    pub(crate) async fn act_with<B: Serialize>(&self, path: &str, body: &B) -> Result<(), Failure> {
        self.call(Method::POST, path, Some(json(body)?)).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = Full::new(body.unwrap_or_default());
        let (answer, over) = match &self.place {
            Place::Socket(socket) => {
                let stream =
                    UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
                let request =
                    request.header("host", "dayzero").body(body).map_err(|e| Failure::system(&e))?;
                (exchange(&socket.display().to_string(), stream, request).await?, None)
            }
            Place::Server { server, fingerprint, session } => {
                let stream = server.connect(*fingerprint).await?;
                request = request.header("host", server.authority()).header("origin", server.to_string());
                if let Some(session) = session {
                    request = request.header("cookie", cookie(session)?);
                }
                let request = request.body(body).map_err(|e| Failure::system(&e))?;
                let over = session
                    .as_ref()
                    .map(|_| format!("the session at {server} is over: `dayzero login {server}`"));
                (exchange(&server.to_string(), stream, request).await?, over)
            }
        };
        match (answer.status, over) {
            (status, _) if status.is_success() => Ok(answer),
            (StatusCode::UNAUTHORIZED, Some(over)) => Err(Failure::User(over)),
            (status, _) => Err(refused(status, &answer.body)),
        }
    }
}

/// One request and its answer on a fresh connection.
async fn exchange(
    place: &str,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let broke = |error: &(dyn std::error::Error + 'static)| {
        Failure::System(format!("the connection to {place} broke: {}", chain(error)))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(&e))?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|e| broke(&e))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = Limited::new(answer.into_body(), MOST).collect().await;
    let body = body.map_err(|e| broke(&*e))?.to_bytes();
    driving.abort();
    Ok(Answer { status, headers, body })
}

fn cookie(session: &Secret<String>) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(format!("{COOKIE}={}", session.expose()))
        .map_err(|_| Failure::user("the session file holds no session: log in again"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "run it as root or as the user of `dayzero serve`",
        _ => {
            "is `dayzero serve` running? --socket or DAYZERO_SOCKET names another place, and `dayzero login` an appliance \
             elsewhere"
        }
    };
    Failure::System(format!("no appliance answers at {}: {error}; {remedy}", socket.display()))
}

fn json<B: Serialize>(body: &B) -> Result<Bytes, Failure> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| Failure::system(&e))
}

fn read<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::System(format!(
            "the answer of {path} cannot be read ({error}): `dayzero` and the appliance have different versions"
        ))
    })
}

fn refused(status: StatusCode, bytes: &[u8]) -> Failure {
    let detail = match serde_json::from_slice::<Problem>(bytes) {
        Ok(problem) => problem.detail,
        Err(_) => format!("the appliance answered {status}"),
    };
    if status.is_server_error() { Failure::System(detail) } else { Failure::User(detail) }
}

/// A path segment, percent-encoded (RFC 3986 section 2.3: what is not unreserved).
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Login;

    #[test]
    fn the_nearest_word_says_where_commands_go() {
        let server = |text: &str| Some(text.parse::<Server>().unwrap());
        let sessions = |current: Option<&str>| {
            let mut sessions = Sessions::default();
            for known in ["https://a", "https://b", "https://c"] {
                let login = Login {
                    fingerprint: Sha256([1; 32]),
                    user: "admin".to_owned(),
                    session: Secret::new("id".to_owned()),
                };
                sessions.logins.insert(known.parse().unwrap(), login);
            }
            sessions.current = current.and_then(server);
            Ok(sessions)
        };
        let path = |text: &str| Some(PathBuf::from(text));
        let all = || Wanted {
            socket: path("/1"),
            server: server("https://a"),
            socket_variable: path("/2"),
            server_variable: server("https://b"),
        };
        for (wanted, current, place) in [
            (all(), Some("https://c"), "/1"),
            (Wanted { socket: None, ..all() }, Some("https://c"), "https://a:8443"),
            (Wanted { socket: None, server: None, ..all() }, Some("https://c"), "/2"),
            (
                Wanted { server_variable: server("https://b"), ..Wanted::default() },
                Some("https://c"),
                "https://b:8443",
            ),
            (Wanted::default(), Some("https://c"), "https://c:8443"),
            (Wanted::default(), None, "/default"),
        ] {
            let chosen = Client::choose(wanted, || sessions(current), Path::new("/default")).unwrap();
            let shown = match chosen.place {
                Place::Socket(socket) => socket.display().to_string(),
                Place::Server { server, session, .. } => {
                    assert!(session.is_some());
                    server.to_string()
                }
            };
            assert_eq!(shown, place);
        }
        let unknown = Wanted { server: server("https://x"), ..Wanted::default() };
        let error = Client::choose(unknown, || sessions(None), Path::new("/default")).unwrap_err();
        assert!(error.message().unwrap().contains("`dayzero login https://x:8443`"));
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("52:54:00:de:ad:01"), "52%3A54%3A00%3Ade%3Aad%3A01");
        assert_eq!(segment("../x?y#z é"), "..%2Fx%3Fy%23z%20%C3%A9");
    }

    #[test]
    fn faults_are_told_apart_by_status() {
        let problem = br#"{"type":"urn:x","title":"t","status":404,"detail":"there is no host 'x'"}"#;
        assert_eq!(refused(StatusCode::NOT_FOUND, problem).code(), 2);
        let broken = refused(StatusCode::INTERNAL_SERVER_ERROR, b"<html>");
        assert_eq!(
            (broken.code(), broken.message()),
            (1, Some("the appliance answered 500 Internal Server Error"))
        );
    }
}
