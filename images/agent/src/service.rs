//! The installed host's service: network and storage paths first, then orders.

use crate::channel;
use crate::credentials::Credentials;
use crate::orders::Host;
use anyhow::{Context, Result};
use dayzero_model::install::Personality;
use dayzero_model::network::HostNetwork;
use dayzero_model::storage::LunSpec;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the installation left here.
pub const PERSONALITY: &str = "/etc/dayzero/agent.json";
/// Keys, and what was ordered since: `network.json`, `luns.json`.
pub const STATE: &str = "/var/lib/dayzero";

/// Runs the service.
///
/// # Errors
/// A file that the installation wrote is missing or damaged.
pub fn run() -> Result<()> {
    tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(tokio::task::LocalSet::new().run_until(serve()))? {}
}

async fn serve() -> Result<std::convert::Infallible> {
    let personality: Personality =
        read(Path::new(PERSONALITY))?.context("this host was not installed by Dayzero")?;
    let state = Path::new(STATE);
    let network = read::<HostNetwork>(&state.join("network.json"))?.unwrap_or(personality.network);
    bring_up(&network).await;
    let luns = read::<Vec<LunSpec>>(&state.join("luns.json"))?.unwrap_or_default();
    let credentials = Credentials::load(state, personality.host)?;
    let host = Arc::new(Host::installed(credentials.clone(), network));
    if !luns.is_empty() {
        let again = host.clone();
        tokio::task::spawn_local(async move {
            let report = again.connect(luns).await;
            tracing::info!("storage paths after this boot: {report:?}");
        });
    }
    channel::serve(personality.agent_server, &credentials, host).await
}

/// Network before anything else; a NIC may appear late, so it is tried until it is as wanted.
async fn bring_up(network: &HostNetwork) {
    for attempt in 1..=30 {
        let report = dayzero_netconf::converge(network).await;
        if report.converged {
            tracing::info!("network is as wanted after {attempt} passes: {:?}", report.changes);
            return;
        }
        tracing::warn!("network, pass {attempt}: {}", report.problems.join("; "));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}", path.display())),
    }
}
