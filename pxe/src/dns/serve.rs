//! The responder's sockets on one interface: UDP and TCP.
//!
//! Invariant: a connection that cannot be accepted holds up no datagram.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::zone::{LiveZone, MAX_QUESTION};
use crate::net::{tcp_on, udp_at};

/// TCP connections at once; a client that has to wait asks again.
const CONNECTIONS: usize = 32;
/// A connection must ask, and take the answer, within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions of one connection.
const QUESTIONS: usize = 64;
/// Pause after a connection that could not be accepted: out of descriptors, most likely, until others end.
const PAUSE: Duration = Duration::from_millis(100);

/// DNS on one interface.
pub(crate) struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddrV4,
    zone: LiveZone,
}

impl NameServer {
    /// # Errors
    /// The port is taken, the device or rights are missing.
    pub(crate) fn bind(device: &str, address: SocketAddrV4, zone: LiveZone) -> io::Result<Self> {
        let udp = udp_at(device, address)?;
        let tcp = tcp_on(device, address)?;
        tracing::info!(device, %address, names = zone.now().len(), "DNS answers");
        Ok(Self { udp, tcp, address, zone })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut conversations = JoinSet::new();
        let zone = &self.zone;
        let converse = |stream| converse(stream, zone.clone(), self.address);
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.datagrams() => {}
            () = connections(|| self.tcp.accept(), converse, &mut conversations) => {}
        }
        conversations.shutdown().await;
    }

    async fn datagrams(&self) {
        let mut buffer = vec![0; MAX_QUESTION + 1];
        loop {
            let Ok((length, from)) = self.udp.recv_from(&mut buffer).await else { continue };
            if let Some(answer) = self.zone.now().answer(&buffer[..length], *self.address.ip()) {
                // Without room in the socket the client asks again.
                let _ = self.udp.try_send_to(&answer, from);
            }
        }
    }
}

/// Accepts connections, and begins a conversation with each that has a place.
async fn connections<A, C>(
    accept: impl Fn() -> A,
    converse: impl Fn(TcpStream) -> C,
    conversations: &mut JoinSet<()>,
) where
    A: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
    C: Future<Output = io::Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            Some(_) = conversations.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let conversation = converse(stream);
                conversations.spawn(async move {
                    let _ = timeout(PATIENCE, conversation).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "DNS accept");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, zone: LiveZone, server: SocketAddrV4) -> io::Result<()> {
    for _ in 0..QUESTIONS {
        let length = usize::from(stream.read_u16().await?);
        if length > MAX_QUESTION {
            return Ok(());
        }
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        let Some(answer) = zone.now().answer(&question, *server.ip()) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn without_descriptors_it_waits_for_connections_to_end() {
        let tried = AtomicUsize::new(0);
        let accept = || {
            assert!(tried.fetch_add(1, Ordering::Relaxed) < 1000, "it spins");
            std::future::ready(Err(io::Error::from_raw_os_error(nix::libc::EMFILE)))
        };
        let mut none = JoinSet::new();
        let converse = |_: TcpStream| std::future::ready(Ok(()));
        let accepting = connections(accept, converse, &mut none);
        assert!(timeout(Duration::from_secs(1), accepting).await.is_err());
        let tried = tried.into_inner();
        assert!((5..=11).contains(&tried), "tried {tried} times in a second");
    }
}
