//! One connection: requests one after another, each answered before the next is read.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf, BytesMut};

use super::Shared;
use super::files::{Answer, Opened};
use super::head::{self, Asked};
use super::ranges::Ranges;
use super::wire::{Body, Sent, Wire};

/// What a connection knows of the requests before.
#[derive(Default)]
pub(crate) struct Before {
    pub(crate) opened: Opened,
    pub(crate) ranges: Ranges,
    /// It is by TLS.
    pub(crate) tls: bool,
}

/// Serves until the peer is done, asks to close, errs or falls silent.
pub(crate) async fn serve(mut wire: Wire, peer: SocketAddr, shared: Arc<Shared>) {
    let mut before = Before { tls: wire.is_tls(), ..Before::default() };
    match requests(&mut wire, peer, &shared, &mut before).await {
        Ok(()) => wire.close().await,
        Err(error) => tracing::debug!(%error, %peer, "HTTP boot connection"),
    }
    shared.left(before, peer);
}

async fn requests(wire: &mut Wire, peer: SocketAddr, shared: &Shared, before: &mut Before) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let asked = match next(wire, &mut buffer).await? {
            Some(Ok(asked)) => asked,
            Some(Err(bad)) => {
                let answer = Answer::text(bad.status, format!("{}\n", bad.why));
                let answer = if bad.status == 405 { answer.with("Allow: GET, HEAD") } else { answer };
                let _ = send(wire, &Asked::default(), &answer, &mut Sent::default()).await;
                return Ok(());
            }
            None => return Ok(()),
        };
        let reply = shared.answer(&asked, peer, before);
        let mut sent = reply.sent();
        let keep = asked.keep && !reply.close;
        let done = send(wire, &Asked { keep, ..asked }, &reply.answer, &mut sent).await;
        reply.after(shared, peer, before, sent.bytes(), done.as_ref().err());
        done?;
        if !keep {
            return Ok(());
        }
    }
}

/// The next request; none: the peer is done.
async fn next(wire: &mut Wire, buffer: &mut BytesMut) -> io::Result<Option<Result<Asked, head::Bad>>> {
    let request = wire.until(buffer, |buffer| match head::parse(buffer) {
        Ok(Some((asked, length))) => {
            buffer.advance(length);
            Some(Ok(asked))
        }
        Ok(None) => None,
        Err(bad) => Some(Err(bad)),
    });
    match request.await {
        // Nothing was begun, or a head that does not end: either way there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
        read => read,
    }
}

async fn send(wire: &mut Wire, asked: &Asked, answer: &Answer, sent: &mut Sent) -> io::Result<()> {
    let source = answer.body.as_ref().filter(|_| !asked.head && answer.length > 0);
    let body = source.map(|source| Body { source, first: answer.first, length: answer.length });
    let head = head_of(asked, answer, SystemTime::now());
    wire.answer(head.as_bytes(), body, sent).await
}

fn head_of(asked: &Asked, answer: &Answer, now: SystemTime) -> String {
    let mut head = String::with_capacity(320);
    let status = answer.status;
    let _ =
        write!(head, "HTTP/1.1 {status} {}\r\nDate: {}\r\n", reason(status), httpdate::fmt_http_date(now));
    if status != 304 {
        let _ = write!(head, "Content-Length: {}\r\n", answer.length);
    }
    head.push_str(&answer.headers);
    match (asked.keep, asked.old) {
        (false, _) => head.push_str("Connection: close\r\n"),
        (true, true) => head.push_str("Connection: keep-alive\r\n"),
        (true, false) => {}
    }
    head.push_str("\r\n");
    head
}

/// The words that belong to a status (RFC 9110).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_as_they_stand_on_the_wire() {
        let asked = |keep, old| Asked { keep, old, ..Asked::default() };
        let answer = Answer::text(404, "gone\n");
        let epoch = SystemTime::UNIX_EPOCH;
        insta::assert_snapshot!(head_of(&asked(true, false), &answer, epoch).replace('\r', ""), @r"
        HTTP/1.1 404 Not Found
        Date: Thu, 01 Jan 1970 00:00:00 GMT
        Content-Length: 5
        Content-Type: text/plain
        ");
        assert!(head_of(&asked(false, false), &answer, epoch).ends_with("Connection: close\r\n\r\n"));
        assert!(head_of(&asked(true, true), &answer, epoch).ends_with("Connection: keep-alive\r\n\r\n"));
        let same = Answer { status: 304, headers: String::new(), body: None, first: 0, length: 0 };
        assert!(!head_of(&asked(true, false), &same, epoch).contains("Content-Length"));
    }
}
