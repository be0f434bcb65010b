//! HTTP boot: scripts, kernel and initramfs, image manifests and chunks; over TLS the same.
//!
//! Who is told which: agents fetch by HTTPS alone. An iPXE gets its script by HTTP, since nothing that it would check came
//! to it by a safer way; the script names kernel and initramfs by HTTPS where our own loader asks, says that it has HTTPS
//! (Debian 12's has not), and trusts our authority; it falls back to HTTP by itself. Debian 13's trusts what its firmware's
//! DHCP answer said, or what the firmware's own list for HTTPS boot holds, and reads either only when it starts: what its own
//! DHCP says comes too late, and `imgtrust` and `certstore` are not in Debian's build. By IPv6, and after UEFI HTTP boot, it
//! sees no answer of its firmware's, so there only the list counts. Told by DHCP, that trust proves nothing of who answered:
//! it keeps what is fetched from being changed or read on the way, no more. UEFI HTTP boot has no such fall back: firmware
//! is given an HTTPS address only where it is known to hold our authority, and HTTP again once that did not work. Debian's
//! OVMF (2022.11 and 2025.02) has TLS 1.2 without elliptic curves: the listener must offer Diffie-Hellman by ffdhe2048.
//!
//! `GET`/`HEAD` of `/boot/script?mac=…`, `/boot/agent?mac=…`, `/boot/file/<name>` and `/images/<path>`; anything else is refused. Invariants:
//! nothing secret is served and no request changes a state (a fetched script ends that client's boot session, which
//! only chooses between our own loader and script); names are looked up in a map, or checked part by part beneath the
//! images' root; connections are bounded (`clients`), a waiting one stays in the backlog; large files go out in waves
//! (`admit`).
//!
//! The parts: `head` reads a request, `files` says what is meant, `wire` sends it (`sendfile(2)` where it can),
//! `connection` ties them, `workers` are the threads. A general HTTP server copies each byte through this process, at
//! three to six times the processor time; what boots here needs `GET` and ranges only.

pub(crate) mod admit;
mod clients;
mod connection;
pub(crate) mod files;
mod head;
mod link;
mod range;
mod ranges;
mod wire;
pub(crate) mod workers;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::BootAction;
use dayzero_model::event::What;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{AUTOEXEC, BootFiles, Loaders, PxeConfig, ServedInterface, plain_name};
use crate::director::{BootDirector, PxeEvent, ScriptQuery};
use crate::late::LateFiles;
use crate::limit::Limit;
use crate::machine::Machines;
use crate::net::tcp_on;
use crate::opened::{Six, listens_at};
use crate::script::{Place, ScriptError, script, words};
use crate::session::Sessions;
use crate::time::now;
use admit::{Flow, Link, Meter, Rank};
use clients::{Client, Clients, Most};
use connection::Before;
use files::{Answer, Content, Opened, Source};
use head::{Asked, Patient};
use wire::{PATIENCE, Sent, Wire};
use workers::Workers;

/// Parts of an image path.
const DEPTH: usize = 5;
/// Bodies up to so many bytes need no place on the link.
const SMALL: u64 = 256 * 1024;
/// Nor do those up to so many that are served from memory: loaders. Signed images are larger.
pub(crate) const LOADER: u64 = 4 << 20;

/// The URL of a client's boot script.
pub(crate) fn script_url(server: impl Into<SocketAddr>, mac: MacAddr) -> String {
    format!("http://{}/boot/script?mac={mac}", server.into())
}

/// The URL of a loader.
pub(crate) fn file_url(server: impl Into<SocketAddr>, name: &str) -> String {
    format!("http://{}/boot/file/{name}", server.into())
}

/// The same by HTTPS.
pub(crate) fn secure_file_url(server: impl Into<SocketAddr>, name: &str) -> String {
    format!("https://{}/boot/file/{name}", server.into())
}

