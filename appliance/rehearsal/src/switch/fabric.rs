//! Carries frames between the switches' cores and the outside: one thread, one epoll, batches of reads.
//!
//! Invariants: one frame is copied once in and once out; an endpoint that cannot take a frame loses it, and never
//! stalls another; the core's lock is not held while the thread waits. It decides nothing about frames.

use super::core::{PortConfig, PortId, Role, Switch};
use super::frame::MAX_FRAME;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, sendto, setsockopt, socket, sockopt,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const BATCH: usize = 64;
const TICK: Duration = Duration::from_millis(100);
const SEND_BUFFER: usize = 4 << 20;

/// A switch of the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SwitchId(pub usize);

/// A port of a switch of the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRef {
    /// The switch.
    pub switch: SwitchId,
    /// Its port.
    pub port: PortId,
}

/// What is plugged into ports: a tap or one side of a QEMU NIC's socket pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId(usize);

/// Frames of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came from it.
    pub received: u64,
    /// Frames given to it.
    pub sent: u64,
    /// Frames that it could not take.
    pub dropped: u64,
}

#[derive(Debug)]
enum Device {
    Tap(OwnedFd),
    Socket { own: OwnedFd, peer: UnixAddr },
}

impl Device {
    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Tap(fd) | Self::Socket { own: fd, .. } => fd,
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match self {
            Self::Tap(fd) => nix::unistd::read(fd, buffer),
            Self::Socket { own, .. } => {
                nix::sys::socket::recv(own.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
            }
        }
    }

    fn send(&self, frame: &[u8]) -> nix::Result<usize> {
        match self {
            Self::Tap(fd) => nix::unistd::write(fd, frame),
            Self::Socket { own, peer } => sendto(own.as_raw_fd(), frame, peer, MsgFlags::MSG_DONTWAIT),
        }
    }
}

#[derive(Debug)]
struct Endpoint {
    device: Device,
    port: Option<PortRef>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Inner {
    switches: Vec<Switch>,
    /// By switch and port: what is plugged in.
    plugged: Vec<Vec<Option<usize>>>,
    endpoints: Vec<Endpoint>,
}

/// All switches of the lab and what is plugged into them. Clones share them; the thread ends with the last.
#[derive(Clone, Debug)]
pub struct Fabric {
    shared: Arc<Shared>,
    _thread: Arc<Runner>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    epoll: Epoll,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Runner {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().ok().and_then(|mut thread| thread.take()) {
            let _ended = thread.join();
        }
    }
}

impl Fabric {
    /// A fabric without switches, with its thread running.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            stop: AtomicBool::new(false),
        });
        let running = shared.clone();
        let thread = std::thread::Builder::new().name("lab-switch".into()).spawn(move || run(&running))?;
        let runner = Runner { shared: shared.clone(), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, _thread: Arc::new(runner) })
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a switch without ports.
    pub fn add_switch(&self, switch: Switch) -> SwitchId {
        let mut inner = self.held();
        inner.switches.push(switch);
        inner.plugged.push(Vec::new());
        SwitchId(inner.switches.len() - 1)
    }

    /// Looks at or changes a switch; frames wait meanwhile. None if there is no such switch.
    pub fn with<T>(&self, switch: SwitchId, work: impl FnOnce(&mut Switch) -> T) -> Option<T> {
        self.held().switches.get_mut(switch.0).map(work)
    }

    /// Adds a port, empty and without carrier.
    pub fn add_port(&self, switch: SwitchId, config: PortConfig) -> Option<PortRef> {
        let mut inner = self.held();
        let port = inner.switches.get_mut(switch.0)?.add_port(config);
        inner.plugged[switch.0].push(None);
        Some(PortRef { switch, port })
    }

    /// Adds a tap's descriptor.
    pub fn add_tap(&self, tap: OwnedFd) -> io::Result<EndpointId> {
        self.add_endpoint(Device::Tap(tap))
    }

    /// Adds one side of a datagram socket pair: binds `own` (replacing a stale one), sends to `peer`, which need not
    /// exist yet. Call it in the network namespace whose queue length the socket is to have.
    pub fn add_socket(&self, own: &Path, peer: &Path) -> io::Result<EndpointId> {
        if let Err(error) = std::fs::remove_file(own)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(own)?)?;
        // What QEMU has not read yet counts against the sender's buffer.
        setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER)?;
        self.add_endpoint(Device::Socket { own: fd, peer: UnixAddr::new(peer)? })
    }

    fn add_endpoint(&self, device: Device) -> io::Result<EndpointId> {
        let mut inner = self.held();
        let id = inner.endpoints.len();
        self.shared.epoll.add(device.fd(), EpollEvent::new(EpollFlags::EPOLLIN, id as u64))?;
        inner.endpoints.push(Endpoint { device, port: None, counters: Counters::default() });
        Ok(EndpointId(id))
    }

    /// Plugs an endpoint into a port, out of whichever it was in; the carrier stays down until [`Self::set_carrier`].
    /// What was in the port before is out.
    pub fn plug(&self, endpoint: EndpointId, port: PortRef) {
        let mut inner = self.held();
        inner.unplug(endpoint.0);
        if let Some(before) = inner.plugged[port.switch.0][usize::from(port.port.0)] {
            inner.unplug(before);
        }
        inner.plugged[port.switch.0][usize::from(port.port.0)] = Some(endpoint.0);
        inner.endpoints[endpoint.0].port = Some(port);
    }

    /// Takes an endpoint out of its port.
    pub fn unplug(&self, endpoint: EndpointId) {
        self.held().unplug(endpoint.0);
    }

    /// The port that an endpoint is in.
    pub fn port_of(&self, endpoint: EndpointId) -> Option<PortRef> {
        self.held().endpoints.get(endpoint.0)?.port
    }

    /// Carrier of the port that the endpoint is in.
    pub fn set_carrier(&self, endpoint: EndpointId, up: bool) {
        let mut inner = self.held();
        if let Some(port) = inner.endpoints.get(endpoint.0).and_then(|endpoint| endpoint.port) {
            inner.switches[port.switch.0].set_carrier(port.port, up);
        }
    }

    /// What the endpoint's port does with data frames; closed if it is in none.
    pub fn role(&self, endpoint: EndpointId) -> Role {
        let inner = self.held();
        let port = inner.endpoints.get(endpoint.0).and_then(|endpoint| endpoint.port);
        port.map_or(Role::Closed, |port| inner.switches[port.switch.0].role(port.port))
    }

    /// Frames of an endpoint so far.
    pub fn counters(&self, endpoint: EndpointId) -> Counters {
        self.held().endpoints.get(endpoint.0).map(|endpoint| endpoint.counters).unwrap_or_default()
    }
}

