//! The sockets of one interface's DHCP server.
//!
//! Invariants: what has arrived is handled as one batch; an answer that depends on a lease is sent once the store has it,
//! and those of all batches that came in while the store was busy are committed together; if the store fails, the
//! answers that depend on it are not sent. Other answers are sent at once. Events are told before the answer goes out,
//! so that what it leads to is told after it. Nothing waits for an ARP answer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dayzero_model::event::{Ignored, What};
use dayzero_model::{MacAddr, Timestamp};
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::arp::{Arp, Conflict};
use super::core::{Came, Destination, DhcpCore, Handled};
use super::lease::{LeaseChange, LeaseStore, LeaseStoreError};
use super::wire::{MAX_DATAGRAM, Request};
use crate::director::BootDirector;
use crate::net::{DirectSender, udp_on};
use dayzero_model::datagram::{Datagram, Wire};

/// Datagrams that are read or sent in one system call.
const AT_ONCE: usize = 64;
/// Answers that may wait for the store; no more is read until there is room.
const WAITING: usize = 4096;
const CLIENT_PORT: u16 = 68;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// For datagrams, whose order matters to the microsecond.
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A batch of answers that the store is making true.
type Committing = Pin<Box<dyn Future<Output = (Result<(), LeaseStoreError>, Vec<Handled>)> + Send>>;

/// The server's sockets.
pub(crate) struct DhcpServer {
    socket: UdpSocket,
    /// The boot server's port, beside another DHCP server.
    boot_server: Option<UdpSocket>,
    direct: DirectSender,
    arp: Option<Arp>,
    device: String,
    server: SocketAddrV4,
    core: DhcpCore,
    leases: Arc<dyn LeaseStore>,
    director: Arc<dyn BootDirector>,
}

/// What a server is made of.
pub(crate) struct Parts {
    pub(crate) core: DhcpCore,
    pub(crate) leases: Arc<dyn LeaseStore>,
    pub(crate) director: Arc<dyn BootDirector>,
}

struct Buffers(Vec<Vec<u8>>);