pub(crate) struct Shared {
    interface: ServedInterface,
    address: SocketAddr,
    /// The same by IPv6, where we have an address.
    address6: Option<SocketAddr>,
    /// The port at which loaders are served by HTTPS, if they are.
    https: Option<u16>,
    boot: BootFiles,
    loaders: Loaders,
    /// What TFTP serves too, from memory.
    memory: BTreeMap<String, Content>,
    late: LateFiles,
    machines: Machines,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
    clients: Clients,
    /// Requests that are not served: anybody can send them by the thousand.
    unserved: Limit<IpAddr>,
    link: Arc<Link>,
}

/// HTTP boot on one interface.
pub(crate) struct HttpBoot {
    listeners: Vec<(TcpListener, Option<TlsAcceptor>)>,
    shared: Arc<Shared>,
}

impl HttpBoot {
    pub(crate) fn bind(
        interface: &ServedInterface,
        config: &PxeConfig,
        six: &Six,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for address in listens_at(interface, six) {
            let at = |port| SocketAddr::new(address, port);
            listeners.push((boot_listener(interface, at(config.ports.http))?, None));
            if let Some(tls) = &config.tls {
                let listener = boot_listener(interface, at(config.ports.https))?;
                listeners.push((listener, Some(TlsAcceptor::from(Arc::clone(tls)))));
            }
        }
        let address6 = six.get(&interface.device).map(|a| SocketAddr::new(IpAddr::V6(*a), config.ports.http));
        let content =
            |(name, bytes): (&String, &bytes::Bytes)| (name.clone(), Content::memory(bytes.clone()));
        let shared = Shared {
            interface: interface.clone(),
            address: SocketAddrV4::new(interface.address, config.ports.http).into(),
            address6,
            https: config.https().map(|_| config.ports.https),
            boot: config.boot.clone(),
            loaders: config.loaders.clone(),
            memory: config.tftp.iter().map(content).collect(),
            late: config.late.clone(),
            machines: Machines::of(&config.tftp),
            director,
            sessions,
            clients: Clients::new(Most::default()),
            unserved: Limit::new("HTTP boot requests that were not served"),
            link: Link::new(link::places(&interface.device)),
        };
        Ok(Self { listeners, shared: Arc::new(shared) })
    }

    /// The places of its link, which TFTP's larger files take too.
    pub(crate) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.shared.link)
    }

    pub(crate) async fn run(self, workers: Workers, cancel: CancellationToken) {
        let places = Arc::new(self.shared.clients.places());
        let accepting = self.listeners.into_iter().map(|(listener, tls)| {
            accept(
                listener,
                tls,
                Arc::clone(&self.shared),
                Arc::clone(&places),
                workers.clone(),
                cancel.clone(),
            )
        });
        futures::future::join_all(accepting).await;
    }
}

/// A listener whose connections use `cubic`, whatever the machine prefers: a boot network is one link of some microseconds,
/// on which BBR's timed pacing brings nothing, and costs two thirds of the speed. A kernel without it keeps its own.
fn boot_listener(interface: &ServedInterface, address: SocketAddr) -> io::Result<TcpListener> {
    let listener = tcp_on(&interface.device, address)?;
    if let Err(error) = socket2::SockRef::from(&listener).set_tcp_congestion(b"cubic") {
        tracing::debug!(%error, device = %interface.device, "TCP of HTTP boot keeps the machine's congestion control");
    }
    Ok(listener)
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    workers: Workers,
    cancel: CancellationToken,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))),
        };
        match accepted {
            Ok((stream, peer)) => {
                // Its address is known by now, if it is a host's: DHCP comes first.
                let planned = shared.rank(peer.ip()) != Rank::Other;
                let Some(client) = shared.clients.enter(peer.ip(), planned) else { continue };
                let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                let begin = move || begin(stream, peer, tls, shared, (client, place));
                workers.give(Box::new(move || Box::pin(begin())));
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for connections to end rather than spin.
                tracing::warn!(%error, "HTTP boot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection, on its worker's thread.
async fn begin(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    held: (Client, OwnedSemaphorePermit),
) {
    let prepared = TcpStream::from_std(stream).and_then(|stream| {
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(PATIENCE))?;
        socket.set_tcp_nodelay(true)?;
        Ok(stream)
    });
    let wire = match (prepared, tls) {
        (Ok(stream), None) => Ok(Wire::plain(stream)),
        (Ok(stream), Some(tls)) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Ok(Wire::tls(stream)),
            Ok(Err(error)) => {
                shared.no_terms(peer, &error);
                Err(error)
            }
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        },
        (Err(error), _) => Err(error),
    };
    match wire {
        Ok(wire) => connection::serve(wire, peer, shared).await,
        Err(error) => tracing::debug!(%error, %peer, "HTTP boot connection"),
    }
    drop(held);
}

/// What is answered, and what is done once it went out.
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// The connection is closed after it.
    pub(crate) close: bool,
    /// Path to tell of; none: nothing is told.
    told: Option<String>,
    /// It is told only if it breaks off.
    quiet: bool,
    flow: Option<Flow>,
}

