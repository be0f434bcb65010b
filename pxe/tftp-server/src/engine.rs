//! One thread's work: it waits for the sockets of its transfers and for their deadlines, and does what `transfer` says.
//!
//! Invariants: nothing here blocks but the wait; each datagram costs one call to read it and at most one window to
//! answer it; transfers are the thread's own, so that no lock is held while one is served. One thread also has the
//! listeners, judges requests and hands new transfers round.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;

use crate::awake::{Awake, QUIET};
use crate::burst::{Burst, Packet};
use crate::grant::{Denial, Granted, Source, weigh};
use crate::negotiate::{Caps, Terms, negotiate};
use crate::packet::{self, ErrorCode};
use crate::patience::Patience;
use crate::server::{Event, EventKind, Lookup, Request, Shared, Tap, Tapped};
use crate::sockets::{Listener, path_block};
use crate::table::Place;
use crate::transfer::{Outcome, Send as Packets, Step, Transfer};

/// Tokens of the poll: slots of transfers from 0, listeners from here, the inbox.
const LISTENERS: u64 = 1 << 32;
const INBOX: u64 = u64::MAX;
/// Requests judged at a listener before transfers get their turn.
const REQUESTS_A_TURN: usize = 32;
/// Transfers that leave processors time to sleep between packets: they are kept [`Awake`].
const FEW: usize = 4;
/// Packets that a lone transfer is served before the other sockets are looked at.
const LONE_TURN: usize = 64;
/// Longest wait, so that a missed wake-up can cost no more.
const LONGEST: Duration = Duration::from_secs(1);

/// Datagrams of a new transfer that are shown to the tap: RRQ's answer, its acknowledgement, the first blocks.
const TAPPED_FIRST: u8 = 6;
/// And after something had to be sent again: that, and what it leads to.
const TAPPED_AGAIN: u8 = 2;
/// Octets of a block that are shown, after its header.
const TAPPED_DATA: usize = 64;

/// How a thread is given transfers, and told to end.
pub(crate) struct Inbox {
    started: Mutex<Vec<Started>>,
    stop: AtomicBool,
    wake: EventFd,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { started: Mutex::default(), stop: AtomicBool::new(false), wake })
    }

    /// Ends its thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn put(&self, started: Started) {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(started);
        self.wake();
    }

    fn take(&self) -> Vec<Started> {
        let _ = self.wake.read();
        std::mem::take(&mut *self.started.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
    }
}

/// Who asked, and where.
#[derive(Clone)]
struct Asked {
    peer: SocketAddr,
    local: IpAddr,
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

    fn tap(&self, tap: &Tap, port: u16, sent: bool, bytes: &[u8], length: usize) {
        let local = SocketAddr::new(self.local, port);
        tap(&Tapped { peer: self.peer, local, iface: &self.iface, sent, bytes, length });
    }
}

/// A request that was granted.
struct Started {
    asked: Asked,
    name: String,
    file: Bytes,
    terms: Terms,
    patience: Patience,
    socket: Socket,
    place: Place,
}

/// A transfer with its socket.
struct Running {
    asked: Asked,
    name: String,
    socket: Socket,
    transfer: Transfer,
    burst: Burst,
    begin: Instant,
    bytes: u64,
    terms: (u16, u16),
    told: bool,
    /// Datagrams that are still shown to the tap.
    taps: u8,
    /// The time of its one entry in the heap of alarms; never later than its deadline.
    alarm: Instant,
    _place: Place,
}

/// A thread's state.
pub(crate) struct Engine<L, E> {
    shared: Arc<Shared<L, E>>,
    epoll: Epoll,
    listeners: Vec<Listener>,
    inboxes: Arc<[Arc<Inbox>]>,
    index: usize,
    next: usize,
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    active: usize,
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
    awake: Awake,
}

