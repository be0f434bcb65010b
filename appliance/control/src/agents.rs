//! The agents' listener: mutual TLS, frames of `model::wire`, orders out, results in.
//!
//! Invariants: who a connection belongs to is said by its certificate alone, which must be the host's current one; of two
//! connections of one host the newer counts; a frame is bounded before it is read; a silent peer is dropped.

use crate::control::Control;
use crate::view::Progress;
use crate::world::{AgentFault, Agents, WriterWatch};
use dayzero_model::event::What;
use dayzero_model::facts::AgentFacts;
use dayzero_model::ids::{HostName, Sha256};
use dayzero_model::proof::WriterProgress;
use dayzero_model::wire::{self, FrameError, FromAgent, Order, Report, ToAgent, VERSION};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Handshake and first frame must come within this.
const GREETING: Duration = Duration::from_secs(15);
const PING: Duration = Duration::from_secs(5);
/// A peer that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(20);
/// A frame must be taken by the peer within this.
const WRITE: Duration = Duration::from_secs(20);
/// Connections at once.
const CONNECTIONS: usize = 8192;
/// Orders that wait to be sent.
const QUEUE: usize = 64;

type Answer = oneshot::Sender<Result<Report, AgentFault>>;

struct Link {
    number: u64,
    out: mpsc::Sender<ToAgent>,
    pending: HashMap<u64, Answer>,
    progress: Option<(u64, Progress)>,
    end: CancellationToken,
}

struct Slot {
    link: Option<Link>,
    connection: watch::Sender<Option<u64>>,
    writer: watch::Sender<Option<(Instant, WriterProgress)>>,
}

impl Default for Slot {
    fn default() -> Self {
        Self { link: None, connection: watch::Sender::new(None), writer: watch::Sender::new(None) }
    }
}

/// All connected agents.
#[derive(Default)]
pub(crate) struct ConnectedAgents {
    slots: Mutex<HashMap<HostName, Slot>>,
    next: AtomicU64,
}

/// Takes the pending order off the link when nobody waits for it any longer.
struct Pending<'a> {
    agents: &'a ConnectedAgents,
    host: &'a HostName,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut slots = self.agents.slots();
        if let Some(link) = slots.get_mut(self.host).and_then(|slot| slot.link.as_mut()) {
            link.pending.remove(&self.id);
            if link.progress.as_ref().is_some_and(|(id, _)| *id == self.id) {
                link.progress = None;
            }
        }
    }
}

impl ConnectedAgents {
    fn slots(&self) -> MutexGuard<'_, HashMap<HostName, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A new connection takes the host's slot; an older one ends.
    fn attach(&self, host: &HostName, out: mpsc::Sender<ToAgent>, end: CancellationToken) -> u64 {
        let number = self.number();
        let mut slots = self.slots();
        let slot = slots.entry(host.clone()).or_default();
        if let Some(old) =
            slot.link.replace(Link { number, out, pending: HashMap::new(), progress: None, end })
        {
            old.end.cancel();
        }
        slot.connection.send_replace(Some(number));
        number
    }

    /// The connection ended; false if a newer one has taken its place.
    fn detach(&self, host: &HostName, number: u64) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(host) else { return false };
        if slot.link.as_ref().is_none_or(|link| link.number != number) {
            return false;
        }
        slot.link = None;
        slot.connection.send_replace(None);
        true
    }

    async fn until(&self, host: &HostName, wanted: impl Fn(Option<u64>) -> bool) {
        let mut connection = self.slots().entry(host.clone()).or_default().connection.subscribe();
        // The sender lives as long as we do.
        let _ = connection.wait_for(|now| wanted(*now)).await;
    }

    /// A frame came in.
    fn receive(&self, host: &HostName, number: u64, frame: FromAgent) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(host) else { return };
        let Some(link) = slot.link.as_mut().filter(|link| link.number == number) else { return };
        match frame {
            FromAgent::Progress { id, what, done, total } => {
                link.progress = Some((id, Progress { what, done, total }))
            }
            FromAgent::Done { id, result } => {
                if let Some(answer) = link.pending.remove(&id) {
                    // Nobody waits any longer: no loss.
                    let _ = answer.send(result.map_err(AgentFault::Agent));
                }
            }
            FromAgent::Writer(progress) => {
                slot.writer.send_replace(Some((Instant::now(), progress)));
            }
            FromAgent::Pong | FromAgent::Hello { .. } => {}
        }
    }
}

