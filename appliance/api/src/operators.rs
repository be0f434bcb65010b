//! The operators' listener: HTTPS with a certificate of the site's CA, session cookie, REST and console.
//!
//! Invariants: TLS only; what changes state needs a session and a request from our own pages (`Sec-Fetch-Site` or
//! `Origin`); every answer carries the security headers; no answer with facts is cached.

use crate::identity::{From, Identity};
use crate::rest::session;
use crate::{Api, Problem, routes};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use dayzero_model::ids::Sha256;
use dayzero_model::units::Timestamp;
use dayzero_trust::{SiteCa, TrustError, Vault, Wanted, operators_server_config};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long open connections may finish.
const GRACE: Duration = Duration::from_secs(2);

/// Why the listener does not serve.
#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    /// The address is not free, or not ours.
    #[error("the operators' listener cannot use {address}: free it, or set operators.listen to another")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its certificate could not be made.
    #[error("the operators' listener has no certificate")]
    Certificate(#[from] TrustError),
    /// It stopped.
    #[error("the operators' listener stopped")]
    Serve(#[source] io::Error),
}

/// A bound listener with its certificate.
pub struct Operators {
    listener: TcpListener,
    address: SocketAddr,
    tls: RustlsConfig,
    fingerprint: Sha256,
}

/// Binds the address. Its certificate is for it, `localhost` and `names` (DNS names and addresses), and stays the same
/// over restarts as long as these do. Blocks for the store.
///
/// # Errors
/// [`OperatorsError`].
pub fn bind(
    address: SocketAddr,
    names: &[String],
    ca: &SiteCa,
    vault: &Vault,
    now: Timestamp,
) -> Result<Operators, OperatorsError> {
    let failed = |source| OperatorsError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let mut wanted = Wanted {
        names: names.iter().map(String::as_str).filter(|name| name.parse::<IpAddr>().is_err()).collect(),
        addresses: names.iter().filter_map(|name| name.parse().ok()).collect(),
        passing: Vec::new(),
    };
    wanted.names.push("localhost");
    wanted.addresses.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    if bound.ip().is_unspecified() {
        wanted.passing = own_addresses();
    } else {
        wanted.addresses.push(bound.ip());
    }
    let key = ca.kept_listener(vault, "operators", &wanted, now)?;
    let fingerprint = key.cert.first().map(dayzero_trust::fingerprint).unwrap_or(Sha256([0; 32]));
    let tls = RustlsConfig::from_config(operators_server_config(key)?);
    Ok(Operators { listener, address: bound, tls, fingerprint })
}

impl Operators {
    /// The address that it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where browsers find it: its address, or each address of this machine if it listens on all of them.
    pub fn urls(&self) -> Vec<String> {
        let url = |ip| format!("https://{}/", SocketAddr::new(ip, self.address.port()));
        let mut all = if self.address.ip().is_unspecified() { own_addresses() } else { Vec::new() };
        if self.address.is_ipv4() {
            all.retain(IpAddr::is_ipv4);
        }
        if all.is_empty() {
            let local =
                if self.address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            all.push(if self.address.ip().is_unspecified() { local } else { self.address.ip() });
        }
        all.into_iter().map(url).collect()
    }

    /// SHA-256 of its certificate, as browsers show it.
    pub fn fingerprint(&self) -> Sha256 {
        self.fingerprint
    }

    /// Serves until the token is cancelled.
    ///
    /// # Errors
    /// [`OperatorsError::Serve`].
    pub async fn serve(self, api: Arc<Api>, cancel: CancellationToken) -> Result<(), OperatorsError> {
        let handle = axum_server::Handle::new();
        let stopping = async {
            cancel.cancelled().await;
            handle.graceful_shutdown(Some(GRACE));
            std::future::pending::<()>().await
        };
        let service = router(api).into_make_service_with_connect_info::<SocketAddr>();
        let server = axum_server::from_tcp_rustls(self.listener, self.tls).map_err(OperatorsError::Serve)?;
        tokio::select! {
            served = server.handle(handle.clone()).serve(service) => served.map_err(OperatorsError::Serve),
            () = stopping => Ok(()),
        }
    }
}

/// Addresses of this machine that others may reach: neither loopback nor link-local.
fn own_addresses() -> Vec<IpAddr> {
    let ip = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let mut found: Vec<IpAddr> =
        nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(ip).filter(reachable).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The routes of this listener.
pub(crate) fn router(api: Arc<Api>) -> Router {
    routes::router()
        .merge(crate::web::router())
        .fallback(routes::nothing_here)
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(from_fn(own_pages_only))
        .layer(from_fn_with_state(api.clone(), identify))
        .layer(from_fn(secure))
        .with_state(api)
}

async fn identify(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let peer =
        request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_string());
    let from = peer.unwrap_or_else(|| "unknown".to_owned());
    request.extensions_mut().insert(From(from.clone()));
    if let Some(id) = session::cookie(request.headers()) {
        match api.users.session(id.expose(), api.now()) {
            Ok(Some(session)) => {
                let identity =
                    Identity { who: session.user.to_string(), role: session.role, from, session: Some(id) };
                request.extensions_mut().insert(identity);
            }
            Ok(None) => {}
            Err(error) => return Problem::system(&error).into_response(),
        }
    }
    next.run(request).await
}

/// What changes state must come from our own pages: browsers say so by themselves, tools send `Origin`.
async fn own_pages_only(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || is_own_page(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    let detail =
        "this request does not come from a page of this console: send `Origin: https://…` of this address";
    Problem::forbidden(detail).into_response()
}

fn is_own_page(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site"))
        && site != "same-origin"
    {
        return false;
    }
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
    match (text(header::ORIGIN), host) {
        (Some(origin), Some(host)) => {
            origin.strip_prefix("https://").is_some_and(|place| place.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
        (None, _) => headers.contains_key("sec-fetch-site"),
    }
}

/// Headers of every answer (OWASP secure headers). The page needs no script and no style but its own files.
const SECURITY: [(&str, &str); 8] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    // Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
