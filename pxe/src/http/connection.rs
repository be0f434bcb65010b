//! One connection: requests one after another, each answered before the next is read.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf, BytesMut};

use super::Shared;
use super::files::Answer;
use super::head::{self, Asked};
use super::wire::{PATIENCE, Wire};

/// Serves until the peer is done, asks to close, errs or falls silent.
pub(crate) async fn serve(mut wire: Wire, peer: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = BytesMut::new();
    loop {
        let asked = match next(&mut wire, &mut buffer).await {
            Ok(Some(Ok(asked))) => asked,
            Ok(Some(Err(bad))) => {
                let answer = Answer::text(bad.status, format!("{}\n", bad.why));
                let answer = if bad.status == 405 { answer.with("Allow: GET, HEAD") } else { answer };
                let _ = send(&mut wire, &Asked::default(), &answer, &mut 0).await;
                break;
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, %peer, "HTTP boot connection");
                return;
            }
        };
        let reply = shared.answer(&asked, peer);
        let mut sent = 0;
        let keep = asked.keep && !reply.close;
        let done = send(&mut wire, &Asked { keep, ..asked }, &reply.answer, &mut sent).await;
        reply.after(&shared, peer, sent, done.as_ref().err());
        if let Err(error) = done {
            tracing::debug!(%error, %peer, sent, "HTTP boot connection");
            return;
        }
        if !keep {
            break;
        }
    }
    wire.close().await;
}

/// The next request; none: the peer is done.
async fn next(wire: &mut Wire, buffer: &mut BytesMut) -> io::Result<Option<Result<Asked, head::Bad>>> {
    let reading = async {
        loop {
            match head::parse(buffer) {
                Ok(Some((asked, length))) => {
                    buffer.advance(length);
                    return Ok(Some(Ok(asked)));
                }
                Ok(None) => {}
                Err(bad) => return Ok(Some(Err(bad))),
            }
            if wire.read(buffer).await? == 0 {
                return Ok(None);
            }
        }
    };
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(read) => read,
        // Nothing was begun, or a head that does not end: either way there is nobody to tell.
        Err(_) => Ok(None),
    }
}

async fn send(wire: &mut Wire, asked: &Asked, answer: &Answer, sent: &mut u64) -> io::Result<()> {
    let body = answer.body.as_ref().filter(|_| !asked.head && answer.length > 0);
    let head = head_of(asked, answer, SystemTime::now());
    wire.head(head.as_bytes(), body.is_some()).await?;
    match body {
        Some(source) => wire.body(source, answer.first, answer.length, sent).await,
        None => Ok(()),
    }
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