#[async_trait::async_trait]
impl Agents for ConnectedAgents {
    async fn order(&self, host: &HostName, order: Order, timeout: Duration) -> Result<Report, AgentFault> {
        let id = self.number();
        let (answer, wait) = oneshot::channel();
        let out = {
            let mut slots = self.slots();
            let link = slots.get_mut(host).and_then(|slot| slot.link.as_mut()).ok_or(AgentFault::Gone)?;
            link.pending.insert(id, answer);
            link.out.clone()
        };
        let _pending = Pending { agents: self, host, id };
        let talk = async {
            out.send(ToAgent::Do { id, order }).await.map_err(|_| AgentFault::Gone)?;
            wait.await.unwrap_or(Err(AgentFault::Gone))
        };
        tokio::time::timeout(timeout, talk).await.unwrap_or(Err(AgentFault::Timeout(timeout)))
    }

    fn connection(&self, host: &HostName) -> Option<u64> {
        self.slots().get(host)?.link.as_ref().map(|link| link.number)
    }

    async fn came(&self, host: &HostName) {
        self.until(host, |now| now.is_some()).await;
    }

    async fn left(&self, host: &HostName, connection: u64) {
        self.until(host, |now| now != Some(connection)).await;
    }

    fn writer(&self, host: &HostName) -> WriterWatch {
        self.slots().entry(host.clone()).or_default().writer.subscribe()
    }

    fn progress(&self, host: &HostName) -> Option<Progress> {
        let slots = self.slots();
        slots.get(host)?.link.as_ref()?.progress.as_ref().map(|(_, progress)| progress.clone())
    }

    fn disconnect(&self, host: &HostName) {
        if let Some(link) = self.slots().get(host).and_then(|slot| slot.link.as_ref()) {
            link.end.cancel();
        }
    }
}

/// Reads a frame.
async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R) -> std::io::Result<FromAgent> {
    let mut head = [0; 4];
    reader.read_exact(&mut head).await?;
    let mut body = vec![0; wire::body_length(head).map_err(malformed)?];
    reader.read_exact(&mut body).await?;
    wire::decode(&body).map_err(malformed)
}

async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, frame: &ToAgent) -> std::io::Result<()> {
    writer.write_all(&wire::encode(frame).map_err(malformed)?).await?;
    writer.flush().await
}

fn malformed(error: FrameError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}

/// Serves the agents' listener until `cancel`.
pub(crate) async fn serve(
    control: Arc<Control>,
    agents: Arc<ConnectedAgents>,
    address: SocketAddr,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let key = control.ca.listener(&[], &[address.ip()]).map_err(std::io::Error::other)?;
    let tls = dayzero_trust::agents_server_config(&control.ca, key).map_err(std::io::Error::other)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, "agents' listener");
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, peer) = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an agent's connection was lost before it was accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (control, agents, acceptor) = (control.clone(), agents.clone(), acceptor.clone());
        let end = cancel.child_token();
        control.clone().tasks.spawn(async move {
            if let Err(error) = connection(&control, &agents, acceptor, stream, end).await {
                tracing::info!(%peer, %error, "an agent's connection ended");
            }
            drop(permit);
        });
    }
}

struct Greeted {
    host: HostName,
    facts: AgentFacts,
}

async fn connection(
    control: &Arc<Control>,
    agents: &ConnectedAgents,
    acceptor: tokio_rustls::TlsAcceptor,
    stream: TcpStream,
    end: CancellationToken,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let greeting = async {
        let peer = stream.peer_addr();
        let noted = |error: &std::io::Error| {
            if let Ok(peer) = &peer {
                control.note_handshake("agents", peer.ip(), error);
            }
        };
        let mut stream = acceptor.accept(stream).await.inspect_err(noted)?;
        let greeted = greet(control, &mut stream).await?;
        Ok::<_, std::io::Error>((stream, greeted))
    };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no greeting in time");
    let (stream, greeted) = tokio::time::timeout(GREETING, greeting).await.map_err(|_| late())??;
    let (host, facts) = (greeted.host, greeted.facts);
    let (reader, writer) = tokio::io::split(stream);
    let (out, queue) = mpsc::channel(QUEUE);
    let number = agents.attach(&host, out, end.clone());
    let kind = if facts.installed { "installed system" } else { "discovery image" };
    control.tell(&host, What::Agent { message: format!("connected: {kind}, agent {}", facts.version) });
    control.agent_came(&host, facts).await;
    let result = talk(agents, &host, number, reader, writer, queue, end).await;
    if agents.detach(&host, number) {
        let why = result.as_ref().map_or_else(ToString::to_string, |()| "ended".to_owned());
        control.tell(&host, What::Agent { message: format!("disconnected: {why}") });
        control.agent_left(&host).await;
    }
    result
}

