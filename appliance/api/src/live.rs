//! The event stream (server-sent events, WHATWG HTML section 9.2).
//!
//! Invariants: a slow reader is told `lagged` and reads the views again; a stream ends when the process does, and when
//! its session does.

use crate::{Api, Identity};
use axum::response::sse;
use dayzero_model::event::Event;
use futures::stream::{self, Stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// How often a stream makes sure that its session still holds; also the longest silence on it.
const CHECK: Duration = Duration::from_secs(15);

/// What a stream's reader is told.
pub(crate) enum News {
    /// Something happened.
    Event(Box<Event>),
    /// Events were passed over.
    Lagged,
    /// Nothing for a while.
    Quiet,
}

struct Watching {
    api: Arc<Api>,
    identity: Identity,
    events: Receiver<Event>,
    quiet: Duration,
}

/// True while the identity may still look.
pub(crate) fn still_holds(api: &Api, identity: &Identity) -> bool {
    match &identity.session {
        None => true,
        Some(id) => matches!(api.users.session(id.expose(), api.now()), Ok(Some(_))),
    }
}

/// News until the end; `quiet` = how long without news until [`News::Quiet`].
pub(crate) fn news(api: Arc<Api>, identity: Identity, quiet: Duration) -> impl Stream<Item = News> + Send {
    let events = api.service.events();
    let watching = Watching { api, identity, events, quiet };
    stream::unfold(watching, |mut watching| async move {
        let cancelled = watching.api.cancel.clone();
        let news = tokio::select! {
            () = cancelled.cancelled() => return None,
            () = tokio::time::sleep(watching.quiet) => News::Quiet,
            event = watching.events.recv() => match event {
                Ok(event) => News::Event(Box::new(event)),
                Err(RecvError::Lagged(_)) => News::Lagged,
                Err(RecvError::Closed) => return None,
            },
        };
        still_holds(&watching.api, &watching.identity).then_some((news, watching))
    })
}

/// Answer of `GET /v1/events`: `event: timeline` with an event as JSON, or `event: lagged`.
pub(crate) fn timeline(
    api: Arc<Api>,
    identity: Identity,
) -> sse::Sse<impl Stream<Item = Result<sse::Event, Infallible>> + Send> {
    use futures::StreamExt;
    let told = news(api, identity, CHECK).map(|news| {
        Ok(match news {
            News::Event(event) => {
                let shown = serde_json::to_string(&*event).unwrap_or_default();
                sse::Event::default().event("timeline").data(shown)
            }
            News::Lagged => sse::Event::default().event("lagged").data("read the views again"),
            News::Quiet => sse::Event::default().comment("quiet"),
        })
    });
    sse::Sse::new(told)
}
