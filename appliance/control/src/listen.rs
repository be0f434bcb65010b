//! HTTP listeners that end together with their cancellation token.

use crate::handshake::Noted;
use axum::Router;
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long open connections may finish.
const GRACE: Duration = Duration::from_secs(2);

fn handle(cancel: CancellationToken) -> axum_server::Handle<SocketAddr> {
    let handle = axum_server::Handle::new();
    let ours = handle.clone();
    tokio::spawn(async move {
        cancel.cancelled().await;
        ours.graceful_shutdown(Some(GRACE));
    });
    handle
}

/// HTTPS.
pub(crate) async fn tls(
    address: SocketAddr,
    tls: Noted,
    routes: Router,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    tracing::info!(%address, "HTTPS listener");
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    axum_server::bind(address).acceptor(tls).handle(handle(cancel)).serve(service).await
}

/// Plain HTTP.
pub(crate) async fn plain(
    address: SocketAddr,
    routes: Router,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    tracing::info!(%address, "HTTP listener");
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    axum_server::bind(address).handle(handle(cancel)).serve(service).await
}
