//! TFTP of the boot network: our loaders from memory, and what became of each transfer.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use dayzero_model::datagram::{Datagram, Wire};
use dayzero_model::event::{TftpFault, What};
use dayzero_tftp_server::{BindError, Event, EventKind, Limits, Listen, Lookup, Request, Server, Tapped};
use tokio_util::sync::CancellationToken;

use crate::config::{AUTOEXEC, Loaders, PxeConfig};
use crate::director::{BootDirector, PxeEvent};
use crate::http::LOADER;
use crate::http::admit::{Flow, Link, Meter, Rank};
use crate::late::LateFiles;
use crate::limit::Limit;
use crate::machine::Machines;
use crate::neighbours;
use crate::opened::{Six, listens_at};
use crate::session::Sessions;
use crate::time::{micros, now};

/// The TFTP service of all boot networks.
pub(crate) struct Tftp {
    server: Server,
    watch: Watch,
    files: BTreeMap<String, Bytes>,
    late: LateFiles,
}

struct Watch {
    loaders: Loaders,
    machines: Machines,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
    /// Requests that are not served: anybody can send them by the thousand.
    refused: Limit<IpAddr>,
    /// The places on each device's link, by which HTTP is served in waves.
    links: BTreeMap<String, Arc<Link>>,
    /// Transfers under way that take a place: of more than a loader.
    flows: Mutex<HashMap<SocketAddr, Flow>>,
}

impl Tftp {
    pub(crate) fn bind(
        config: &PxeConfig,
        six: &Six,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
        links: BTreeMap<String, Arc<Link>>,
    ) -> Result<Self, BindError> {
        let listen: Vec<Listen> = config
            .interfaces
            .iter()
            .filter(|i| i.boots())
            .flat_map(|i| listens_at(i, six).map(move |address| (i, address)))
            .map(|(i, address)| Listen {
                address: SocketAddr::new(address, config.ports.tftp),
                iface: i.device.clone(),
                device: Some(i.device.clone()),
            })
            .collect();
        let server = Server::bind(&listen, Limits::default())?;
        let (loaders, machines) = (config.loaders.clone(), Machines::of(&config.tftp));
        let watch = Watch {
            loaders,
            machines,
            director,
            sessions,
            refused: Limit::new("refused TFTP requests"),
            links,
            flows: Mutex::default(),
        };
        Ok(Self { server, watch, files: config.tftp.clone(), late: config.late.clone() })
    }

    /// Serves until `cancel`.
    ///
    /// # Errors
    /// Its threads cannot start, or one of them ended.
    pub(crate) async fn run(self, cancel: CancellationToken) -> io::Result<()> {
        let Self { server, watch, files, late } = self;
        let watch = Arc::new(watch);
        let who = Arc::clone(&watch);
        let lookup = move |request: &Request| {
            match files.get(&request.name).cloned().or_else(|| late.get(&request.name)) {
                // Whom our DHCP told its address: a flood from elsewhere takes none of the places that are kept for it.
                Some(file) if who.expects(request.peer.ip()) => Lookup::Expected(file),
                Some(file) => Lookup::File(file),
                None => Lookup::NotFound,
            }
        };
        let tap = Arc::clone(&watch);
        let server = server.tapped(move |tapped| tap.datagram(tapped));
        server.run(lookup, move |event| watch.event(&event), cancel).await
    }
}

impl Watch {
    /// Whether an address is one that a host of the plan has from us.
    fn expects(&self, peer: IpAddr) -> bool {
        self.sessions.who(peer).host.is_some()
    }

    /// A TFTP client cannot be told to come later; that it is there counts for those who can.
    fn admit(&self, event: &Event) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.kind {
            EventKind::Started { bytes, .. } if *bytes > LOADER => {
                if let Some(link) = self.links.get(&*event.iface) {
                    let peer = event.peer.ip();
                    let rank = Rank::of(&self.sessions.who(peer));
                    let flow = link.count(peer, rank, Meter::Unknown, Instant::now());
                    flows.insert(event.peer, flow);
                }
            }
            EventKind::Started { .. } | EventKind::Refused { .. } | EventKind::Busy => {}
            EventKind::Completed { .. }
            | EventKind::Aborted { .. }
            | EventKind::PortClosed { .. }
            | EventKind::TooSlow { .. }
            | EventKind::TimedOut { .. } => drop(flows.remove(&event.peer)),
        }
    }

    fn event(&self, event: &Event) {
        self.admit(event);
        let peer = event.peer.ip();
        let unserved = matches!(event.kind, EventKind::Refused { .. } | EventKind::Busy);
        if unserved
            && event.name != AUTOEXEC
            && !self.refused.allows(peer, self.expects(peer), Instant::now())
        {
            return;
        }
        let file = || event.name.clone();
        let broken = |fault, after_block, bytes, block, message: String| What::TftpBroken {
            file: file(),
            fault,
            after_block,
            bytes,
            block,
            message,
        };
        let what = match &event.kind {
            EventKind::Started { .. } => What::TftpStart { file: file() },
            EventKind::Completed { bytes, elapsed, .. } => {
                let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                What::TftpEnd { file: file(), bytes: *bytes, ms, error: None }
            }
            // It only asked for the size; the real request follows.
            EventKind::Aborted { after_oack: true, .. } => return,
            EventKind::Aborted { after_block, code, message, .. } => {
                broken(TftpFault::Aborted { code: *code }, *after_block, 0, 0, message.clone())
            }
            EventKind::PortClosed { after_block } => {
                broken(TftpFault::PortClosed, *after_block, 0, 0, String::new())
            }
            EventKind::TimedOut { after_block, bytes, block } => {
                broken(TftpFault::Silent, *after_block, *bytes, *block, String::new())
            }
            EventKind::TooSlow { after_block, bytes, block, elapsed } => {
                let message = format!("still not done after {} s: ended", elapsed.as_secs());
                broken(TftpFault::Silent, *after_block, *bytes, *block, message)
            }
            EventKind::Refused { .. } if event.name == AUTOEXEC => return,
            EventKind::Refused { code, message } => {
                broken(TftpFault::Refused { code: *code }, 0, 0, 0, message.clone())
            }
            EventKind::Busy => broken(TftpFault::Busy, 0, 0, 0, String::new()),
        };
        match (&event.kind, peer) {
            (EventKind::Completed { .. }, _) if self.loaders.is_loader(&event.name) => {
                let arch = self.sessions.loader_fetched(peer, now());
                self.tell(peer, what);
                if let Some(wrong) = self.machines.fetched(&event.name, arch) {
                    self.tell(peer, wrong);
                }
            }
            (EventKind::TimedOut { .. }, IpAddr::V4(address)) if neighbours::is_silent(address) => {
                self.tell(peer, What::ArpSilent { address });
                self.tell(peer, what);
            }
            _ => self.tell(peer, what),
        }
    }

    fn tell(&self, peer: IpAddr, what: What) {
        let known = self.sessions.who(peer);
        self.director.event(PxeEvent { mac: known.mac, host: known.host, boot: known.boot, what });
    }

    fn datagram(&self, tapped: &Tapped<'_>) {
        let Tapped { peer, local, iface, sent, bytes, length } = *tapped;
        let known = self.sessions.who(peer.ip());
        let wire =
            if sent { Wire::Udp { from: local, to: peer } } else { Wire::Udp { from: peer, to: local } };
        self.director.datagram(&Datagram {
            at: micros(),
            interface: iface,
            mac: known.mac,
            of_host: known.host.is_some(),
            sent,
            wire,
            bytes,
            length,
        });
    }
}
