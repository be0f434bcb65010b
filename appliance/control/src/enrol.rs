//! The enrolment listener: `POST /enrol`, `POST /clock` (an agent tells its time first) and nothing else. Whether a key gets a certificate is trust's decision; here it
//! becomes facts, events, and a line on the to-do list when a second machine claims to be a host.

use crate::control::Control;
use crate::handshake::{self, Noted};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use dayzero_lifecycle::boot;
use dayzero_model::event::{Event, What};
use dayzero_model::facts::{HostFacts, RefusedKey, VouchFacts, WaitingKey};
use dayzero_model::ids::{HostName, Sha256};
use dayzero_model::wire::{EnrolAnswer, EnrolRequest};
use dayzero_trust::{Enrolled, Refusal, Revocation, TrustError, Vouch};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Longest request.
const MAX_BODY: usize = 32 << 10;
/// Refused keys kept of a host.
const MAX_REFUSED: usize = 16;
/// Keys that may wait in one boot; a machine can make as many as it likes.
const MAX_WAITING: usize = 8;

/// The listener's routes.
pub(crate) fn routes(control: Arc<Control>) -> Router {
    Router::new()
        .route("/enrol", post(enrol))
        .route("/clock", post(handshake::clock))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(control)
}

/// Serves until `cancel`.
pub(crate) async fn serve(
    control: Arc<Control>,
    address: SocketAddr,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let key = control.ca.listener(&[], &[address.ip()]).map_err(std::io::Error::other)?;
    let tls = dayzero_trust::operators_server_config(key).map_err(std::io::Error::other)?;
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(tls);
    let inner = axum_server::tls_rustls::RustlsAcceptor::new(tls);
    let tls = Noted { inner, control: control.clone(), listener: "enrolment" };
    crate::listen::tls(address, tls, routes(control), cancel).await
}

async fn enrol(
    State(control): State<Arc<Control>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Json(request): Json<EnrolRequest>,
) -> Response {
    let now = control.now();
    let enrolled = match control.enrolment.enrol(&request, &peer.ip().to_string(), now).await {
        Ok(enrolled) => enrolled,
        Err(error @ TrustError::BadRequest { .. }) => {
            return (StatusCode::BAD_REQUEST, Json(EnrolAnswer::Refused { reason: error.to_string() }))
                .into_response();
        }
        Err(error) => {
            tracing::error!(%error, %peer, "an enrolment could not be decided");
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(EnrolAnswer::Wait { seconds: 5 }))
                .into_response();
        }
    };
    let answer = enrolled.answer().clone();
    match control.enrolled(&request, peer, enrolled).await {
        Ok(()) => Json(answer).into_response(),
        Err(error) => {
            // A certificate whose host is not on record would be refused at the agents' listener.
            tracing::error!(%error, %peer, "an enrolment could not be recorded");
            (StatusCode::INTERNAL_SERVER_ERROR, Json(EnrolAnswer::Wait { seconds: 5 })).into_response()
        }
    }
}

impl Control {
    async fn enrolled(
        self: &Arc<Self>,
        request: &EnrolRequest,
        peer: SocketAddr,
        enrolled: Enrolled,
    ) -> Result<(), dayzero_store::StoreError> {
        match enrolled {
            Enrolled::Granted { host, vouch, certificate, .. } => {
                self.granted(&host, request, peer, vouch, certificate).await
            }
            Enrolled::Wait { host, key, .. } => {
                let waiting = WaitingKey { key, peer: peer.ip().to_string(), at: self.now() };
                self.asked_for_certificate(&host, request, Some(waiting)).await
            }
            Enrolled::Refused { host, refusal, first, .. } => {
                if let Some(host) = &host {
                    self.asked_for_certificate(host, request, None).await?;
                }
                if first { self.refused(host, request, peer, refusal).await } else { Ok(()) }
            }
        }
    }

