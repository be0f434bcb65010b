//! Files and bytes as HTTP answers: conditional, by range, streamed in pieces.
//!
//! Invariant: one answer holds at most `PIECE` bytes of a file in memory, however large the file is.

use std::io::{self, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::range::{Part, part};

/// Body of every answer.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

const PIECE: usize = 256 * 1024;

/// Told how many bytes of a body went to the connection, when the body is over or dropped.
pub(crate) type Report = Box<dyn FnOnce(u64) + Send + Sync>;

struct Counted {
    sent: u64,
    report: Option<Report>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(self.sent);
        }
    }
}

/// A short text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

enum Source {
    Memory(Bytes),
    Disk(File),
}

/// Something to serve.
pub(crate) struct Content {
    source: Source,
    size: u64,
    etag: String,
}

impl Content {
    /// Bytes in memory.
    pub(crate) fn memory(bytes: Bytes) -> Self {
        let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            size: bytes.len() as u64,
            etag: format!("\"{:x}-{sum:x}\"", bytes.len()),
            source: Source::Memory(bytes),
        }
    }

    /// A regular file.
    ///
    /// # Errors
    /// It cannot be opened, or is none.
    pub(crate) async fn disk(path: &Path) -> io::Result<Self> {
        let file = File::open(path).await?;
        let about = file.metadata().await?;
        if !about.is_file() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Ok(Self {
            size: about.len(),
            etag: format!("\"{:x}-{changed:x}\"", about.len()),
            source: Source::Disk(file),
        })
    }

    /// The answer to a GET (or, without body, a HEAD) with these headers.
    pub(crate) async fn answer(
        self,
        asked: &HeaderMap,
        head: bool,
        report: Report,
    ) -> io::Result<Response<Body>> {
        let value = |name| asked.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let mut counted = Counted { sent: 0, report: Some(report) };
        let mut response = Response::new(full(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            headers.insert(header::ETAG, etag);
        }
        if value(header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == self.etag))
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        let current = value(header::IF_RANGE).is_none_or(|tag| tag.trim() == self.etag);
        let range = value(header::RANGE).filter(|_| current).map_or(Part::Whole, |r| part(r, self.size));
        let (first, length) = match range {
            Part::Whole => (0, self.size),
            Part::Bytes { first, last } => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let text = format!("bytes {first}-{last}/{}", self.size);
                insert(response.headers_mut(), header::CONTENT_RANGE, &text);
                (first, last - first + 1)
            }
            Part::Outside => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{}", self.size));
                return Ok(response);
            }
        };
        insert(response.headers_mut(), header::CONTENT_LENGTH, &length.to_string());
        if head {
            return Ok(response);
        }
        *response.body_mut() = match self.source {
            Source::Memory(bytes) => {
                let (from, to) = (clamp(first, bytes.len()), clamp(first + length, bytes.len()));
                counted.sent = length;
                full(bytes.slice(from..to))
            }
            Source::Disk(mut file) => {
                file.seek(SeekFrom::Start(first)).await?;
                streamed(file, length, counted)
            }
        };
        Ok(response)
    }
}

fn clamp(at: u64, len: usize) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX).min(len)
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn streamed(file: File, length: u64, counted: Counted) -> Body {
    let pieces = stream::try_unfold((file, length, counted), |(mut file, left, mut counted)| async move {
        if left == 0 {
            return Ok(None);
        }
        let want = clamp(left, PIECE);
        let mut piece = BytesMut::with_capacity(want);
        while piece.len() < want {
            // `limit` keeps a read within what was promised, even if the file grew.
            let missing = (want - piece.len()) as u64;
            if (&mut file).take(missing).read_buf(&mut piece).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
        }
        counted.sent += piece.len() as u64;
        let left = left - piece.len() as u64;
        Ok(Some((Frame::data(piece.freeze()), (file, left, counted))))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}