impl DhcpServer {
    /// Opens the sockets; `boot_server` is the port of proxyDHCP's second step, where it is served.
    pub(crate) fn bind(
        device: &str,
        server: SocketAddrV4,
        boot_server: Option<u16>,
        parts: Parts,
    ) -> io::Result<Self> {
        let socket = udp_on(device, server.port())?;
        let boot_server = boot_server.map(|port| udp_on(device, port)).transpose()?;
        let direct = DirectSender::new(device)?;
        let arp = Arp::bind(device).inspect_err(|error| {
            tracing::warn!(%error, device, "no ARP probes: an address that is in use shows only when its client declines it");
        });
        let Parts { core, leases, director } = parts;
        let device = device.to_owned();
        Ok(Self { socket, boot_server, direct, arp: arp.ok(), device, server, core, leases, director })
    }

    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut buffers = Buffers(vec![vec![0; MAX_DATAGRAM + 1]; AT_ONCE]);
        let mut committing: Option<Committing> = None;
        let mut waiting: Vec<Handled> = Vec::new();
        loop {
            if committing.is_none() && !waiting.is_empty() {
                committing = Some(commit(Arc::clone(&self.leases), std::mem::take(&mut waiting)));
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                (stored, batch) = done(&mut committing) => {
                    committing = None;
                    self.settle(stored, batch).await;
                }
                conflict = conflict(&mut self.arp) => {
                    let Conflict { address, expected, found, message } = conflict;
                    let wire = Wire::Arp { from: found, to: self.mac() };
                    self.tap(Some(expected), true, false, wire, &message);
                    let handled = self.core.conflict(address, expected, found, now());
                    self.sort(vec![handled], &mut waiting).await;
                }
                ready = ready(self.boot_server.as_ref()), if waiting.len() < WAITING => {
                    if let (Ok(()), Some(socket)) = (ready, &self.boot_server) {
                        for handled in self.read(socket, &mut buffers, true) {
                            self.told(handled, socket).await;
                        }
                    }
                }
                ready = self.socket.readable(), if waiting.len() < WAITING => {
                    if let Err(error) = ready {
                        tracing::warn!(%error, device = %self.device, "DHCP socket");
                        break;
                    }
                    let batch = self.read(&self.socket, &mut buffers, false);
                    self.sort(batch, &mut waiting).await;
                }
            }
        }
        // What the store already has, its clients may hear of.
        if let Some(committing) = committing {
            let (stored, batch) = committing.await;
            self.settle(stored, batch).await;
        }
    }

    /// Reads and handles what has arrived, at most [`AT_ONCE`] datagrams.
    fn read(&self, socket: &UdpSocket, buffers: &mut Buffers, boot_server: bool) -> Vec<Handled> {
        let device = self.device.as_str();
        let got = socket.try_io(Interest::READABLE, || receive(socket, buffers));
        let got = match got {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Vec::new(),
            Err(error) => {
                tracing::debug!(%error, device, "DHCP receive");
                return Vec::new();
            }
        };
        let at = now();
        let port = if boot_server { port_of(socket) } else { self.server.port() };
        let mut batch = Vec::with_capacity(got.len());
        for ((length, from, to), buffer) in got.into_iter().zip(&buffers.0) {
            let bytes = &buffer[..length];
            let wire = udp(from, SocketAddrV4::new(to, port));
            match Request::parse(bytes) {
                Ok(request) => {
                    let handled = self.core.handle(&request, Came { from, to, boot_server }, at);
                    self.tap(Some(request.mac), handled.of_host(), false, wire, bytes);
                    batch.push(handled);
                }
                Err(error) => {
                    tracing::debug!(%error, %from, device, "DHCP datagram ignored");
                    self.tap(hardware_address(bytes), false, false, wire, bytes);
                }
            }
        }
        batch
    }

    fn tap(&self, mac: Option<MacAddr>, of_host: bool, sent: bool, wire: Wire, bytes: &[u8]) {
        let (at, interface, length) = (micros(), self.device.as_str(), bytes.len());
        self.director.datagram(&Datagram { at, interface, mac, of_host, sent, wire, bytes, length });
    }

    fn mac(&self) -> MacAddr {
        self.arp.as_ref().map_or(MacAddr([0; 6]), Arp::own)
    }

    /// Sends what depends on no lease, and keeps the rest.
    async fn sort(&mut self, batch: Vec<Handled>, waiting: &mut Vec<Handled>) {
        let mut ready = Vec::with_capacity(batch.len());
        for handled in batch {
            if let Some((address, expected)) = handled.probe {
                let probe = self.arp.as_mut().and_then(|arp| arp.probe(address, expected, now()));
                if let Some(probe) = probe {
                    let wire = Wire::Arp { from: self.mac(), to: MacAddr([0xff; 6]) };
                    self.tap(Some(expected), handled.of_host(), true, wire, &probe);
                }
            }
            if handled.change.is_some() {
                waiting.push(handled);
            } else {
                ready.push(handled);
            }
        }
        self.send_all(ready).await;
    }

    async fn settle(&self, stored: Result<(), LeaseStoreError>, mut batch: Vec<Handled>) {
        if let Err(error) = stored {
            tracing::error!(%error, device = %self.device, "leases not stored: their clients get no answer");
            for handled in &mut batch {
                handled.reply = None;
                for event in &mut handled.events {
                    if matches!(event.what, What::DhcpOut { .. }) {
                        let reason = "the lease could not be stored: see the appliance's log".to_owned();
                        event.what = What::DhcpIgnored { reason, why: Ignored::NotStored };
                    }
                }
            }
        }
        self.send_all(batch).await;
    }

    async fn send_all(&self, batch: Vec<Handled>) {
        let mut routed: Vec<(Vec<u8>, SocketAddrV4, Ipv4Addr)> = Vec::with_capacity(batch.len());
        for handled in batch {
            let (mac, of_host) = (handled.mac(), handled.of_host());
            for event in handled.events {
                self.director.event(event);
            }
            let Some((bytes, to)) = handled.reply else { continue };
            let from = handled.from.unwrap_or(*self.server.ip());
            let all = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
            let at = match to {
                Destination::Unicast(at) => at,
                Destination::Broadcast => all,
                Destination::Direct(_, address) => SocketAddrV4::new(address, CLIENT_PORT),
            };
            let source = SocketAddrV4::new(from, self.server.port());
            self.tap(mac, of_host, true, udp(source, at), &bytes);
            match to {
                Destination::Unicast(at) => routed.push((bytes, at, from)),
                Destination::Broadcast => routed.push((bytes, all, from)),
                Destination::Direct(mac, _) => {
                    if let Err(error) = self.direct.send(mac, source, at, &bytes) {
                        tracing::debug!(%error, %mac, "frame not sent to its MAC: broadcasting");
                        routed.push((bytes, all, from));
                    }
                }
            }
        }
        // One call sends from one address.
        let mut rest = routed.as_slice();
        while let Some((_, _, from)) = rest.first() {
            let same = rest.iter().take_while(|one| one.2 == *from).count().min(AT_ONCE);
            let (part, others) = rest.split_at(same);
            self.send_from(&self.socket, part, *from).await;
            rest = others;
        }
    }

    async fn told(&self, handled: Handled, socket: &UdpSocket) {
        let (mac, of_host) = (handled.mac(), handled.of_host());
        for event in handled.events {
            self.director.event(event);
        }
        if let Some((bytes, Destination::Unicast(to))) = handled.reply {
            let source = SocketAddrV4::new(*self.server.ip(), port_of(socket));
            self.tap(mac, of_host, true, udp(source, to), &bytes);
            self.send_from(socket, &[(bytes, to, *self.server.ip())], *self.server.ip()).await;
        }
    }

    /// By the kernel's routing, from the address that is our server identifier.
    async fn send_from(
        &self,
        socket: &UdpSocket,
        part: &[(Vec<u8>, SocketAddrV4, Ipv4Addr)],
        from: Ipv4Addr,
    ) {
        // An override (RFC 5107) is the relay's address, which we cannot send from.
        let spec_dst = if self.core.is_own(from) { from } else { *self.server.ip() };
        let mut sent = 0;
        while sent < part.len() {
            let result =
                socket.async_io(Interest::WRITABLE, || send_some(socket, &part[sent..], spec_dst)).await;
            match result {
                Ok(count) => sent += count.max(1),
                Err(error) => {
                    let to = part.get(sent).map(|one| one.1);
                    tracing::warn!(%error, ?to, device = %self.device, "DHCP answer not sent");
                    sent += 1;
                }
            }
        }
    }
}

