//! The CLI's side of the Unix socket: one HTTP/1.1 request a connection, answers as the views of control.
//!
//! It follows no redirect and speaks to no other place than the socket. A problem answer becomes a [`Failure`]: the
//! asker's fault exits with 2, the system's with 1.

use crate::failure::{Failure, chain};
use dayzero_api::Problem;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Largest answer, bytes.
const MOST: usize = 256 << 20;

/// A client of one appliance.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// By its socket.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// `GET`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read(path, &self.call(Method::GET, path, None).await?)
    }

    /// `POST` with an answer.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        read(path, &self.call(Method::POST, path, Some(json(body)?)).await?)
    }

    /// `POST` without a body, with an answer.
    pub(crate) async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read(path, &self.call(Method::POST, path, None).await?)
    }

    /// Anything that answers with nothing.
    pub(crate) async fn act(&self, method: Method, path: &str) -> Result<(), Failure> {
        self.call(method, path, None).await.map(drop)
    }

    /// `POST` of a body that answers with nothing.
    pub(crate) async fn act_with<B: Serialize>(&self, path: &str, body: &B) -> Result<(), Failure> {
        self.call(Method::POST, path, Some(json(body)?)).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, Failure> {
        let broke = |error: &(dyn std::error::Error + 'static)| {
            Failure::System(format!("the connection to {} broke: {}", self.socket.display(), chain(error)))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(&e))?;
        let driving = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "dayzero");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(|e| broke(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| broke(&e))?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MOST).collect().await;
        let bytes = bytes.map_err(|e| broke(&*e))?.to_bytes();
        driving.abort();
        if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "run it as root or as the user of `dayzero serve`",
            _ => "is `dayzero serve` running? --socket or DAYZERO_SOCKET names another place",
        };
        Failure::System(format!("no appliance answers at {}: {error}; {remedy}", self.socket.display()))
    }
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
