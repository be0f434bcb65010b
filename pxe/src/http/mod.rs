//! HTTP boot: scripts, kernel and initramfs, image manifests and chunks; over TLS the same.
//!
//! `GET`/`HEAD` of `/boot/script?mac=…`, `/boot/agent?mac=…`, `/boot/file/<name>` and `/images/<path>`; anything else is refused. Invariants:
//! nothing secret is served and no request changes a state (a fetched script ends that client's boot session, which
//! only chooses between our own loader and script); names are looked up in a map, or checked part by part beneath the
//! images' root; connections are bounded for all and for each client, a waiting one stays in the backlog; large files
//! go out in waves (`admit`).
//!
//! The parts: `head` reads a request, `files` says what is meant, `wire` sends it (`sendfile(2)` where it can),
//! `connection` ties them, `workers` are the threads. A general HTTP server copies each byte through this process, at
//! three to six times the processor time; what boots here needs `GET` and ranges only.

mod admit;
mod connection;
pub(crate) mod files;
mod head;
mod link;
mod range;
mod wire;
pub(crate) mod workers;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::BootAction;
use dayzero_model::event::What;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{AUTOEXEC, BootFiles, Loaders, PxeConfig, ServedInterface, plain_name};
use crate::dhcp::serve::now;
use crate::director::{BootDirector, PxeEvent, ScriptQuery};
use crate::late::LateFiles;
use crate::machine::Machines;
use crate::net::tcp_on;
use crate::script::{Place, ScriptError, script, words};
use crate::server::{Six, boots_at};
use crate::session::Sessions;
use admit::{Flow, Link};
use files::{Answer, Content, Source};
use head::Asked;
use wire::{PATIENCE, Wire};
use workers::Workers;

/// Connections at once.
const CONNECTIONS: usize = 4096;
/// Connections of one client at once.
const PER_CLIENT: usize = 32;
/// Parts of an image path.
const DEPTH: usize = 5;
/// Bodies up to so many bytes need no place on the link.
const SMALL: u64 = 256 * 1024;

/// The URL of a client's boot script.
pub(crate) fn script_url(server: impl Into<SocketAddr>, mac: MacAddr) -> String {
    format!("http://{}/boot/script?mac={mac}", server.into())
}

/// The URL of a loader.
pub(crate) fn file_url(server: impl Into<SocketAddr>, name: &str) -> String {
    format!("http://{}/boot/file/{name}", server.into())
}

pub(crate) struct Shared {
    interface: ServedInterface,
    address: SocketAddr,
    /// The same by IPv6, where we have an address.
    address6: Option<SocketAddr>,
    boot: BootFiles,
    loaders: Loaders,
    /// What TFTP serves too, from memory.
    memory: BTreeMap<String, Content>,
    late: LateFiles,
    machines: Machines,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
    clients: Mutex<HashMap<IpAddr, usize>>,
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
        for address in boots_at(interface, six) {
            let at = |port| SocketAddr::new(address, port);
            listeners.push((tcp_on(&interface.device, at(config.ports.http))?, None));
            if let Some(tls) = &config.tls {
                let listener = tcp_on(&interface.device, at(config.ports.https))?;
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
            boot: config.boot.clone(),
            loaders: config.loaders.clone(),
            memory: config.tftp.iter().map(content).collect(),
            late: config.late.clone(),
            machines: Machines::of(&config.tftp),
            director,
            sessions,
            clients: Mutex::default(),
            link: Link::new(link::places(&interface.device)),
        };
        Ok(Self { listeners, shared: Arc::new(shared) })
    }

    pub(crate) async fn run(self, workers: Workers, cancel: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
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
                let Some(client) = Client::enter(peer.ip(), &shared) else { continue };
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
        (Ok(stream), None) => Ok(Wire::Plain(stream)),
        (Ok(stream), Some(tls)) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Ok(Wire::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(error),
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

/// One connection's place among those of its client.
struct Client {
    address: IpAddr,
    shared: Arc<Shared>,
}

impl Client {
    fn enter(address: IpAddr, shared: &Arc<Shared>) -> Option<Self> {
        let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(address).or_default();
        if *count >= PER_CLIENT {
            return None;
        }
        *count += 1;
        drop(clients);
        Some(Self { address, shared: Arc::clone(shared) })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.address);
            }
        }
    }
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