impl Inner {
    fn unplug(&mut self, endpoint: usize) {
        if let Some(port) = self.endpoints[endpoint].port.take() {
            self.plugged[port.switch.0][usize::from(port.port.0)] = None;
            self.switches[port.switch.0].set_carrier(port.port, false);
        }
    }

    /// Reads up to a batch of frames from one endpoint through its switch.
    fn drain(&mut self, endpoint: usize, buffer: &mut [u8], now: Instant) {
        for _ in 0..BATCH {
            let Some(source) = self.endpoints.get_mut(endpoint) else { return };
            let Ok(length) = source.device.receive(buffer) else { return };
            source.counters.received += 1;
            let Some(PortRef { switch, port }) = source.port else { continue };
            let (endpoints, plugged) = (&mut self.endpoints, &self.plugged[switch.0]);
            self.switches[switch.0].frame_in(port, &buffer[..length], now, &mut |port, frame| {
                deliver(endpoints, plugged, port, frame);
            });
        }
    }

    fn tick(&mut self, now: Instant) {
        for (switch, plugged) in self.switches.iter_mut().zip(&self.plugged) {
            let endpoints = &mut self.endpoints;
            switch.tick(now, &mut |port, frame| deliver(endpoints, plugged, port, frame));
        }
    }
}

fn deliver(endpoints: &mut [Endpoint], plugged: &[Option<usize>], port: PortId, frame: &[u8]) {
    let Some(endpoint) = plugged.get(usize::from(port.0)).copied().flatten() else { return };
    let Some(endpoint) = endpoints.get_mut(endpoint) else { return };
    match endpoint.device.send(frame) {
        Ok(_) => endpoint.counters.sent += 1,
        // A machine that is off or slow, a tap that is down: a cable loses such frames as well.
        Err(_) => endpoint.counters.dropped += 1,
    }
}

fn run(shared: &Shared) {
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; MAX_FRAME + 1];
    let mut next_tick = Instant::now();
    while !shared.stop.load(Ordering::Acquire) {
        let wait = next_tick.saturating_duration_since(Instant::now());
        let wait = EpollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(EpollTimeout::ZERO);
        let ready = match shared.epoll.wait(&mut events, wait) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => {
                tracing::error!(%error, "the lab's switches stop: epoll failed");
                return;
            }
        };
        let mut inner = shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for event in &events[..ready] {
            inner.drain(event.data() as usize, &mut buffer, now);
        }
        if now >= next_tick {
            inner.tick(now);
            next_tick = now + TICK;
        }
    }
}
