//! The ways by which one interface's DHCP answers leave.
//!
//! Invariants: who sends an answer never waits until it has left: what its socket has no room for goes to a task of its own
//! ([`Way::catch_up`]), at most [`LATE`] or [`LATE_ROUTED`] of them, and beyond it is told as unsent; a client of the segment
//! is answered at its MAC, so that nobody fills a socket with answers that wait for ARP; a client of another segment, which can
//! claim any address of it, is answered by a socket of its own, so that it holds up neither relays nor who is answered by
//! broadcast; what waits for a relay that answers no ARP leaves room for others. Events are told before the answer goes out,
//! so that what it leads to is told after it; that it could not leave is told then, and stops no other.
//!
//! Does not see to it that a datagram arrives: UDP does not say so, and a client asks again.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use dayzero_model::MacAddr;
use dayzero_model::datagram::{Datagram, Wire};
use dayzero_model::event::What;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::core::{Destination, Handled};
use super::networks::Networks;
use super::serve::{AT_ONCE, udp};
use crate::director::{BootDirector, PxeEvent};
use crate::limit::Limit;
use crate::net::{DirectSender, RoutedSender};
use crate::time::micros;

/// Answers that may wait for a device that is slower than the store, which hands over those of a whole storm at once. Each takes
/// less than 1.5 KiB: with two such sockets at most 48 MiB for an interface, and an idle queue holds nothing.
const LATE: usize = 16_384;
/// The same of clients that are routed here: they renew, each in its own time.
const LATE_ROUTED: usize = 1024;
const FULL: &str = "too many answers wait for the device, or for machines that answer no ARP: it asks again";
const CLIENT_PORT: u16 = 68;

/// The way out, for answers of all kinds.
pub(super) struct Way {
    /// To MACs of the segment.
    frames: Lane,
    /// To clients of other segments.
    routed: Lane,
    /// By the port that is read from: to relays, and to all.
    port: Lane,
    /// That port's socket.
    pub(super) socket: Arc<UdpSocket>,
    pub(super) server: SocketAddrV4,
    /// All addresses that are ours.
    networks: Arc<Networks>,
    pub(super) told: Told,
}

/// Which of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Frames,
    Routed,
    Port,
}

/// One socket, and what it has no room for.
struct Lane {
    exit: Exit,
    late: mpsc::Sender<Outgoing>,
}

enum Exit {
    Frames(AsyncFd<DirectSender>),
    Routed(AsyncFd<RoutedSender>),
    Port(Arc<UdpSocket>),
    /// Has room as a test says, and keeps what left.
    #[cfg(test)]
    Room(tests::Room),
}

/// The other ends of what is late.
pub(super) type Late = Vec<(Which, mpsc::Receiver<Outgoing>)>;

/// What is told beside the events of what was handled.
pub(super) struct Told {
    pub(super) device: String,
    director: Arc<dyn BootDirector>,
    /// Lines about answers that could not be sent.
    unsent: Limit<Ipv4Addr>,
}

/// An answer on its way out.
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// Our address and port.
    from: SocketAddrV4,
    to: SocketAddrV4,
    /// Of the segment: whose frame it is.
    mac: Option<MacAddr>,
    /// The event that says so.
    event: Option<PxeEvent>,
}

impl Way {
    /// Beside the socket of the port, which is read by others, those that only send.
    ///
    /// # Errors
    /// The device is missing, or rights (CAP_NET_RAW) are.
    pub(super) fn new(
        socket: UdpSocket,
        server: SocketAddrV4,
        networks: Arc<Networks>,
        told: Told,
    ) -> io::Result<(Self, Late)> {
        let socket = Arc::new(socket);
        let (frames, frames_late) =
            Lane::new(Exit::Frames(DirectSender::new(&told.device)?.awaited()?), LATE);
        let routed = Exit::Routed(RoutedSender::new(&told.device)?.awaited()?);
        let (routed, routed_late) = Lane::new(routed, LATE_ROUTED);
        let (port, port_late) = Lane::new(Exit::Port(Arc::clone(&socket)), LATE);
        let late = vec![(Which::Frames, frames_late), (Which::Routed, routed_late), (Which::Port, port_late)];
        Ok((Self { frames, routed, port, socket, server, networks, told }, late))
    }