impl Reply {
    fn plain(answer: Answer) -> Self {
        Self { answer, close: false, told: None, quiet: false, flow: None }
    }

    /// What counts its bytes as they go.
    pub(crate) fn sent(&self) -> Sent {
        Sent::telling(self.flow.as_ref().map(Flow::moved))
    }

    /// The answer is over, after `sent` bytes of its body, or broke off.
    pub(crate) fn after(
        self,
        shared: &Shared,
        peer: SocketAddr,
        before: &mut Before,
        sent: u64,
        broke: Option<&io::Error>,
    ) {
        let (status, length) = (self.answer.status, self.answer.length);
        let over = status == 200 && sent == length;
        match (&self.told, broke) {
            (Some(path), Some(error)) if status < 400 && sent < length => {
                shared.summed(before.ranges.end(), peer, before.tls);
                let (path, error) = (path.clone(), error.to_string());
                shared.tell(peer, What::HttpBroken { path, peer: peer.ip(), bytes: sent, length, error });
            }
            (Some(path), _) if !self.quiet && status == 206 => {
                for sum in before.ranges.add(path, sent, Instant::now()) {
                    shared.summed(Some(sum), peer, before.tls);
                }
            }
            (Some(path), _) if !self.quiet => {
                shared.summed(before.ranges.end(), peer, before.tls);
                shared.fetched(path, status, over, sent, (peer, before.tls));
            }
            _ => {}
        }
        drop(self.flow);
        let last = self.told.as_deref().and_then(|path| path.strip_prefix("/boot/file/"));
        if over && last == Some(shared.boot.initrd.as_str()) {
            shared.link.done(peer.ip(), Instant::now());
        }
    }
}

