//! A connection's bytes: plain, with `sendfile(2)`, or encrypted.
//!
//! Invariants: each wait for the peer is bounded by [`PATIENCE`]; a file that became shorter ends the connection, since
//! its length was told.

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::BytesMut;
use nix::libc;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::files::Source;

/// A client must send a request's head, or take some of the answer, within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of one `sendfile`: the other connections of the thread wait meanwhile.
const PLAIN_PIECE: usize = 2 << 20;
/// Bytes that are encrypted together: four records, one system call.
const TLS_PIECE: usize = 64 * 1024;

/// A connection.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

async fn patiently<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

impl Wire {
    /// More of a request; 0: the peer is done.
    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => read(stream, into).await,
            Wire::Tls(stream) => read(stream, into).await,
        }
    }

    /// An answer's head; `more`: its body follows at once and may share a packet with it.
    pub(crate) async fn head(&mut self, head: &[u8], more: bool) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => send_all(stream, head, if more { libc::MSG_MORE } else { 0 }).await,
            Wire::Tls(stream) if more => patiently(stream.write_all(head)).await,
            Wire::Tls(stream) => {
                patiently(stream.write_all(head)).await?;
                patiently(stream.flush()).await
            }
        }
    }

    /// A body; `sent` counts what the kernel took.
    pub(crate) async fn body(
        &mut self,
        source: &Source,
        first: u64,
        length: u64,
        sent: &mut u64,
    ) -> io::Result<()> {
        match (self, source) {
            (Wire::Plain(stream), Source::Memory(bytes)) => {
                for piece in part(bytes, first, length).chunks(PLAIN_PIECE) {
                    send_all(stream, piece, 0).await?;
                    *sent += piece.len() as u64;
                }
                Ok(())
            }
            (Wire::Plain(stream), Source::Disk(file)) => {
                while *sent < length {
                    *sent += send_file(stream, file, first + *sent, length - *sent).await? as u64;
                }
                Ok(())
            }
            (Wire::Tls(stream), source) => encrypted(stream, source, first, length, sent).await,
        }
    }

    /// Says that nothing more comes.
    pub(crate) async fn close(&mut self) {
        let ended = match self {
            Wire::Plain(stream) => stream.shutdown().await,
            Wire::Tls(stream) => patiently(stream.shutdown()).await,
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "HTTP boot connection");
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), into: &mut BytesMut) -> io::Result<usize> {
    into.reserve(2048);
    stream.read_buf(into).await
}

fn part(bytes: &[u8], first: u64, length: u64) -> &[u8] {
    let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    &bytes[clamp(first)..clamp(first.saturating_add(length))]
}

async fn send_all(stream: &TcpStream, mut bytes: &[u8], flags: i32) -> io::Result<()> {
    while !bytes.is_empty() {
        let sending =
            stream.async_io(Interest::WRITABLE, || SockRef::from(stream).send_with_flags(bytes, flags));
        let sent = patiently(sending).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// One turn of `sendfile`: waits until the kernel has room, hands it what fits. A short count means that there is no
/// room left, so that the next turn waits at once: a call that finds none costs the kernel as much as one that does.
async fn send_file(stream: &TcpStream, file: &std::fs::File, first: u64, left: u64) -> io::Result<usize> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = usize::try_from(first).map_err(bad)?;
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(PLAIN_PIECE);
    patiently(stream.writable()).await?;
    let mut sent = None;
    let done = stream.try_io(Interest::WRITABLE, || {
        let took = SockRef::from(stream).sendfile(file, offset, NonZeroUsize::new(most))?;
        sent = Some(took);
        if took < most { Err(io::Error::from(io::ErrorKind::WouldBlock)) } else { Ok(()) }
    });
    match (sent, done) {
        (Some(0), _) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
        (Some(took), _) => Ok(took),
        (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        (None, _) => Ok(0),
    }
}

async fn encrypted(
    stream: &mut (impl AsyncWrite + Unpin),
    source: &Source,
    first: u64,
    length: u64,
    sent: &mut u64,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while *sent < length {
        let want = usize::try_from(length - *sent).unwrap_or(usize::MAX).min(TLS_PIECE);
        let piece = match source {
            Source::Memory(bytes) => part(bytes, first + *sent, want as u64),
            Source::Disk(file) => {
                buffer.resize(want, 0);
                file.read_exact_at(&mut buffer, first + *sent)?;
                &buffer[..]
            }
        };
        patiently(stream.write_all(piece)).await?;
        *sent += piece.len() as u64;
    }
    patiently(stream.flush()).await
}
