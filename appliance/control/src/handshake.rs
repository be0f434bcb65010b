//! TLS handshakes of planned hosts that were broken off, and the clock that an agent tells then: what `why` needs to say that
//! a silent host is not silent.
//!
//! Invariants: neither proves or changes anything; both are recorded for hosts of the plan alone, and at most once a minute
//! for each, whoever knocks how often. Both come from the boot network, unauthenticated.

use crate::control::Control;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use dayzero_model::event::{Event, What};
use dayzero_model::ids::HostName;
use dayzero_model::units::{Millis, Timestamp};
use dayzero_model::wire::ClockReport;
use rustls::AlertDescription;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;

/// A host's handshakes, and its clock, are recorded this seldom.
const EVERY: Millis = Millis(60_000);
/// A clock that is off by less is none.
const TOLERANCE: i64 = 60;

/// When something of a host was recorded last; hosts of the plan alone, so that it is bounded.
#[derive(Default)]
pub(crate) struct Recorded(Mutex<HashMap<(HostName, &'static str), Timestamp>>);

impl Recorded {
    fn is_due(&self, host: &HostName, what: &'static str, now: Timestamp) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.get(&(host.clone(), what)).is_none_or(|at| now.since(*at) >= EVERY || *at > now);
        if due {
            last.insert((host.clone(), what), now);
        }
        due
    }
}

impl Control {
    /// A peer and we did not come to terms.
    pub(crate) fn note_handshake(&self, listener: &'static str, peer: IpAddr, error: &io::Error) {
        tracing::debug!(%error, %peer, listener, "TLS handshake");
        let plan = self.plan();
        let placed =
            plan.as_ref().and_then(|plan| plan.site.hosts().find(|p| IpAddr::V4(p.host.address) == peer));
        let Some(host) = placed.map(|placed| placed.host.name.clone()) else { return };
        if self.recorded.is_due(&host, listener, self.now()) {
            let (listener, reason) = (listener.to_owned(), error.to_string());
            self.tell(&host, What::TlsRefused { peer, listener, reason, clock: is_clock(error) });
        }
    }

    /// An agent says what time it has.
    fn note_clock(&self, report: &ClockReport) {
        let Some(plan) = self.plan() else { return };
        let Some(placed) =
            plan.site.hosts().find(|p| p.host.bond.nics.iter().any(|nic| nic.mac == report.mac))
        else {
            return;
        };
        let host = &placed.host.name;
        let open = self.facts(host).and_then(|facts| facts.window.as_ref().map(|window| window.window.boot));
        let now = self.now();
        let ahead = (i128::from(report.clock.0) - i128::from(now.0)) / 1000;
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        if open != Some(report.boot) || ahead.unsigned_abs() < TOLERANCE.unsigned_abs() {
            return;
        }
        if self.recorded.is_due(host, "clock", now) {
            let what = What::Clock { whose: "the agent".to_owned(), ahead };
            let (host, mac, boot) = (Some(host.clone()), Some(report.mac), Some(report.boot));
            self.timeline.record(Event { at: now, host, mac, boot, what });
        }
    }
}

/// The peer holds our certificate to be not valid at its time (rustls sends the same alert for "not yet").
fn is_clock(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)))
}

/// `POST /clock`.
pub(crate) async fn clock(
    State(control): State<Arc<Control>>,
    Json(report): Json<ClockReport>,
) -> StatusCode {
    control.note_clock(&report);
    StatusCode::NO_CONTENT
}

/// TLS for HTTPS, whose failed handshakes are noted.
#[derive(Clone)]
pub(crate) struct Noted {
    pub(crate) inner: RustlsAcceptor,
    pub(crate) control: Arc<Control>,
    pub(crate) listener: &'static str,
}

type Tls<S> = <RustlsAcceptor as Accept<TcpStream, S>>::Stream;
type Service<S> = <RustlsAcceptor as Accept<TcpStream, S>>::Service;
type Accepting<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl<S: Send + 'static> Accept<TcpStream, S> for Noted {
    type Stream = Tls<S>;
    type Service = Service<S>;
    type Future = Accepting<(Tls<S>, Service<S>)>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let peer = stream.peer_addr().map(|peer: SocketAddr| peer.ip());
        let accepting = self.inner.accept(stream, service);
        let (control, listener) = (Arc::clone(&self.control), self.listener);
        Box::pin(async move {
            let accepted = accepting.await;
            if let (Err(error), Ok(peer)) = (&accepted, peer) {
                control.note_handshake(listener, peer, error);
            }
            accepted
        })
    }
}