impl Shared {
    pub(crate) fn answer(&self, asked: &Asked, peer: SocketAddr, before: &mut Before) -> Reply {
        let (path, opened) = (asked.path.as_str(), &mut before.opened);
        if path == "/boot/script" || path == "/boot/agent" {
            return Reply::plain(self.script(path, &asked.query, peer, before.tls));
        }
        let found = if let Some(name) = path.strip_prefix("/boot/file/") {
            self.boot_file(name, opened)
        } else if let Some(rest) = path.strip_prefix("/images/") {
            self.image(rest, opened)
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        };
        match found {
            Ok(content) => self.serve(content, asked, peer),
            Err(error) => {
                let (status, text) = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        (404, "there is no such file\n")
                    }
                    _ => (500, "the file cannot be read\n"),
                };
                let answer = Reply::plain(Answer::text(status, text));
                if path.strip_prefix("/boot/file/") == Some(AUTOEXEC) || !self.may_tell(peer.ip()) {
                    return answer;
                }
                tracing::warn!(%error, path, %peer, "HTTP boot file not served");
                Reply { told: Some(shown(path)), ..answer }
            }
        }
    }

    fn serve(&self, content: Content, asked: &Asked, peer: SocketAddr) -> Reply {
        let image = asked.path.starts_with("/images/");
        let answer = content.answer(asked);
        let (heavy, comes_back) = match &answer.body {
            Some(Source::Disk(_)) => (image || answer.length > SMALL, asked.patient != Patient::No),
            // Firmware asks for these, of whatever name: only who is known to wait is told to.
            Some(Source::Memory(_)) => (answer.length > LOADER, asked.patient == Patient::Yes),
            None => (false, true),
        };
        let flow = match (heavy && !asked.head, comes_back) {
            (false, _) => None,
            (true, false) => {
                let (client, rank) = (peer.ip(), self.rank(peer.ip()));
                Some(self.link.count(client, rank, Meter::Bytes, Instant::now()))
            }
            (true, true) => match self.link.enter(peer.ip(), self.rank(peer.ip()), Instant::now()) {
                Ok(entered) => Some(entered),
                Err(seconds) => return self.later(seconds, &asked.path, peer.ip()),
            },
        };
        // Chunks come by the hundred: only what failed is worth an event.
        let quiet = image && answer.status < 400;
        let told = (!asked.head).then(|| shown(&asked.path));
        Reply { answer, close: false, told, quiet, flow }
    }

    fn rank(&self, peer: IpAddr) -> Rank {
        Rank::of(&self.sessions.who(peer))
    }

    /// "Come back in so many seconds": iPXE and our agent do.
    fn later(&self, seconds: u64, path: &str, peer: IpAddr) -> Reply {
        let answer = Answer::text(503, format!("the link is busy: come back in {seconds} s\n"));
        let answer = answer.with(&format!("Retry-After: {seconds}"));
        let told = self.may_tell(peer).then(|| shown(path));
        Reply { close: true, told, ..Reply::plain(answer) }
    }

    fn boot_file(&self, name: &str, opened: &mut Opened) -> io::Result<Content> {
        if let Some(path) = self.boot.files.get(name) {
            return opened.disk(path, Instant::now());
        }
        let memory = self.memory.get(name).cloned().or_else(|| self.late.content(name));
        memory.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn image(&self, rest: &str, opened: &mut Opened) -> io::Result<Content> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let mut path: PathBuf = self.boot.images.clone().ok_or_else(missing)?;
        for (depth, part) in rest.split('/').enumerate() {
            if depth >= DEPTH || !plain_name(part) {
                return Err(missing());
            }
            path.push(part);
        }
        opened.disk(&path, Instant::now())
    }

    /// A connection ended: what was not told of it yet.
    pub(crate) fn left(&self, mut before: Before, peer: SocketAddr) {
        self.summed(before.ranges.end(), peer, before.tls);
    }

    /// Ranges of one file, told as one answer.
    fn summed(&self, sum: Option<(String, u64)>, peer: SocketAddr, tls: bool) {
        if let Some((path, bytes)) = sum {
            self.fetched(&path, 206, false, bytes, (peer, tls));
        }
    }

    /// A file went out, to whom, by TLS or not.
    fn fetched(&self, path: &str, status: u16, over: bool, bytes: u64, (peer, tls): (SocketAddr, bool)) {
        let name = path.strip_prefix("/boot/file/").unwrap_or_default();
        let mut wrong = None;
        if over && self.memory.contains_key(name) && self.loaders.is_loader(name) {
            let arch = self.sessions.loader_fetched(peer.ip(), now());
            wrong = self.machines.fetched(name, arch);
        }
        self.tell(peer, What::HttpFile { path: path.to_owned(), peer: peer.ip(), status, bytes, tls });
        if let Some(wrong) = wrong {
            self.tell(peer, wrong);
        }
    }

    /// What a client's iPXE is to do, or what an agent whose command line was signed must know of its boot.
    fn script(&self, asked: &str, query: &str, peer: SocketAddr, tls: bool) -> Answer {
        let mac =
            query.split('&').find_map(|pair| pair.strip_prefix("mac=")).map(|mac| mac.replace("%3A", ":"));
        let Some(mac) = mac.and_then(|mac| mac.replace("%3a", ":").parse::<MacAddr>().ok()) else {
            return Answer::text(400, format!("ask for {asked}?mac=52:54:00:12:34:56\n"));
        };
        let address = peer.ip();
        // What the script names is fetched by the address family that the script came by.
        let server = self.address6.filter(|_| address.is_ipv6()).unwrap_or(self.address);
        let leased_to = self.sessions.who(address).mac;
        let network = self.interface.network.name.clone();
        let action = self.director.boot_script(&ScriptQuery { mac, peer: address, leased_to, network });
        // Whoever asks for another's script gets one that needs nothing to be known of it.
        let secure = self.https.filter(|_| leased_to == Some(mac) && self.sessions.fetches_https(mac));
        let secure = secure.map(|port| SocketAddr::new(server.ip(), port));
        let place = Place { server, secure, kernel: &self.boot.kernel, initrd: &self.boot.initrd };
        let (body, status) = match asked {
            "/boot/agent" => agent_words(&action),
            _ => (script(&action, mac, &place), 200),
        };
        match body {
            Ok(body) => {
                if leased_to == Some(mac) {
                    self.sessions.script_fetched(mac);
                }
                if action != BootAction::Refuse || self.may_tell(address) {
                    self.tell_of(mac, address, What::Script { action, peer: address });
                }
                Answer::text(status, body)
            }
            Err(error) => {
                tracing::error!(%error, %mac, "no boot script");
                let (path, peer) = (asked.to_owned(), peer.ip());
                self.tell_of(mac, address, What::HttpFile { path, peer, status: 500, bytes: 0, tls });
                Answer::text(500, format!("no script: {error}\n"))
            }
        }
    }

    /// A client and we did not come to terms by TLS: in this boot it is told HTTP from now on.
    fn no_terms(&self, peer: SocketAddr, error: &io::Error) {
        self.sessions.https_failed(peer.ip());
        if self.may_tell(peer.ip()) {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let expired = rustls::AlertDescription::CertificateExpired;
            let clock = matches!(tls, Some(rustls::Error::AlertReceived(alert)) if *alert == expired);
            let (listener, reason) = ("HTTPS boot".to_owned(), error.to_string());
            self.tell(peer, What::TlsRefused { peer: peer.ip(), listener, reason, clock });
        }
    }

    /// Whether one more request of this client that is not served may be told of.
    fn may_tell(&self, peer: IpAddr) -> bool {
        self.unserved.allows(peer, self.sessions.who(peer).host.is_some(), Instant::now())
    }

    fn tell(&self, peer: SocketAddr, what: What) {
        let known = self.sessions.who(peer.ip());
        self.director.event(PxeEvent { mac: known.mac, host: known.host, boot: known.boot, what });
    }

    fn tell_of(&self, mac: MacAddr, address: IpAddr, what: What) {
        let known = self.sessions.who(address);
        let same = known.mac == Some(mac);
        self.director.event(PxeEvent {
            mac: Some(mac),
            host: known.host.filter(|_| same),
            boot: known.boot.filter(|_| same),
            what,
        });
    }
}

/// What an agent is told of its boot, with the status of the answer.
fn agent_words(action: &BootAction) -> (Result<String, ScriptError>, u16) {
    match words(action) {
        Ok(Some(words)) => (Ok(words), 200),
        Ok(None) => (Ok("no boot is open for this machine\n".to_owned()), 409),
        Err(error) => (Err(error), 500),
    }
}

/// A path from the network, fit for a log.
fn shown(path: &str) -> String {
    path.chars().take(200).map(|c| if c.is_ascii_graphic() { c } else { '.' }).collect()
}

/// Reads requests one after another, as a connection does, and answers each from a file of ten bytes.
pub(crate) fn fuzz(mut bytes: &[u8]) {
    let content = Content::memory(bytes::Bytes::from_static(b"0123456789"));
    while let Ok(Some((asked, length))) = head::parse(bytes) {
        assert!(length > 0 && length <= bytes.len() && asked.path.starts_with('/'));
        let answer = content.clone().answer(&asked);
        assert!(answer.first + answer.length <= content.size, "{answer:?}");
        bytes = &bytes[length..];
    }
}

#[cfg(test)]
mod tests;