/// Who it is, by certificate; what it is, by its first frame.
async fn greet(
    control: &Control,
    stream: &mut tokio_rustls::server::TlsStream<TcpStream>,
) -> std::io::Result<Greeted> {
    let refuse = |why: &str| std::io::Error::new(std::io::ErrorKind::PermissionDenied, why.to_owned());
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let certificate = certificate.ok_or_else(|| refuse("no client certificate"))?;
    let host = control.ca.agent(&certificate).map_err(std::io::Error::other)?;
    let host = host.ok_or_else(|| refuse("its certificate was revoked"))?;
    let fingerprint = dayzero_trust::fingerprint(&certificate);
    if !control.is_current(&host, fingerprint) {
        return Err(refuse("its certificate is not the host's current one"));
    }
    match read_frame(stream).await? {
        FromAgent::Hello { version, agent, installed, kernel_boot } => {
            if !(VERSION.saturating_sub(1)..=VERSION).contains(&version) {
                return Err(refuse("it speaks a protocol version that we do not"));
            }
            let short = |text: String| text.chars().take(80).collect::<String>();
            let facts = AgentFacts {
                installed,
                version: short(agent),
                kernel_boot: short(kernel_boot),
                connected: true,
                since: control.now(),
            };
            Ok(Greeted { host, facts })
        }
        _ => Err(refuse("its first frame was no greeting")),
    }
}

async fn talk<S: AsyncRead + AsyncWrite>(
    agents: &ConnectedAgents,
    host: &HostName,
    number: u64,
    mut reader: tokio::io::ReadHalf<S>,
    mut writer: tokio::io::WriteHalf<S>,
    mut queue: mpsc::Receiver<ToAgent>,
    end: CancellationToken,
) -> std::io::Result<()> {
    let silent =
        || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("silent for {} s", SILENCE.as_secs()));
    let read = async {
        loop {
            let frame =
                tokio::time::timeout(SILENCE, read_frame(&mut reader)).await.map_err(|_| silent())??;
            agents.receive(host, number, frame);
        }
    };
    let write = async {
        let mut beat = tokio::time::interval(PING);
        loop {
            let frame = tokio::select! {
                frame = queue.recv() => match frame {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
                _ = beat.tick() => ToAgent::Ping,
            };
            tokio::time::timeout(WRITE, write_frame(&mut writer, &frame)).await.map_err(|_| silent())??;
        }
    };
    tokio::select! {
        () = end.cancelled() => Ok(()),
        ended = read => ended,
        ended = write => ended,
    }
}

impl Control {
    /// Whether a certificate is the one that this host got last.
    fn is_current(&self, host: &HostName, fingerprint: Sha256) -> bool {
        self.facts(host).and_then(|facts| facts.vouch.as_ref().map(|vouch| vouch.certificate))
            == Some(fingerprint)
    }

    /// An agent connected: a fact; the boot's window closes for good.
    pub(crate) async fn agent_came(self: &Arc<Self>, host: &HostName, agent: AgentFacts) {
        let boot = self.facts(host).and_then(|facts| facts.vouch.as_ref().map(|vouch| vouch.boot));
        let came = move |facts: &mut dayzero_model::facts::HostFacts| {
            facts.agent = Some(agent);
            facts.lost = None;
        };
        if let Err(error) = self.step(host, came).await {
            tracing::error!(%error, %host, "an agent's connection could not be recorded");
        }
        if let Some(boot) = boot
            && let Err(error) = self.enrolment.close(boot, self.now()).await
        {
            tracing::debug!(%error, %host, "the boot window was closed already");
        }
    }

    pub(crate) async fn agent_left(self: &Arc<Self>, host: &HostName) {
        let now = self.now();
        let left = move |facts: &mut dayzero_model::facts::HostFacts| {
            if let Some(agent) = &mut facts.agent {
                agent.connected = false;
                agent.since = now;
            }
        };
        if let Err(error) = self.step(host, left).await {
            tracing::error!(%error, %host, "an agent's leaving could not be recorded");
        }
    }
}