    /// Sends answers that come from this port of ours, by which their clients asked.
    pub(super) fn send_all(&self, batch: Vec<Handled>, port: u16) {
        let (mut frames, mut routed, mut by_port) = (Vec::new(), Vec::new(), Vec::new());
        for mut handled in batch {
            let (client, of_host) = (handled.mac(), handled.of_host());
            let event = self.told.events(&mut handled);
            let Some((bytes, to)) = handled.reply else { continue };
            // An override (RFC 5107) is the relay's address, which we cannot send from.
            let from = handled.from.filter(|from| self.networks.is_own(*from)).unwrap_or(*self.server.ip());
            let all = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
            let (lane, mac, to) = match to {
                Destination::Direct(mac, at) => (&mut frames, Some(mac), at),
                Destination::Routed(at) => (&mut routed, None, at),
                Destination::Relay(at) => (&mut by_port, None, at),
                Destination::Broadcast => (&mut by_port, None, all),
            };
            let from = SocketAddrV4::new(from, port);
            self.told.tap(client, of_host, true, udp(from, to), &bytes);
            lane.push(Outgoing { bytes, from, to, mac, event });
        }
        self.send(Which::Frames, frames);
        self.send(Which::Routed, routed);
        self.send(Which::Port, by_port);
    }

    fn lane(&self, which: Which) -> &Lane {
        match which {
            Which::Frames => &self.frames,
            Which::Routed => &self.routed,
            Which::Port => &self.port,
        }
    }

    /// Sends what there is room for; the rest goes to who waits for room.
    fn send(&self, which: Which, mut answers: Vec<Outgoing>) {
        let lane = self.lane(which);
        let mut gone = 0;
        while let Some(rest) = answers.get(gone..).filter(|rest| !rest.is_empty()) {
            match lane.exit.send_some(rest) {
                Ok(count) => gone += count.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.failed(which, &rest[0], &error);
                    gone += 1;
                }
            }
        }
        for answer in answers.drain(gone.min(answers.len())..) {
            if let Err(full) = lane.late.try_send(answer) {
                self.told.unsent(&full.into_inner(), &io::Error::other(FULL));
            }
        }
    }

    /// Sends what is late as soon as there is room; for a task of its own, without end.
    pub(super) async fn catch_up(&self, which: Which, mut late: mpsc::Receiver<Outgoing>) {
        let (exit, mut answers) = (&self.lane(which).exit, Vec::new());
        while late.recv_many(&mut answers, AT_ONCE).await > 0 {
            let mut rest = answers.as_slice();
            while let Some((first, others)) = rest.split_first() {
                match exit.send_when_it_can(rest).await {
                    Ok(count) => rest = rest.get(count.max(1)..).unwrap_or_default(),
                    Err(error) => {
                        self.failed(which, first, &error);
                        rest = others;
                    }
                }
            }
            answers.clear();
        }
    }

    /// The kernel refused an answer: what was for a MAC is tried as a broadcast, everything else is told.
    fn failed(&self, which: Which, answer: &Outgoing, error: &io::Error) {
        let Which::Frames = which else { return self.told.unsent(answer, error) };
        tracing::debug!(%error, mac = ?answer.mac, "frame not sent to its MAC: broadcasting");
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, answer.to.port());
        let (bytes, event) = (answer.bytes.clone(), answer.event.clone());
        self.send(Which::Port, vec![Outgoing { bytes, from: answer.from, to, mac: None, event }]);
    }
}

impl Lane {
    fn new(exit: Exit, late: usize) -> (Self, mpsc::Receiver<Outgoing>) {
        let (late, waiting) = mpsc::channel(late);
        (Self { exit, late }, waiting)
    }
}

