//! The sockets around `transfer`: listeners, one connected socket a transfer, limits, events.
//!
//! Invariants: a reply leaves from the address that was asked and by the listener's device; requests beyond a limit
//! are dropped (the client asks again) and told as an event; when the token is cancelled, running transfers stop.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::burst::Burst;
use crate::name;
use crate::negotiate::{Caps, Terms, negotiate};
use crate::packet::{self, ErrorCode, Refusal};
use crate::table::{Full, Place, Table};
use crate::transfer::{Outcome, Send as Packets, Step, Transfer};

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address and port (69); with the unspecified address, the reply comes from the address that was asked.
    pub address: SocketAddrV4,
    /// The interface's name, for events.
    pub iface: String,
    /// Bind the sockets to this device (needs CAP_NET_RAW): several networks then never mix.
    pub device: Option<String>,
}

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Block and window sizes.
    pub caps: Caps,
    /// Transfers at once.
    pub transfers: usize,
    /// Transfers at once for one client address.
    pub per_client: usize,
    /// A transfer without progress for so long is over.
    pub give_up: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { caps: Caps::default(), transfers: 2048, per_client: 8, give_up: Duration::from_secs(20) }
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The client.
    pub peer: SocketAddrV4,
    /// Our address that it asked.
    pub local: Ipv4Addr,
    /// Interface of the listener.
    pub iface: Arc<str>,
    /// File name: relative, `/` between its parts, no `.` or `..` part.
    pub name: String,
}

/// What a name means.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// This file.
    File(Bytes),
    /// No such file.
    NotFound,
    /// Not for this client, and why (sent to it).
    Denied(String),
}

/// Something happened to a request or transfer.
#[derive(Clone, Debug)]
pub struct Event {
    /// The client.
    pub peer: SocketAddrV4,
    /// Our address.
    pub local: Ipv4Addr,
    /// Interface of the listener.
    pub iface: Arc<str>,
    /// File name; empty if the request could not be read.
    pub name: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The client took our terms, and its data begins. (A client that only asks for the size never gets here.)
    Started {
        /// Size of the file.
        bytes: u64,
        /// Block size.
        block: u16,
        /// Window size in blocks.
        window: u16,
    },
    /// The client acknowledged the last block.
    Completed {
        /// Size of the file.
        bytes: u64,
        /// From the request to the last acknowledgement.
        elapsed: Duration,
        /// How often something had to be sent again.
        resent: u64,
    },
    /// The client sent an error.
    Aborted {
        /// On our OACK, before any data: it only wanted the size. No failure.
        after_oack: bool,
        /// Blocks it had acknowledged.
        after_block: u64,
        /// Its error code.
        code: u16,
        /// Its text, printable.
        message: String,
    },
    /// The client's port was closed in mid-transfer.
    PortClosed {
        /// Blocks it had acknowledged.
        after_block: u64,
    },
    /// The client fell silent.
    TimedOut {
        /// Blocks it had acknowledged; 0: not even the first one.
        after_block: u64,
        /// Bytes it had acknowledged.
        bytes: u64,
        /// Block size: a first block that never arrives hints at the MTU.
        block: u16,
    },
    /// Answered by an error packet.
    Refused {
        /// Code of the packet.
        code: u16,
        /// Text of the packet.
        message: String,
    },
    /// Dropped: a limit is reached.
    Busy,
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for TFTP on {address}{}: {step} failed", device.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct BindError {
    /// Where.
    pub address: SocketAddrV4,
    /// On which device.
    pub device: Option<String>,
    /// What failed.
    pub step: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

struct Listener {
    socket: UdpSocket,
    listen: Listen,
    iface: Arc<str>,
}

/// A bound server; `run` serves.
pub struct Server {
    listeners: Vec<Listener>,
    limits: Limits,
}

struct Shared<L, E> {
    limits: Limits,
    table: Arc<Table>,
    lookup: L,
    events: E,
    cancel: CancellationToken,
}

impl Server {
    /// Binds every listener. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] for the first one that fails.
    pub fn bind(listen: &[Listen], limits: Limits) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for listen in listen {
            let socket = open(*listen.address.ip(), listen.address.port(), listen.device.as_deref())
                .and_then(|socket| {
                    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
                        .map_err(|errno| ("asking for the local address", errno.into()))?;
                    UdpSocket::from_std(socket.into()).map_err(|error| ("registering the socket", error))
                })
                .map_err(|(step, source)| BindError {
                    address: listen.address,
                    device: listen.device.clone(),
                    step,
                    source,
                })?;
            listeners.push(Listener { socket, listen: listen.clone(), iface: listen.iface.as_str().into() });
        }
        Ok(Self { listeners, limits })
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        let local = |l: &Listener| match l.socket.local_addr() {
            Ok(std::net::SocketAddr::V4(address)) => address,
            _ => l.listen.address,
        };
        self.listeners.iter().map(local).collect()
    }

