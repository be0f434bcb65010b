//! The server as its caller sees it: where it listens, its bounds, what it asks and what it tells.
//!
//! Invariants: requests beyond a limit are dropped (the client asks again) and told as an event; when the token is
//! cancelled, running transfers stop and `run` returns, and so it does, with an error, when a thread ends by itself. The work is done by threads of `engine`, not by the caller's
//! runtime: a transfer without windows is one packet a round trip, and a task switch more is a tenth of its speed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Inbox};
use crate::negotiate::Caps;
use crate::patience::Patience;
use crate::sockets::Listener;
use crate::table::{Most, Table};

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address and port (69), of IPv4 or IPv6; with the unspecified address, the reply comes from the address that was
    /// asked. `[::]` takes no IPv4.
    pub address: SocketAddr,
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
    /// Of them, transfers of clients that the caller does not expect ([`Lookup::File`]); the others are kept for those
    /// that it does ([`Lookup::Expected`]).
    pub strangers: usize,
    /// Transfers at once for one client address.
    pub per_client: usize,
    /// How long and how often, with clients that are expected.
    pub expected: Patience,
    /// The same with others.
    pub stranger: Patience,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            caps: Caps::default(),
            transfers: 2048,
            strangers: 1280,
            per_client: 8,
            expected: Patience::EXPECTED,
            stranger: Patience::STRANGER,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The client.
    pub peer: SocketAddr,
    /// Our address that it asked.
    pub local: IpAddr,
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
    /// This file, for a client that is expected: it may take a place that is kept for such, and is waited for longer.
    Expected(Bytes),
    /// No such file.
    NotFound,
    /// Not for this client, and why (sent to it).
    Denied(String),
}

/// Something happened to a request or transfer.
#[derive(Clone, Debug)]
pub struct Event {
    /// The client.
    pub peer: SocketAddr,
    /// Our address.
    pub local: IpAddr,
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
    /// It went on, and so slowly that it was ended: see [`Patience::least_rate`].
    TooSlow {
        /// Blocks it had acknowledged.
        after_block: u64,
        /// Bytes it had acknowledged.
        bytes: u64,
        /// Block size.
        block: u16,
        /// How long it took so far.
        elapsed: Duration,
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

/// A datagram of a transfer, as it came or went: requests, option acknowledgements, errors, the first ones of a transfer,
/// its last acknowledgement, and what was sent again. The thousands of blocks between are not shown, and of a block only its
/// beginning.
#[derive(Clone, Copy, Debug)]
pub struct Tapped<'a> {
    /// The client.
    pub peer: SocketAddr,
    /// Our address and port.
    pub local: SocketAddr,
    /// Interface of the listener.
    pub iface: &'a str,
    /// We sent it.
    pub sent: bool,
    /// Its octets; of a block the first 68.
    pub bytes: &'a [u8],
    /// How many it has.
    pub length: usize,
}

/// Called for datagrams, from the server's threads; must not block.
pub(crate) type Tap = Box<dyn Fn(&Tapped<'_>) + Send + Sync>;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for TFTP on {address}{}: {step} failed", device.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// On which device.
    pub device: Option<String>,
    /// What failed.
    pub step: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A bound server; `run` serves.
pub struct Server {
    listeners: Vec<Listener>,
    limits: Limits,
    tap: Option<Tap>,
}

/// What all threads of a server share.
pub(crate) struct Shared<L, E> {
    pub(crate) limits: Limits,
    pub(crate) tap: Option<Tap>,
    pub(crate) table: Arc<Table>,
    pub(crate) lookup: L,
    pub(crate) events: E,
}

impl Server {
    /// Binds every listener.
    ///
    /// # Errors
    /// [`BindError`] for the first one that fails.
    pub fn bind(listen: &[Listen], limits: Limits) -> Result<Self, BindError> {
        let listeners = listen.iter().map(Listener::open).collect::<Result<_, _>>()?;
        Ok(Self { listeners, limits, tap: None })
    }

    /// Shows datagrams to `tap` as they come and go.
    #[must_use]
    pub fn tapped(mut self, tap: impl Fn(&Tapped<'_>) + Send + Sync + 'static) -> Self {
        self.tap = Some(Box::new(tap));
        self
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Serves until `cancel`; `lookup` and `events` are called from the server's threads and must not block. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// A thread could not start, or ended by itself: nothing is served any more.
    pub async fn run<L, E>(self, lookup: L, events: E, cancel: CancellationToken) -> io::Result<()>
    where
        L: Fn(&Request) -> Lookup + Send + Sync + 'static,
        E: Fn(Event) + Send + Sync + 'static,
    {
        let Limits { transfers, strangers, per_client, .. } = self.limits;
        let table = Table::new(Most { total: transfers, strangers, per_client });
        let shared = Arc::new(Shared { limits: self.limits, tap: self.tap, table, lookup, events });
        let inboxes: io::Result<Vec<_>> = (0..threads()).map(|_| Inbox::new().map(Arc::new)).collect();
        let inboxes: Arc<[Arc<Inbox>]> = inboxes?.into();
        // Also when this future is dropped before its end.
        let stop = StopAll(Arc::clone(&inboxes));
        let mut running = JoinSet::new();
        let mut listeners = Some(self.listeners);
        for index in 0..inboxes.len() {
            // The first thread has the listeners, and hands transfers round.
            let listeners = listeners.take().unwrap_or_default();
            let engine = Engine::new(Arc::clone(&shared), listeners, Arc::clone(&inboxes), index)?;
            running.spawn_blocking(move || engine.run());
        }
        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            Some(ended) = running.join_next() => Err(match ended {
                Ok(()) => io::Error::other("a thread ended by itself"),
                Err(error) => io::Error::other(error),
            }),
        };
        drop(stop);
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a TFTP thread ended");
            }
        }
        ended
    }
}

/// Ends all threads when it is dropped.
struct StopAll(Arc<[Arc<Inbox>]>);

impl Drop for StopAll {
    fn drop(&mut self) {
        for inbox in self.0.iter() {
            inbox.stop();
        }
    }
}

/// Threads that serve: half the processors, since the kernel's part of each packet wants the other half; at most four.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2).clamp(1, 4)
}
