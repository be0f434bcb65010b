//! The control socket: one task a connection, one line a request.

use super::{Lab, LabError, doing, held};
use crate::protocol::{MAX_LINE, Request, Response, SOCKET};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const MOST: usize = 32;

impl Lab {
    /// Begins to serve the control socket; only its owner may connect.
    pub(super) fn serve_control(self: &Arc<Self>) -> Result<(), LabError> {
        let path = self.options.dir.join(SOCKET);
        let _none_there = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(doing(format!("listen on {}", path.display())))?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode)
            .map_err(doing(format!("close {} to others", path.display())))?;
        held(&self.tasks).spawn(accept(Arc::downgrade(self), listener));
        Ok(())
    }
}

async fn accept(lab: std::sync::Weak<Lab>, listener: UnixListener) {
    let mut served = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if served.len() < MOST => accepted,
            Some(_ended) = served.join_next() => continue,
        };
        let Some(lab) = lab.upgrade() else { return };
        match accepted {
            Ok((stream, _)) => {
                served.spawn(async move {
                    if let Err(error) = converse(lab, stream).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "a control connection was lost"),
        }
    }
}

async fn converse(lab: Arc<Lab>, stream: UnixStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut stream).take(MAX_LINE as u64).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => lab.carry_out(request).await,
            Err(error) => Response::Refused { reason: format!("no request of the lab's protocol: {error}") },
        };
        let mut answer = serde_json::to_vec(&response)?;
        answer.push(b'\n');
        stream.write_all(&answer).await?;
    }
}
