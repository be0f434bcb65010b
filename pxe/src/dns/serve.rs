//! The responder's sockets at one address of an interface: UDP and TCP.
//!
//! Invariant: a connection that cannot be accepted holds up no datagram.

use std::io;
use std::net::{IpAddr, SocketAddr};
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

/// DNS at one address.
pub(crate) struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
    /// All our addresses on this interface: those of `ns`.
    ours: Arc<[IpAddr]>,
    zone: LiveZone,
}

impl NameServer {
    /// # Errors
    /// The port is taken, the device or rights are missing.
    pub(crate) fn bind(
        device: &str,
        address: SocketAddr,
        ours: Arc<[IpAddr]>,
        zone: LiveZone,
    ) -> io::Result<Self> {
        let udp = udp_at(device, address)?;
        let tcp = tcp_on(device, address)?;
        tracing::info!(device, %address, names = zone.now().len(), "DNS answers");
        Ok(Self { udp, tcp, ours, zone })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut conversations = JoinSet::new();
        let zone = &self.zone;
        let converse = |stream| converse(stream, zone.clone(), Arc::clone(&self.ours));
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
            if let Some(answer) = self.zone.now().answer(&buffer[..length], &self.ours) {
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

async fn converse(mut stream: TcpStream, zone: LiveZone, ours: Arc<[IpAddr]>) -> io::Result<()> {
    for _ in 0..QUESTIONS {
        let length = usize::from(stream.read_u16().await?);
        if length > MAX_QUESTION {
            return Ok(());
        }
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        let Some(answer) = zone.now().answer(&question, &ours) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NameZone;
    use crate::dns::zone::Zone;
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RData, RecordType};
    use std::net::Ipv6Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A port of ours that is free now.
    fn server(ours: &Arc<[IpAddr]>, zone: &LiveZone) -> NameServer {
        loop {
            let any = SocketAddr::new(ours[0], 0);
            let free = std::net::TcpListener::bind(any).unwrap().local_addr().unwrap();
            match NameServer::bind("lo", free, Arc::clone(ours), zone.clone()) {
                Ok(server) => return server,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn names_are_answered_by_ipv6_too() {
        let host = ("host1".parse().unwrap(), vec![Ipv6Addr::LOCALHOST.into()]);
        let names = NameZone { domain: "lab.example".into(), names: vec![host], ..NameZone::default() };
        let zone = LiveZone::new(Zone::new(&names).unwrap());
        let server = server(&[IpAddr::V6(Ipv6Addr::LOCALHOST)].into(), &zone);
        let (udp, tcp) = (server.udp.local_addr().unwrap(), server.tcp.local_addr().unwrap());
        let cancel = CancellationToken::new();
        let running = tokio::spawn(server.run(cancel.clone()));
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("host1.lab.example.").unwrap(), RecordType::AAAA));
        let question = question.to_vec().unwrap();
        let judge = |bytes: &[u8]| {
            let answer = Message::from_vec(bytes).unwrap();
            let data: Vec<&RData> = answer.answers.iter().map(|record| &record.data).collect();
            assert!(
                matches!(data[..], [RData::AAAA(address)] if address.0 == Ipv6Addr::LOCALHOST),
                "{data:?}"
            );
        };
        let socket = UdpSocket::bind("[::1]:0").await.unwrap();
        socket.send_to(&question, udp).await.unwrap();
        let mut buffer = [0; 1500];
        let (length, from) = timeout(PATIENCE * 4, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(from, udp);
        judge(&buffer[..length]);
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        stream.write_u16(u16::try_from(question.len()).unwrap()).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        judge(&answer);
        cancel.cancel();
        running.await.unwrap();
    }

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