impl<L, E> Engine<L, E>
where
    L: Fn(&Request) -> Lookup,
    E: Fn(Event),
{
    pub(crate) fn new(
        shared: Arc<Shared<L, E>>,
        listeners: Vec<Listener>,
        inboxes: Arc<[Arc<Inbox>]>,
        index: usize,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&inboxes[index].wake, EpollEvent::new(EpollFlags::EPOLLIN, INBOX))?;
        for (i, listener) in listeners.iter().enumerate() {
            epoll.add(&listener.socket, EpollEvent::new(EpollFlags::EPOLLIN, LISTENERS + i as u64))?;
        }
        Ok(Self {
            shared,
            epoll,
            listeners,
            inboxes,
            index,
            next: 0,
            running: Vec::new(),
            free: Vec::new(),
            active: 0,
            alarms: BinaryHeap::new(),
            awake: Awake::default(),
        })
    }

    /// Serves until the inbox says stop.
    pub(crate) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        let mut buffer = [0; packet::MAX_REQUEST + 1];
        while !self.inboxes[self.index].stop.load(Ordering::SeqCst) {
            let ready = match self.epoll.wait(&mut events, self.patience()) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return tracing::error!(%error, "TFTP cannot wait for its sockets"),
            };
            let now = Instant::now();
            for event in &events[..ready] {
                match event.data() {
                    INBOX => self.begin_all(now),
                    token if token >= LISTENERS => self.requests(token - LISTENERS, &mut buffer),
                    slot => self.arrived(usize::try_from(slot).unwrap_or(usize::MAX), &mut buffer, now),
                }
            }
            if ready > 0 && (1..=FEW).contains(&self.active) {
                self.awake.hold(now);
            } else {
                self.awake.release();
            }
            self.ring(now);
            if self.active == 1 {
                self.lone(&mut buffer);
            }
        }
    }

    /// The only transfer is waited for in its own `recv`: without windows, as iPXE asks, each packet costs a round
    /// trip, and a poll beside it is a tenth of that. Bounded by the socket's [`crate::sockets::LONE_WAIT`].
    fn lone(&mut self, buffer: &mut [u8]) {
        let Some(slot) = self.running.iter().position(Option::is_some) else { return };
        for _ in 0..LONE_TURN {
            let Some(running) = self.running[slot].as_mut() else { return };
            let step = match recv(running.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => running.arrived(&buffer[..length], Instant::now(), self.shared.tap.as_ref()),
                Err(Errno::ECONNREFUSED) => running.transfer.refused(),
                Err(_) => return,
            };
            self.carry_out(slot, step);
        }
    }

    /// Until the first alarm, rounded up to the poll's milliseconds; no longer than what is kept awake may stay so.
    fn patience(&self) -> EpollTimeout {
        let wait = match self.alarms.peek() {
            Some(Reverse((at, _))) => at.saturating_duration_since(Instant::now()).min(LONGEST),
            None => LONGEST,
        };
        let wait = if self.awake.held() { wait.min(QUIET) } else { wait };
        let millis = wait.as_micros().div_ceil(1000);
        EpollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
    }

    /// Reads what waits at a listener, judges it, and hands what was granted to a thread.
    fn requests(&mut self, listener: u64, buffer: &mut [u8]) {
        let Some(listener) = usize::try_from(listener).ok().and_then(|i| self.listeners.get(i)) else {
            return;
        };
        for _ in 0..REQUESTS_A_TURN {
            let (length, peer, local) = match listener.receive(buffer) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // ICMP errors of refusals that we sent; nothing to do, and the socket stays usable.
                Err(error) => {
                    tracing::debug!(%error, iface = %listener.iface, "TFTP receive");
                    continue;
                }
            };
            let asked = Asked { peer, local, iface: Arc::clone(&listener.iface) };
            if let Some(started) = judge(&buffer[..length], &asked, listener, &self.shared) {
                self.inboxes[self.next % self.inboxes.len()].put(started);
                self.next = self.next.wrapping_add(1);
            }
        }
    }

    /// Begins the transfers that the inbox holds.
    fn begin_all(&mut self, now: Instant) {
        for started in self.inboxes[self.index].take() {
            let Started { asked, name, file, terms, patience, socket, place } = started;
            let (bytes, agreed) = (file.len() as u64, (terms.block, terms.window));
            let (transfer, step) = Transfer::start(file, terms, patience, now);
            let slot = self.free.pop().unwrap_or_else(|| {
                self.running.push(None);
                self.running.len() - 1
            });
            if let Err(error) = self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64)) {
                tracing::warn!(%error, peer = %asked.peer, "a TFTP transfer cannot be waited for");
                self.free.push(slot);
                continue;
            }
            let alarm = transfer.deadline();
            self.alarms.push(Reverse((alarm, slot)));
            self.active += 1;
            self.running[slot] = Some(Running {
                asked,
                name,
                socket,
                transfer,
                burst: Burst::new(),
                begin: now,
                bytes,
                terms: agreed,
                told: false,
                taps: TAPPED_FIRST,
                alarm,
                _place: place,
            });
            self.carry_out(slot, step);
        }
    }

    /// A transfer's socket has something.
    fn arrived(&mut self, slot: usize, buffer: &mut [u8], now: Instant) {
        let Some(running) = self.running.get_mut(slot).and_then(Option::as_mut) else { return };
        let step = match recv(running.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => running.arrived(&buffer[..length], now, self.shared.tap.as_ref()),
            Err(Errno::ECONNREFUSED) => running.transfer.refused(),
            Err(_) => return,
        };
        self.carry_out(slot, step);
    }

    /// Lets those alarms ring that are due.
    fn ring(&mut self, now: Instant) {
        while let Some(Reverse((at, slot))) = self.alarms.peek().copied() {
            if at > now {
                return;
            }
            self.alarms.pop();
            let Some(running) = self.running.get_mut(slot).and_then(Option::as_mut) else { continue };
            if running.alarm != at {
                // Of a transfer that had this slot before, or one that has an earlier alarm.
                continue;
            }
            let step = running.transfer.tick(now);
            running.taps = running.taps.max(TAPPED_AGAIN);
            running.alarm = running.transfer.deadline();
            self.alarms.push(Reverse((running.alarm, slot)));
            self.carry_out(slot, step);
        }
    }

    fn carry_out(&mut self, slot: usize, step: Step) {
        let Some(running) = self.running.get_mut(slot).and_then(Option::as_mut) else { return };
        let events = &self.shared.events;
        let mut outcome = step.outcome;
        if let Some(send) = step.send {
            if let Packets::Blocks { .. } = send
                && !std::mem::replace(&mut running.told, true)
            {
                let (block, window) = running.terms;
                events(
                    running
                        .asked
                        .event(&running.name, EventKind::Started { bytes: running.bytes, block, window }),
                );
            }
            if let Some(tap) = self.shared.tap.as_ref().filter(|_| running.taps > 0) {
                running.show(&send, tap);
            }
            if running.send(&send).is_err() {
                outcome = running.transfer.refused().outcome;
            }
        }
        if let Some(outcome) = outcome {
            if let Some(running) = self.running[slot].take() {
                if outcome == Outcome::TooSlow {
                    running.end_it();
                }
                let _ = self.epoll.delete(running.socket.as_fd());
                events(running.ended(outcome));
            }
            self.active -= 1;
            self.free.push(slot);
        } else if running.transfer.deadline() < running.alarm {
            running.alarm = running.transfer.deadline();
            self.alarms.push(Reverse((running.alarm, slot)));
        }
    }
}