    /// Serves until `cancel`; `lookup` and `events` are called from the server's tasks and must not block.
    pub async fn run<L, E>(self, lookup: L, events: E, cancel: CancellationToken)
    where
        L: Fn(&Request) -> Lookup + Send + Sync + 'static,
        E: Fn(Event) + Send + Sync + 'static,
    {
        let table = Table::new(self.limits.transfers, self.limits.per_client);
        let shared = Arc::new(Shared { limits: self.limits, table, lookup, events, cancel });
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            tasks.spawn(listen(listener, Arc::clone(&shared)));
        }
        while tasks.join_next().await.is_some() {}
    }
}

fn open(address: Ipv4Addr, port: u16, device: Option<&str>) -> Result<Socket, (&'static str, io::Error)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(|e| ("a socket", e))?;
    socket.set_nonblocking(true).map_err(|e| ("non-blocking mode", e))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes())).map_err(|e| ("binding to the device", e))?;
    }
    socket.bind(&SocketAddrV4::new(address, port).into()).map_err(|e| ("binding the address", e))?;
    Ok(socket)
}

/// One datagram with its sender and the address it was sent to.
async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
    socket
        .async_io(Interest::READABLE, || {
            let mut space = nix::cmsg_space!(nix::libc::in_pktinfo);
            let mut parts = [IoSliceMut::new(buffer)];
            let got = recvmsg::<SockaddrIn>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let peer = got.address.map(|a| SocketAddrV4::new(a.ip(), a.port()));
            let mut local = Ipv4Addr::UNSPECIFIED;
            for message in got.cmsgs()? {
                if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                    local = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                }
            }
            let peer = peer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            Ok((got.bytes, peer, local))
        })
        .await
}

async fn listen<L, E>(listener: Listener, shared: Arc<Shared<L, E>>)
where
    L: Fn(&Request) -> Lookup + Send + Sync + 'static,
    E: Fn(Event) + Send + Sync + 'static,
{
    let mut transfers = JoinSet::new();
    // One byte more than the longest request, so that a longer one is seen as such.
    let mut buffer = vec![0; packet::MAX_REQUEST + 1];
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => break,
            Some(_) = transfers.join_next(), if !transfers.is_empty() => {}
            got = receive(&listener.socket, &mut buffer) => match got {
                Ok((length, peer, local)) => {
                    let local = match listener.listen.address.ip() {
                        bound if !bound.is_unspecified() => *bound,
                        _ => local,
                    };
                    let asked = Asked { peer, local, iface: Arc::clone(&listener.iface) };
                    let started = judge(&buffer[..length], &asked, &listener, &shared).await;
                    if let Some(started) = started {
                        transfers.spawn(serve(started, Arc::clone(&shared)));
                    }
                }
                // ICMP errors of refusals that we sent; nothing to do, and the socket stays usable.
                Err(error) => tracing::debug!(%error, iface = %listener.iface, "TFTP receive"),
            },
        }
    }
    transfers.shutdown().await;
}

/// Who asked, and where.
#[derive(Clone)]
struct Asked {
    peer: SocketAddrV4,
    local: Ipv4Addr,
    iface: Arc<str>,
}

impl Asked {
    fn event(&self, name: &str, kind: EventKind) -> Event {
        Event {
            peer: self.peer,
            local: self.local,
            iface: Arc::clone(&self.iface),
            name: name.to_owned(),
            kind,
        }
    }
}

struct Started {
    asked: Asked,
    name: String,
    file: Bytes,
    terms: Terms,
    socket: UdpSocket,
    place: Place,
}