fn commit(leases: Arc<dyn LeaseStore>, batch: Vec<Handled>) -> Committing {
    let changes: Vec<LeaseChange> = batch.iter().filter_map(|handled| handled.change.clone()).collect();
    Box::pin(async move { (leases.commit(changes).await, batch) })
}

async fn done(committing: &mut Option<Committing>) -> (Result<(), LeaseStoreError>, Vec<Handled>) {
    match committing {
        Some(committing) => committing.await,
        None => std::future::pending().await,
    }
}

async fn conflict(arp: &mut Option<Arp>) -> Conflict {
    match arp {
        Some(arp) => arp.conflict(now).await,
        None => std::future::pending().await,
    }
}

async fn ready(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

fn udp(from: SocketAddrV4, to: SocketAddrV4) -> Wire {
    Wire::Udp { from: SocketAddr::V4(from), to: SocketAddr::V4(to) }
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().map(|address| address.port()).unwrap_or_default()
}

/// The MAC in a message that is otherwise none.
fn hardware_address(bytes: &[u8]) -> Option<MacAddr> {
    let ethernet = bytes.get(1..3)? == [1, 6];
    ethernet.then(|| bytes.get(28..34)?.try_into().ok().map(MacAddr)).flatten()
}

/// Length, sender and destination of each datagram.
fn receive(socket: &UdpSocket, buffers: &mut Buffers) -> io::Result<Vec<(usize, SocketAddrV4, Ipv4Addr)>> {
    let space = nix::cmsg_space!(libc::in_pktinfo);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(buffers.0.len(), Some(space));
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.0.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let got = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?;
    let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let each = |message: nix::sys::socket::RecvMsg<'_, '_, SockaddrIn>| {
        let from = message.address.map_or(nobody, |from| SocketAddrV4::new(from.ip(), from.port()));
        let to = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
            }
            _ => None,
        });
        (message.bytes, from, to.unwrap_or(Ipv4Addr::BROADCAST))
    };
    Ok(got.map(each).collect())
}

/// Sends as many as the kernel takes at once, and says how many.
fn send_some(
    socket: &UdpSocket,
    part: &[(Vec<u8>, SocketAddrV4, Ipv4Addr)],
    spec_dst: Ipv4Addr,
) -> io::Result<usize> {
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(spec_dst).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let slices: Vec<[IoSlice<'_>; 1]> = part.iter().map(|(bytes, ..)| [IoSlice::new(bytes)]).collect();
    let to: Vec<Option<SockaddrIn>> = part.iter().map(|(_, to, _)| Some(SockaddrIn::from(*to))).collect();
    let space = nix::cmsg_space!(libc::in_pktinfo);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(part.len(), Some(space));
    let control = [ControlMessage::Ipv4PacketInfo(&source)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &to, control, flags)?;
    Ok(sent.count())
}
