//! A connection's bytes: plain, with `sendfile(2)`, or encrypted.
//!
//! Invariants: each wait for the peer is bounded by [`PATIENCE`]; a file that became shorter ends the connection, since
//! its length was told.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use nix::libc;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::files::Source;

/// A client must send a request's head, or take some of the answer, within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of one `sendfile`: the other connections of the thread wait meanwhile.
const PLAIN_PIECE: usize = 2 << 20;
/// A piece of at most this fits into any connection's send buffer.
const SMALL_PIECE: usize = 128 << 10;
/// Bytes that are encrypted together: four records, one system call.
const TLS_PIECE: usize = 64 * 1024;

/// A connection.
pub(crate) struct Wire {
    way: Way,
    patience: Patience,
}

enum Way {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Bytes of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<'a> {
    pub(crate) source: &'a Source,
    pub(crate) first: u64,
    pub(crate) length: u64,
}

/// How much of a body the kernel took, told as it goes.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    bytes: u64,
    told: Option<Arc<AtomicU64>>,
}

impl Sent {
    /// Nothing yet; `told` is added to as it goes.
    pub(crate) fn telling(told: Option<Arc<AtomicU64>>) -> Self {
        Self { bytes: 0, told }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(told) = &self.told {
            told.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// Bounds each wait, with one timer for all of a connection: it is set again only when it runs out, so that most waits
/// cost no more than a look at it.
struct Patience(Pin<Box<Sleep>>);

impl Patience {
    fn new() -> Self {
        Self(Box::pin(sleep(PATIENCE)))
    }

    /// What `work` comes to, or that it took longer than [`PATIENCE`].
    async fn bound<T>(&mut self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut work = pin!(work);
        let mut end = None;
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            let end = *end.get_or_insert_with(|| Instant::now() + PATIENCE);
            while self.0.as_mut().poll(context).is_ready() {
                if Instant::now() >= end {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
                }
                self.0.as_mut().reset(end);
            }
            Poll::Pending
        })
        .await
    }
}

impl Wire {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self { way: Way::Plain(stream), patience: Patience::new() }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { way: Way::Tls(Box::new(stream)), patience: Patience::new() }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.way, Way::Tls(_))
    }

    /// Reads until `found` finds something in what was read; none: the peer is done.
    pub(crate) async fn until<T>(
        &mut self,
        into: &mut BytesMut,
        mut found: impl FnMut(&mut BytesMut) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let Self { way, patience } = self;
        let reading = async {
            loop {
                if let Some(found) = found(into) {
                    return Ok(Some(found));
                }
                let read = match way {
                    Way::Plain(stream) => read(stream, into).await?,
                    Way::Tls(stream) => read(stream, into).await?,
                };
                if read == 0 {
                    return Ok(None);
                }
            }
        };
        patience.bound(reading).await
    }

    /// An answer: its head, and its body if it has one; `sent` counts what the kernel took of the body.
    pub(crate) async fn answer(
        &mut self,
        head: &[u8],
        body: Option<Body<'_>>,
        sent: &mut Sent,
    ) -> io::Result<()> {
        let Self { way, patience } = self;
        match (way, body) {
            (Way::Plain(stream), None) => send_all(stream, patience, head, 0).await,
            (Way::Plain(stream), Some(body)) => plain(stream, patience, head, body, sent).await,
            (Way::Tls(stream), body) => {
                patience.bound(stream.write_all(head)).await?;
                if let Some(body) = body {
                    encrypted(stream, patience, body, sent).await?;
                }
                patience.bound(stream.flush()).await
            }
        }
    }

    /// Says that nothing more comes.
    pub(crate) async fn close(&mut self) {
        let Self { way, patience } = self;
        let ended = match way {
            Way::Plain(stream) => stream.shutdown().await,
            Way::Tls(stream) => patience.bound(stream.shutdown()).await,
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

/// The head and the beginning of the body share a packet.
async fn plain(
    stream: &TcpStream,
    patience: &mut Patience,
    head: &[u8],
    body: Body<'_>,
    sent: &mut Sent,
) -> io::Result<()> {
    let Body { source, first, length } = body;
    send_all(stream, patience, head, libc::MSG_MORE).await?;
    match source {
        Source::Memory(bytes) => {
            for piece in part(bytes, first, length).chunks(PLAIN_PIECE) {
                send_all(stream, patience, piece, 0).await?;
                sent.add(piece.len());
            }
        }
        Source::Disk(file) => {
            while sent.bytes < length {
                let took = send_file(stream, patience, file, first + sent.bytes, length - sent.bytes).await?;
                sent.add(took);
            }
        }
    }
    Ok(())
}

async fn send_all(
    stream: &TcpStream,
    patience: &mut Patience,
    mut bytes: &[u8],
    flags: i32,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let sending =
            stream.async_io(Interest::WRITABLE, || SockRef::from(stream).send_with_flags(bytes, flags));
        let sent = patience.bound(sending).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// One turn of `sendfile`: waits until the kernel has room, hands it what fits. A short count of a large piece means that
/// there is no room left, so that the next turn waits at once: a call that finds none costs the kernel as much as one that
/// does. A small piece fits, and is cut only where its pages are.
async fn send_file(
    stream: &TcpStream,
    patience: &mut Patience,
    file: &File,
    first: u64,
    left: u64,
) -> io::Result<usize> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = usize::try_from(first).map_err(bad)?;
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(PLAIN_PIECE);
    patience.bound(stream.writable()).await?;
    let mut sent = None;
    let done = stream.try_io(Interest::WRITABLE, || {
        let took = SockRef::from(stream).sendfile(file, offset, NonZeroUsize::new(most))?;
        sent = Some(took);
        let full = took < most && most > SMALL_PIECE;
        if full { Err(io::Error::from(io::ErrorKind::WouldBlock)) } else { Ok(()) }
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
    patience: &mut Patience,
    body: Body<'_>,
    sent: &mut Sent,
) -> io::Result<()> {
    let Body { source, first, length } = body;
    let mut buffer = Vec::new();
    while sent.bytes < length {
        let want = usize::try_from(length - sent.bytes).unwrap_or(usize::MAX).min(TLS_PIECE);
        let piece = match source {
            Source::Memory(bytes) => part(bytes, first + sent.bytes, want as u64),
            Source::Disk(file) => {
                buffer.resize(want, 0);
                file.read_exact_at(&mut buffer, first + sent.bytes)?;
                &buffer[..]
            }
        };
        patience.bound(stream.write_all(piece)).await?;
        sent.add(piece.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_patience_by_one_timer() {
        let (mut patience, begin) = (Patience::new(), Instant::now());
        for _ in 0..2 {
            let slow = async {
                sleep(Duration::from_secs(20)).await;
                Ok(())
            };
            patience.bound(slow).await.unwrap();
        }
        let never = std::future::pending::<io::Result<()>>();
        let error = patience.bound(never).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waited = begin.elapsed().as_secs_f64();
        assert!((waited - 70.0).abs() < 0.1, "20 s, 20 s and the whole patience: {waited}");
    }
}