impl Running {
    /// A datagram of the client.
    fn arrived(&mut self, bytes: &[u8], now: Instant, tap: Option<&Tap>) -> Step {
        let step = self.transfer.handle(packet::parse_incoming(bytes), now);
        if let Some(tap) = tap.filter(|_| self.taps > 0 || step.outcome.is_some()) {
            self.taps = self.taps.saturating_sub(1);
            let shown = &bytes[..bytes.len().min(packet::DATA_HEADER + TAPPED_DATA)];
            self.asked.tap(tap, self.port(), false, shown, bytes.len());
        }
        step
    }

    /// Shows what is about to be sent: of a window, its first block.
    fn show(&mut self, what: &Packets, tap: &Tap) {
        self.taps -= 1;
        match what {
            Packets::Oack => {
                let oack = self.transfer.oack();
                self.asked.tap(tap, self.port(), true, &oack, oack.len());
            }
            Packets::Blocks { first, .. } => {
                let (head, data) = self.transfer.packet(*first);
                let shown = [&head[..], &data[..data.len().min(TAPPED_DATA)]].concat();
                self.asked.tap(tap, self.port(), true, &shown, head.len() + data.len());
            }
        }
    }

    fn port(&self) -> u16 {
        let local = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        local.map(|address| address.port()).unwrap_or_default()
    }

