//! The connection to the appliance: mutual TLS, frames, orders in, progress and results out. It is made anew for ever.

use crate::credentials::Credentials;
use crate::frames;
use crate::jobs::Jobs;
use crate::orders::Host;
use anyhow::{Context, Result};
use dayzero_model::wire::{FromAgent, ToAgent, VERSION};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A silent appliance is taken for gone after this time; it pings every five seconds.
const SILENCE: Duration = Duration::from_secs(20);

/// Serves the appliance for ever.
///
/// # Errors
/// Only credentials that cannot be used at all.
pub async fn serve(
    server: SocketAddr,
    credentials: &Credentials,
    host: Arc<Host>,
) -> Result<std::convert::Infallible> {
    let tls = credentials.tls()?;
    let jobs = Jobs::default();
    loop {
        if let Err(error) = session(server, tls.clone(), &host, &jobs).await {
            tracing::warn!("appliance {server}: {error:#}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn session(
    server: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    host: &Arc<Host>,
    jobs: &Jobs,
) -> Result<()> {
    let limit = Duration::from_secs(10);
    let tcp = tokio::time::timeout(limit, TcpStream::connect(server)).await.context("connecting")??;
    tcp.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(tls);
    let name = rustls::pki_types::ServerName::IpAddress(server.ip().into());
    let stream = tokio::time::timeout(limit, connector.connect(name, tcp)).await.context("TLS")??;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let hello = FromAgent::Hello {
        version: VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        installed: host.installed,
        kernel_boot: host.kernel_boot.clone(),
    };
    frames::write(&mut writer, &hello).await?;
    tracing::info!("connected to the appliance {server}");

    let (out, mut queue) = mpsc::channel::<FromAgent>(256);
    let mut writer_tick = tokio::time::interval(Duration::from_millis(50));
    let (orders, mut incoming) = mpsc::channel::<ToAgent>(16);
    // Frames are read by a task of their own: a read that select! drops half-way would lose its place in the stream.
    let mut readers = tokio::task::JoinSet::new();
    readers.spawn(async move {
        loop {
            let message = tokio::time::timeout(SILENCE, frames::read(&mut reader))
                .await
                .context("appliance is silent")??;
            if orders.send(message).await.is_err() {
                return anyhow::Ok(());
            }
        }
    });
    loop {
        tokio::select! {
            ended = readers.join_next() => {
                return ended.context("reader")?.context("reader")?;
            }
            Some(message) = incoming.recv() => match message {
                ToAgent::Ping => frames::write(&mut writer, &FromAgent::Pong).await?,
                ToAgent::Do { id, order } => jobs.take(host, id, order, out.clone()),
            },
            Some(message) = queue.recv() => frames::write(&mut writer, &message).await?,
            _ = writer_tick.tick() => {
                if let Some(progress) = host.writer_progress() {
                    frames::write(&mut writer, &FromAgent::Writer(progress)).await?;
                }
            }
        }
    }
}
