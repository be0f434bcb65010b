//! Secondary storage: a read-only HTTP server of one directory of files.
//!
//! Invariants: one path segment, so nothing above the directory can be named; no listing; ranges are honoured, so a
//! broken download can be resumed.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// The routes over `dir`.
pub fn routes(dir: PathBuf) -> Router {
    Router::new().route("/{file}", get(file)).with_state(Arc::new(dir))
}

async fn file(
    State(dir): State<Arc<PathBuf>>,
    UrlPath(name): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    if name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(mut file) = tokio::fs::File::open(dir.join(&name)).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let length = match file.metadata().await {
        Ok(meta) if meta.is_file() => meta.len(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let range = headers.get(header::RANGE).and_then(|range| parse_range(range.to_str().ok()?, length));
    let (status, first, last) = match range {
        None => (StatusCode::OK, 0, length),
        Some(Ok((first, last))) => (StatusCode::PARTIAL_CONTENT, first, last),
        Some(Err(())) => {
            let unsatisfied = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, unsatisfied).into_response();
        }
    };
    if file.seek(SeekFrom::Start(first)).await.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(last - first), 128 * 1024));
    let mut answer = (status, body).into_response();
    let mut set = |name, value: String| {
        if let Ok(value) = value.parse() {
            answer.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_LENGTH, (last - first).to_string());
    set(header::CONTENT_TYPE, "application/octet-stream".into());
    set(header::ACCEPT_RANGES, "bytes".into());
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {first}-{}/{length}", last - 1));
    }
    answer
}

/// `bytes=A-B` or `bytes=A-` as a half-open span; other forms are ignored (RFC 9110 allows it), a span past the end
/// is an error.
fn parse_range(text: &str, length: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.checked_add(1)?.min(length) };
    Some(if first < end { Ok((first, end)) } else { Err(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-9", Some(Ok((0, 10)))),
            ("bytes=90-", Some(Ok((90, 100)))),
            ("bytes=90-1000", Some(Ok((90, 100)))),
            ("bytes=100-", Some(Err(()))),
            ("bytes=-5", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(parse_range(text, 100), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn serves_its_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.raw"), b"0123456789").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move { axum::serve(listener, routes(dir.path().into())).await });
        let _ring_or_other = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let whole = client.get(format!("{url}/a.raw")).send().await.unwrap();
        assert_eq!(whole.headers()["content-length"], "10");
        assert_eq!(whole.text().await.unwrap(), "0123456789");
        let part = client.get(format!("{url}/a.raw")).header("range", "bytes=2-4").send().await.unwrap();
        assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "234"));
        for bad in ["missing", "sub", "..%2f..%2fetc%2fpasswd", ".hidden", "%2e%2e"] {
            let status = client.get(format!("{url}/{bad}")).send().await.unwrap().status();
            assert_eq!(status.as_u16(), 404, "{bad}");
        }
        served.abort();
    }
}