    fn send(&mut self, what: &Packets) -> io::Result<()> {
        match what {
            Packets::Oack => {
                let oack = self.transfer.oack();
                match send(self.socket.as_raw_fd(), &oack, MsgFlags::MSG_DONTWAIT) {
                    Err(Errno::ECONNREFUSED) => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                    _ => Ok(()),
                }
            }
            Packets::Blocks { first, last } => {
                let each = usize::from(self.transfer.block());
                if first == last {
                    let packet = [self.transfer.packet(*first)];
                    return self.burst.send(&self.socket, &packet, each);
                }
                let mut packets: Vec<Packet<'_>> = Vec::new();
                self.transfer.packets(*first, *last, &mut packets);
                self.burst.send(&self.socket, &packets, each)
            }
        }
    }

    /// Tells the client that nothing more comes.
    fn end_it(&self) {
        let over = packet::error_packet(ErrorCode::Undefined.wire(), "too slow: the transfer is over");
        // Lost or not: the client hears nothing more either way.
        let _ = send(self.socket.as_raw_fd(), &over, MsgFlags::MSG_DONTWAIT);
    }

    fn ended(&self, outcome: Outcome) -> Event {
        let after_block = self.transfer.acked();
        let kind = match outcome {
            Outcome::Completed => EventKind::Completed {
                bytes: self.bytes,
                elapsed: self.begin.elapsed(),
                resent: self.transfer.resent(),
            },
            Outcome::Aborted { after_oack, code, message } => {
                EventKind::Aborted { after_oack, after_block, code, message }
            }
            Outcome::PortClosed => EventKind::PortClosed { after_block },
            Outcome::TimedOut => EventKind::TimedOut {
                after_block,
                bytes: self.transfer.acked_bytes(),
                block: self.transfer.block(),
            },
            Outcome::TooSlow => EventKind::TooSlow {
                after_block,
                bytes: self.transfer.acked_bytes(),
                block: self.transfer.block(),
                elapsed: self.begin.elapsed(),
            },
        };
        self.asked.event(&self.name, kind)
    }
}

/// Grants a request, or answers why not.
fn judge<L, E>(datagram: &[u8], asked: &Asked, listener: &Listener, shared: &Shared<L, E>) -> Option<Started>
where
    L: Fn(&Request) -> Lookup,
    E: Fn(Event),
{
    let mut name = String::new();
    let port = listener.listen.address.port();
    if let Some(tap) = &shared.tap {
        asked.tap(tap, port, false, datagram, datagram.len());
    }
    let refusal = match grant(datagram, asked, &mut name, listener, shared) {
        Ok(started) => return Some(started),
        Err(Denial::Silent) => return None,
        Err(Denial::Busy) => {
            (shared.events)(asked.event(&name, EventKind::Busy));
            return None;
        }
        Err(Denial::Refused(refusal)) => refusal,
    };
    // An error answers from the listening port: there is no transfer that it could belong to.
    let answer = packet::error_packet(refusal.code.wire(), &refusal.message);
    listener.send_to(&answer, asked.peer);
    if let Some(tap) = &shared.tap {
        asked.tap(tap, port, true, &answer, answer.len());
    }
    let kind = EventKind::Refused { code: refusal.code.wire(), message: refusal.message };
    (shared.events)(asked.event(&name, kind));
    None
}

fn grant<L, E>(
    datagram: &[u8],
    asked: &Asked,
    name: &mut String,
    listener: &Listener,
    shared: &Shared<L, E>,
) -> Result<Started, Denial>
where
    L: Fn(&Request) -> Lookup,
{
    let caps = shared.limits.caps;
    let source = Source { peer: asked.peer, local: asked.local, iface: &asked.iface };
    let granted = weigh(datagram, source, name, &shared.lookup, &caps, &shared.table)?;
    let Granted { request, file, expected, place } = granted;
    let socket = listener.transfer(asked.local, asked.peer).map_err(|error| {
        // Unanswered, the client asks again, and by then there may be one.
        tracing::warn!(%error, iface = %listener.iface, "no socket for a TFTP transfer");
        Denial::Busy
    })?;
    let caps = Caps { max_block: caps.max_block.min(path_block(&socket, asked.peer)), ..caps };
    let terms = negotiate(&request, file.len() as u64, &caps)?;
    let patience = if expected { shared.limits.expected } else { shared.limits.stranger };
    Ok(Started { asked: asked.clone(), name: name.clone(), file, terms, patience, socket, place })
}
