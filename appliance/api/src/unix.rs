//! The CLI's listener: a Unix socket, identity by peer credentials (`SO_PEERCRED`).
//!
//! Invariants: root and the user that the process runs as are administrators; everybody else is refused whatever the
//! socket's mode says. A socket that another process serves is not taken away from it.

use crate::identity::{From, Identity};
use crate::{Api, Problem, routes};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use dayzero_trust::Role;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Name of the socket in the data directory.
pub const SOCKET: &str = "dayzero.sock";
/// How long open requests may finish once it ends.
const GRACE: Duration = Duration::from_secs(3);

/// Why the socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else serves it.
    #[error("{0} is served already: another `dayzero serve` runs on this data directory")]
    Taken(PathBuf),
    /// It cannot be made or served.
    #[error("cannot serve {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// User of a connection's other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(Option<u32>);

#[cfg(test)]
impl Peer {
    pub(crate) fn of(uid: Option<u32>) -> Self {
        Self(uid)
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket with mode 0600; one that nobody serves any more is replaced.
///
/// # Errors
/// [`SocketError`].
pub async fn bind(path: &Path) -> Result<Socket, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::Taken(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Socket { listener, path: path.to_owned() })
}

impl Socket {
    /// Serves until the token is cancelled; then removes the socket.
    ///
    /// # Errors
    /// [`SocketError::Io`].
    pub async fn serve(self, api: Arc<Api>, cancel: CancellationToken) -> Result<(), SocketError> {
        let Self { listener, path } = self;
        let routes = router(api).into_make_service_with_connect_info::<Peer>();
        let serving = axum::serve(listener, routes).with_graceful_shutdown(cancel.clone().cancelled_owned());
        let served = tokio::select! {
            served = async { serving.await } => served,
            () = async { cancel.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        };
        let _ = std::fs::remove_file(&path);
        served.map_err(|source| SocketError::Io { path, source })
    }
}

/// The routes of this listener.
pub(crate) fn router(api: Arc<Api>) -> Router {
    routes::router()
        .fallback(routes::nothing_here)
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(from_fn(identify))
        .with_state(api)
}

async fn identify(mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().and_then(|ConnectInfo(Peer(uid))| *uid);
    let own = nix::unistd::geteuid().as_raw();
    let Some(uid) = peer.filter(|uid| *uid == 0 || *uid == own) else {
        let detail = "only root and the user that `dayzero serve` runs as may use this socket: use sudo";
        return Problem::forbidden(detail).into_response();
    };
    let identity =
        Identity { who: format!("uid:{uid}"), role: Role::Admin, from: "unix".to_owned(), session: None };
    request.extensions_mut().insert(From("unix".to_owned()));
    request.extensions_mut().insert(identity);
    next.run(request).await
}