    /// The answer is over, after `sent` bytes of its body, or broke off.
    pub(crate) fn after(self, shared: &Shared, peer: SocketAddr, sent: u64, broke: Option<&io::Error>) {
        let (status, length) = (self.answer.status, self.answer.length);
        let over = status == 200 && sent == length;
        match (&self.told, broke) {
            (Some(path), Some(error)) if status < 400 && sent < length => {
                let (path, error) = (path.clone(), error.to_string());
                shared.tell(peer, What::HttpBroken { path, peer: peer.ip(), bytes: sent, length, error });
            }
            (Some(path), _) if !self.quiet => shared.fetched(path, status, over, sent, peer),
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
    pub(crate) fn answer(&self, asked: &Asked, peer: SocketAddr) -> Reply {
        let path = asked.path.as_str();
        if path == "/boot/script" || path == "/boot/agent" {
            return Reply::plain(self.script(path, &asked.query, peer));
        }
        let found = if let Some(name) = path.strip_prefix("/boot/file/") {
            self.boot_file(name)
        } else if let Some(rest) = path.strip_prefix("/images/") {
            self.image(rest)
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
                if path.strip_prefix("/boot/file/") == Some(AUTOEXEC) {
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
        let mut flow = None;
        let heavy = image || answer.length > SMALL;
        if let (Some(Source::Disk(_)), true, false) = (&answer.body, heavy, asked.head) {
            match self.link.enter(peer.ip(), Instant::now()) {
                Ok(entered) => flow = Some(entered),
                Err(seconds) => return self.later(seconds, &asked.path),
            }
        }
        // Chunks come by the hundred: only what failed is worth an event.
        let quiet = image && answer.status < 400;
        let told = (!asked.head).then(|| shown(&asked.path));
        Reply { answer, close: false, told, quiet, flow }
    }

    /// "Come back in so many seconds": iPXE and our agent do.
    fn later(&self, seconds: u64, path: &str) -> Reply {
        let answer = Answer::text(503, format!("the link is busy: come back in {seconds} s\n"));
        let answer = answer.with(&format!("Retry-After: {seconds}"));
        Reply { close: true, told: Some(shown(path)), ..Reply::plain(answer) }
    }

    fn boot_file(&self, name: &str) -> io::Result<Content> {
        if let Some(path) = self.boot.files.get(name) {
            return Content::disk(path);
        }
        let memory = self.memory.get(name).cloned().or_else(|| self.late.content(name));
        memory.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn image(&self, rest: &str) -> io::Result<Content> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let mut path: PathBuf = self.boot.images.clone().ok_or_else(missing)?;
        for (depth, part) in rest.split('/').enumerate() {
            if depth >= DEPTH || !plain_name(part) {
                return Err(missing());
            }
            path.push(part);
        }
        Content::disk(&path)
    }

    fn fetched(&self, path: &str, status: u16, over: bool, bytes: u64, peer: SocketAddr) {
        let name = path.strip_prefix("/boot/file/").unwrap_or_default();
        let mut wrong = None;
        if over && self.memory.contains_key(name) && self.loaders.is_loader(name) {
            let arch = self.sessions.loader_fetched(peer.ip(), now());
            wrong = self.machines.fetched(name, arch);
        }
        self.tell(peer, What::HttpFile { path: path.to_owned(), peer: peer.ip(), status, bytes });
        if let Some(wrong) = wrong {
            self.tell(peer, wrong);
        }
    }

    /// What a client's iPXE is to do, or what an agent whose command line was signed must know of its boot.
    fn script(&self, asked: &str, query: &str, peer: SocketAddr) -> Answer {
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
        let place = Place { server, kernel: &self.boot.kernel, initrd: &self.boot.initrd };
        let (body, status) = match asked {
            "/boot/agent" => agent_words(&action),
            _ => (script(&action, mac, &place), 200),
        };
        match body {
            Ok(body) => {
                if leased_to == Some(mac) {
                    self.sessions.script_fetched(mac);
                }
                self.tell_of(mac, address, What::Script { action, peer: peer.ip() });
                Answer::text(status, body)
            }
            Err(error) => {
                tracing::error!(%error, %mac, "no boot script");
                let path = asked.to_owned();
                self.tell_of(mac, address, What::HttpFile { path, peer: peer.ip(), status: 500, bytes: 0 });
                Answer::text(500, format!("no script: {error}\n"))
            }
        }
    }

    fn tell(&self, peer: SocketAddr, what: What) {
        let known = self.sessions.who(peer.ip());
        self.director.event(PxeEvent {
            interface: self.interface.device.clone(),
            mac: known.mac,
            host: known.host,
            boot: known.boot,
            what,
        });
    }

    fn tell_of(&self, mac: MacAddr, address: IpAddr, what: What) {
        let known = self.sessions.who(address);
        let same = known.mac == Some(mac);
        self.director.event(PxeEvent {
            interface: self.interface.device.clone(),
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