async fn judge<L, E>(
    datagram: &[u8],
    asked: &Asked,
    listener: &Listener,
    shared: &Shared<L, E>,
) -> Option<Started>
where
    L: Fn(&Request) -> Lookup,
    E: Fn(Event),
{
    let mut name = String::new();
    let accepted = accept(datagram, asked, &mut name, shared);
    let refusal = match accepted {
        Ok(None) => return None,
        Ok(Some((file, terms))) => {
            let place = match shared.table.admit(asked.peer) {
                Ok(place) => place,
                Err(Full::Repeated) => return None,
                Err(Full::Busy) => {
                    (shared.events)(asked.event(&name, EventKind::Busy));
                    return None;
                }
            };
            match transfer_socket(asked, listener) {
                Ok(socket) => {
                    return Some(Started { asked: asked.clone(), name, file, terms, socket, place });
                }
                Err(error) => {
                    tracing::warn!(%error, iface = %listener.iface, "no socket for a TFTP transfer");
                    Refusal::new(ErrorCode::Undefined, "the server has no port left")
                }
            }
        }
        Err(refusal) => refusal,
    };
    // An error answers from the listening port: there is no transfer that it could belong to.
    let text = packet::error_packet(refusal.code.wire(), &refusal.message);
    if let Err(error) = listener.socket.send_to(&text, asked.peer).await {
        tracing::debug!(%error, peer = %asked.peer, "TFTP error packet not sent");
    }
    let kind = EventKind::Refused { code: refusal.code.wire(), message: refusal.message };
    (shared.events)(asked.event(&name, kind));
    None
}

fn accept<L, E>(
    datagram: &[u8],
    asked: &Asked,
    name: &mut String,
    shared: &Shared<L, E>,
) -> Result<Option<(Bytes, Terms)>, Refusal>
where
    L: Fn(&Request) -> Lookup,
{
    if asked.peer.port() == 0 || asked.peer.ip().is_unspecified() || asked.peer.ip().is_broadcast() {
        return Ok(None);
    }
    let Some(request) = packet::parse_request(datagram)? else { return Ok(None) };
    request.name.clone_into(name);
    *name = name::canonical(&request.name)?;
    let wanted =
        Request { peer: asked.peer, local: asked.local, iface: Arc::clone(&asked.iface), name: name.clone() };
    match (shared.lookup)(&wanted) {
        Lookup::File(file) => {
            let terms = negotiate(&request, file.len() as u64, &shared.limits.caps)?;
            Ok(Some((file, terms)))
        }
        Lookup::NotFound => Err(Refusal::new(ErrorCode::NotFound, "no such file")),
        Lookup::Denied(why) => Err(Refusal::new(ErrorCode::AccessViolation, why)),
    }
}

fn transfer_socket(asked: &Asked, listener: &Listener) -> io::Result<UdpSocket> {
    let socket = open(asked.local, 0, listener.listen.device.as_deref()).map_err(|(_, error)| error)?;
    socket.connect(&asked.peer.into())?;
    UdpSocket::from_std(socket.into())
}

async fn serve<L, E>(started: Started, shared: Arc<Shared<L, E>>)
where
    E: Fn(Event),
{
    let Started { asked, name, file, terms, socket, place } = started;
    let begin = Instant::now();
    let (bytes, block, window) = (file.len() as u64, terms.block, terms.window);
    let mut first = true;
    let (mut transfer, mut step) = Transfer::start(file, terms, shared.limits.give_up, begin);
    let (mut out, mut buffer) = (Vec::new(), [0; 600]);
    let mut burst = Burst::new();
    let mut alarm = pin!(tokio::time::sleep_until(transfer.deadline().into()));
    let outcome = loop {
        if let Some(send) = step.send.take() {
            if first && matches!(send, Packets::Blocks { .. }) {
                first = false;
                (shared.events)(asked.event(&name, EventKind::Started { bytes, block, window }));
            }
            let each = transfer.write(&send, &mut out);
            if burst.send(&socket, &out, each).await.is_err() {
                step = transfer.refused();
            }
        }
        if let Some(outcome) = step.outcome.take() {
            break outcome;
        }
        if alarm.deadline() != transfer.deadline().into() {
            alarm.as_mut().reset(transfer.deadline().into());
        }
        step = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            got = socket.recv(&mut buffer) => match got {
                Ok(length) => transfer.handle(packet::parse_incoming(&buffer[..length]), Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => transfer.refused(),
                Err(_) => Step::default(),
            },
            () = &mut alarm => transfer.tick(Instant::now()),
        };
    };
    drop(place);
    let after_block = transfer.acked();
    let kind = match outcome {
        Outcome::Completed => {
            EventKind::Completed { bytes, elapsed: begin.elapsed(), resent: transfer.resent() }
        }
        Outcome::Aborted { after_oack, code, message } => {
            EventKind::Aborted { after_oack, after_block, code, message }
        }
        Outcome::PortClosed => EventKind::PortClosed { after_block },
        Outcome::TimedOut => EventKind::TimedOut { after_block, bytes: transfer.acked_bytes(), block },
    };
    (shared.events)(asked.event(&name, kind));
}
