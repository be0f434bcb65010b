//! Virtual media for BMCs: `GET /media/<token>.iso`, once, for the one BMC that it was made for.
//!
//! Invariants: a token is 128 random bits, counts for one whole transfer and for its BMC's address alone; nothing is on
//! disk; after a restart the shelf is empty, and the boot that needed it is prepared anew.

use crate::control::Control;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use bytes::Bytes;
use dayzero_model::ids::HostName;
use dayzero_model::secret::Secret;
use dayzero_model::site::Host;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Requests for parts of a medium that a BMC may make before it has it all.
const PARTS: u32 = 256;

struct Medium {
    host: HostName,
    bmc: IpAddr,
    iso: Bytes,
    parts: u32,
}

/// Media that wait for their BMC.
#[derive(Default)]
pub(crate) struct MediaShelf(Mutex<HashMap<String, Medium>>);

impl MediaShelf {
    /// What a BMC would fetch.
    #[cfg(test)]
    pub(crate) fn iso(&self, url: &str) -> Option<Bytes> {
        let token = url.rsplit('/').next()?.strip_suffix(".iso")?.to_owned();
        self.shelf().get(&token).map(|medium| medium.iso.clone())
    }

    fn shelf(&self) -> MutexGuard<'_, HashMap<String, Medium>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// A single-use URL of a medium for a host's BMC; none if we have no address on its network. A host has one medium at
    /// a time.
    pub(crate) fn media_url(&self, host: &Host, iso: Vec<u8>) -> Option<Secret<String>> {
        let plan = self.plan()?;
        let placed = plan.site.host(&host.name)?;
        let address = plan.site.appliance_for(plan.site.network(&placed.pod.bmc_network)?)?;
        let token: [u8; 16] = rand::random();
        let token = hex::encode(token);
        let url = format!("http://{address}:{}/media/{token}.iso", self.config.ports.media);
        let medium =
            Medium { host: host.name.clone(), bmc: host.bmc.address.into(), iso: iso.into(), parts: PARTS };
        let mut shelf = self.media.shelf();
        shelf.retain(|_, old| old.host != host.name);
        shelf.insert(token, medium);
        Some(Secret::new(url))
    }
}

/// The listener's routes.
pub(crate) fn routes(control: Arc<Control>) -> Router {
    Router::new().route("/media/{file}", get(medium)).with_state(control)
}

/// Serves until `cancel`.
pub(crate) async fn serve(
    control: Arc<Control>,
    address: SocketAddr,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    crate::listen::plain(address, routes(control), cancel).await
}

async fn medium(
    State(control): State<Arc<Control>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Some(token) = file.strip_suffix(".iso") else { return StatusCode::NOT_FOUND.into_response() };
    let mut shelf = control.media.shelf();
    // Another address learns nothing, not even that there is such a medium.
    let Some(medium) = shelf.get_mut(token).filter(|medium| medium.bmc == peer.ip()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let size = medium.iso.len();
    let kind = [(header::CONTENT_TYPE, "application/octet-stream"), (header::ACCEPT_RANGES, "bytes")];
    if method == Method::HEAD {
        return (kind, [(header::CONTENT_LENGTH, size.to_string())]).into_response();
    }
    let range =
        headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(|text| part(text, size));
    match range {
        Some((first, last)) if medium.parts > 0 => {
            medium.parts -= 1;
            let place = format!("bytes {first}-{last}/{size}");
            let body = medium.iso.slice(first..=last);
            (StatusCode::PARTIAL_CONTENT, kind, [(header::CONTENT_RANGE, place)], body).into_response()
        }
        _ => {
            let iso = medium.iso.clone();
            shelf.remove(token);
            (kind, iso).into_response()
        }
    }
}

/// `bytes=a-b`, `bytes=a-`; others are answered whole.
fn part(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { size - 1 } else { last.parse::<usize>().ok()?.min(size - 1) };
    (first <= last).then_some((first, last))
}
