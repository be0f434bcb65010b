//! The console's files: embedded, with an ETag, nothing from elsewhere.

use crate::Problem;
use crate::extract::Segment;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

pub(crate) async fn asset(Segment(file): Segment<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such file");
    let found = Assets::get(&file).ok_or_else(missing)?;
    let kind = match file.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => return Err(missing()),
    };
    let digest: String = found.metadata.sha256_hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{digest}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let about =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache"), (header::ETAG, tag.as_str())];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    Ok((about, found.data.into_owned()).into_response())
}
