//! The responder's sockets on one interface: UDP and TCP.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::zone::{MAX_QUESTION, Zone};
use crate::net::{tcp_on, udp_at};

/// TCP connections at once; a client that has to wait asks again.
const CONNECTIONS: usize = 32;
/// A connection must ask, and take the answer, within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions of one connection.
const QUESTIONS: usize = 64;

/// DNS on one interface.
pub(crate) struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddrV4,
    zone: Arc<Zone>,
}

impl NameServer {
    /// # Errors
    /// The port is taken, the device or rights are missing.
    pub(crate) fn bind(device: &str, address: SocketAddrV4, zone: Arc<Zone>) -> io::Result<Self> {
        let udp = udp_at(device, address)?;
        let tcp = tcp_on(device, address)?;
        tracing::info!(device, %address, names = zone.len(), "DNS answers");
        Ok(Self { udp, tcp, address, zone })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut buffer = vec![0; MAX_QUESTION + 1];
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                got = self.udp.recv_from(&mut buffer) => {
                    let Ok((length, from)) = got else { continue };
                    if let Some(answer) = self.zone.answer(&buffer[..length], *self.address.ip()) {
                        // Without room in the socket the client asks again.
                        let _ = self.udp.try_send_to(&answer, from);
                    }
                }
                accepted = self.tcp.accept() => {
                    let (Ok((stream, _)), Ok(place)) = (accepted, Arc::clone(&places).try_acquire_owned()) else {
                        continue;
                    };
                    let (zone, server) = (Arc::clone(&self.zone), self.address);
                    connections.spawn(async move {
                        let _ = timeout(PATIENCE, converse(stream, &zone, server)).await;
                        drop(place);
                    });
                }
                _ = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        connections.shutdown().await;
    }
}

async fn converse(mut stream: TcpStream, zone: &Zone, server: SocketAddrV4) -> io::Result<()> {
    for _ in 0..QUESTIONS {
        let length = usize::from(stream.read_u16().await?);
        if length > MAX_QUESTION {
            return Ok(());
        }
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        let Some(answer) = zone.answer(&question, *server.ip()) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}