impl Exit {
    /// Sends the first ones, as many as there is room for, and says how many; an error is of the first.
    fn send_some(&self, answers: &[Outgoing]) -> io::Result<usize> {
        match self {
            Exit::Frames(sender) => one_by_one(answers, |one| {
                let mac = one.mac.unwrap_or(MacAddr([0xff; 6]));
                sender.get_ref().send(mac, one.from, one.to, &one.bytes)
            }),
            Exit::Routed(sender) => {
                one_by_one(answers, |one| sender.get_ref().send(one.from, one.to, &one.bytes))
            }
            Exit::Port(socket) => send_at_once(socket, answers),
            #[cfg(test)]
            Exit::Room(room) => room.send_some(answers),
        }
    }

    /// The same, once there is room for one.
    async fn send_when_it_can(&self, answers: &[Outgoing]) -> io::Result<usize> {
        let room = Interest::WRITABLE;
        match self {
            Exit::Frames(sender) => sender.async_io(room, |_| self.send_some(answers)).await,
            Exit::Routed(sender) => sender.async_io(room, |_| self.send_some(answers)).await,
            Exit::Port(socket) => socket.async_io(room, || self.send_some(answers)).await,
            #[cfg(test)]
            Exit::Room(room) => room.wait(answers).await,
        }
    }
}

fn one_by_one(answers: &[Outgoing], mut send: impl FnMut(&Outgoing) -> io::Result<()>) -> io::Result<usize> {
    for (gone, answer) in answers.iter().enumerate() {
        match send(answer) {
            Ok(()) => {}
            Err(error) if gone == 0 => return Err(error),
            Err(_) => return Ok(gone),
        }
    }
    Ok(answers.len())
}

/// The first ones that leave from one address, in one system call.
fn send_at_once(socket: &UdpSocket, answers: &[Outgoing]) -> io::Result<usize> {
    let Some(from) = answers.first().map(|first| *first.from.ip()) else { return Ok(0) };
    let same = answers.iter().take_while(|one| *one.from.ip() == from).count().min(AT_ONCE);
    let part = answers.get(..same).unwrap_or_default();
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let slices: Vec<[IoSlice<'_>; 1]> = part.iter().map(|one| [IoSlice::new(&one.bytes)]).collect();
    let to: Vec<Option<SockaddrIn>> = part.iter().map(|one| Some(SockaddrIn::from(one.to))).collect();
    let space = nix::cmsg_space!(libc::in_pktinfo);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(part.len(), Some(space));
    let control = [ControlMessage::Ipv4PacketInfo(&source)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &to, control, flags)?;
    Ok(sent.count())
}

impl Told {
    pub(super) fn new(device: &str, director: Arc<dyn BootDirector>) -> Self {
        Self {
            device: device.to_owned(),
            director,
            unsent: Limit::new("DHCP answers that could not be sent"),
        }
    }

    pub(super) fn tap(&self, mac: Option<MacAddr>, of_host: bool, sent: bool, wire: Wire, bytes: &[u8]) {
        let (at, interface, length) = (micros(), self.device.as_str(), bytes.len());
        self.director.datagram(&Datagram { at, interface, mac, of_host, sent, wire, bytes, length });
    }

    /// Tells what happened, and gives back what says that an answer goes out.
    fn events(&self, handled: &mut Handled) -> Option<PxeEvent> {
        let mut answer = None;
        for event in std::mem::take(&mut handled.events) {
            if matches!(event.what, What::DhcpOut { .. }) && handled.reply.is_some() {
                answer = Some(event.clone());
            }
            self.director.event(event);
        }
        answer
    }

    fn unsent(&self, answer: &Outgoing, error: &io::Error) {
        if self.unsent.allows(*answer.to.ip(), false, Instant::now()) {
            tracing::warn!(%error, to = %answer.to, device = %self.device, "DHCP answer not sent");
        }
        let to = IpAddr::V4(*answer.to.ip());
        if let Some(event) = answer.event.as_ref().and_then(|event| event.unsent(to, error)) {
            self.director.event(event);
        }
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
