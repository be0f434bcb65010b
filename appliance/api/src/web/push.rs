//! `/live`: tells an open page that what it shows has changed. It carries no fact itself.
//!
//! Invariants: events that come close together are one message; what changes without an event (progress) is noticed by
//! comparing the status every two seconds; at most [`MOST`] pages are told at a time.

use crate::live::{News, news};
use crate::{Api, Identity, Problem};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse;
use axum::response::{IntoResponse, Response};
use dayzero_model::ids::Sha256;
use dayzero_model::units::Timestamp;
use futures::stream::{self, BoxStream, StreamExt};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Most open pages.
pub(crate) const MOST: usize = 256;
/// How often the status is compared.
const LOOK: Duration = Duration::from_secs(2);
/// How long events are gathered.
const GATHER: Duration = Duration::from_millis(250);

struct Page {
    api: Arc<Api>,
    news: BoxStream<'static, News>,
    shown: Sha256,
    _place: OwnedSemaphorePermit,
}

/// Digest of all that the pages show, but for the time of day.
async fn digest(api: &Api) -> Sha256 {
    match api.service.status().await {
        Ok(mut status) => {
            status.now = Timestamp(0);
            Sha256::of(&serde_json::to_vec(&status).unwrap_or_default())
        }
        Err(_) => Sha256::of(b"unknown"),
    }
}

pub(crate) async fn live(State(api): State<Arc<Api>>, identity: Identity) -> Response {
    let Ok(place) = api.pages.clone().try_acquire_owned() else {
        let detail = format!("{MOST} pages are open already: close some");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-pages", detail).into_response();
    };
    let shown = digest(&api).await;
    let page = Page { news: news(api.clone(), identity, LOOK).boxed(), api, shown, _place: place };
    let changes = stream::unfold(page, |mut page| async move {
        let changed = changed(&mut page).await?;
        let event = if changed {
            sse::Event::default().event("changed").data("look")
        } else {
            sse::Event::default().comment("quiet")
        };
        Some((Ok::<_, Infallible>(event), page))
    });
    sse::Sse::new(changes).into_response()
}

/// Waits for a change, or for the end of a quiet while; none = the stream ends.
async fn changed(page: &mut Page) -> Option<bool> {
    for _ in 0..7 {
        match page.news.next().await? {
            News::Quiet => {
                let now = digest(&page.api).await;
                if now != page.shown {
                    page.shown = now;
                    return Some(true);
                }
            }
            News::Event(_) | News::Lagged => {
                let gathering = async { while page.news.next().await.is_some() {} };
                let _ = tokio::time::timeout(GATHER, gathering).await;
                page.shown = digest(&page.api).await;
                return Some(true);
            }
        }
    }
    Some(false)
}
