//! A client of the lab's control socket.

use crate::protocol::{MAX_LINE, Request, Response, SOCKET};
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A request that got no answer, or no for an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No lab answers there.
    #[error("no lab answers at {path}: start one with 'cargo xtask demo' or 'dayzero lab up'")]
    NoLab {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the lab's control connection broke")]
    Io(#[from] io::Error),
    /// The lab said no.
    #[error("the lab refused: {0}")]
    Refused(String),
}

/// One connection to a lab.
#[derive(Debug)]
pub struct LabClient {
    stream: BufReader<UnixStream>,
}

impl LabClient {
    /// Connects to the lab in `dir`.
    pub async fn connect(dir: &Path) -> Result<Self, ClientError> {
        let path = dir.join(SOCKET);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(source) => Err(ClientError::NoLab { path, source }),
        }
    }

    /// Asks, and waits for the answer; a refusal is an error.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.write_all(&line).await?;
        line.clear();
        let count = (&mut self.stream).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_slice(&line).map_err(io::Error::from)? {
            Response::Refused { reason } => Err(ClientError::Refused(reason)),
            response => Ok(response),
        }
    }
}