    async fn asked_for_certificate(
        self: &Arc<Self>,
        host: &HostName,
        request: &EnrolRequest,
        waiting: Option<WaitingKey>,
    ) -> Result<(), dayzero_store::StoreError> {
        let (now, boot) = (self.now(), request.boot);
        self.step(host, move |facts| {
            if let Some(window) = facts.window.as_mut().filter(|window| window.window.boot == boot) {
                window.enrol_asked.get_or_insert(now);
                if let Some(waiting) = waiting
                    && window.waiting.len() < MAX_WAITING
                    && window.waiting.iter().all(|known| known.key != waiting.key)
                {
                    window.waiting.push(waiting);
                }
            }
        })
        .await
    }

    async fn granted(
        self: &Arc<Self>,
        host: &HostName,
        request: &EnrolRequest,
        peer: SocketAddr,
        vouch: Vouch,
        certificate: Sha256,
    ) -> Result<(), dayzero_store::StoreError> {
        let old = self.facts(host).and_then(|facts| facts.vouch.clone());
        if old.as_ref().is_some_and(|old| old.certificate == certificate) {
            return Ok(());
        }
        let facts = VouchFacts {
            boot: request.boot,
            key: vouch.key,
            certificate,
            channel: vouch.channel.to_string(),
            at: self.now(),
        };
        let reason = format!("the BMC vouched for it by {}", vouch.channel);
        self.enrol_event(Some(host), request, peer, true, vouch.key, reason);
        self.step(host, move |known| {
            let waiting = known.window.as_ref().map(|window| window.waiting.clone()).unwrap_or_default();
            for other in waiting.into_iter().filter(|other| other.key != facts.key) {
                let reason = "the BMC vouched for another key in the same boot".to_owned();
                note_refused(known, RefusedKey { key: other.key, reason, peer: other.peer, at: other.at });
            }
            known.agent_check =
                known.window.as_ref().and_then(|window| boot::agent_check(window.chain, known));
            known.vouch = Some(facts);
            known.window = None;
            known.agent = None;
        })
        .await?;
        if let Some(old) = old {
            let revocation =
                Revocation { host: host.clone(), reason: "enrolled anew".to_owned(), at: self.now() };
            if let Err(error) = self.ca.revoke(old.certificate, revocation).await {
                tracing::error!(%error, %host, "the host's former certificate could not be revoked; it is no longer current");
            }
            self.world.agents.disconnect(host);
        }
        Ok(())
    }

    async fn refused(
        self: &Arc<Self>,
        host: Option<HostName>,
        request: &EnrolRequest,
        peer: SocketAddr,
        refusal: Refusal,
    ) -> Result<(), dayzero_store::StoreError> {
        self.enrol_event(host.as_ref(), request, peer, false, refusal.key, refusal.reason.to_string());
        let Some(host) = host else { return Ok(()) };
        let key = RefusedKey {
            key: refusal.key,
            reason: refusal.reason.to_string(),
            peer: peer.ip().to_string(),
            at: refusal.at,
        };
        self.step(&host, move |facts| note_refused(facts, key)).await
    }

    /// An enrolment on the timeline: of the window's host, else of the MAC that the request claims.
    fn enrol_event(
        &self,
        host: Option<&HostName>,
        request: &EnrolRequest,
        peer: SocketAddr,
        granted: bool,
        key: Sha256,
        reason: String,
    ) {
        let what = What::Enrol { granted, key, reason, peer: peer.ip() };
        let (host, mac, boot) = (host.cloned(), Some(request.mac), Some(request.boot));
        self.timeline.record(Event { at: self.now(), host, mac, boot, what });
    }
}

/// Keeps the first refusals of a host, each key and reason once.
pub(crate) fn note_refused(facts: &mut HostFacts, key: RefusedKey) {
    let known = facts.refused_keys.iter().any(|old| old.key == key.key && old.reason == key.reason);
    if !known && facts.refused_keys.len() < MAX_REFUSED {
        facts.refused_keys.push(key);
    }
}
