//! HTTP boot: scripts, kernel and initramfs, image manifests and chunks.
//!
//! `GET`/`HEAD` of `/boot/script?mac=…`, `/boot/file/<name>` and `/images/<path>`; anything else is refused. Invariants:
//! nothing secret is served and no request changes a state (a fetched script ends that client's boot session, which
//! only chooses between our own loader and script); names are looked up in a map, or checked part by part beneath the
//! images' root; connections are bounded for all and for each client, a waiting one stays in the backlog.

mod files;
mod range;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dayzero_model::MacAddr;
use dayzero_model::event::What;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{BootFiles, Loaders, PxeConfig, ServedInterface, plain_name};
use crate::dhcp::serve::now;
use crate::director::{BootDirector, PxeEvent, ScriptQuery};
use crate::net::tcp_on;
use crate::script::{Place, script};
use crate::session::Sessions;
use files::{Body, Content, text};

/// Connections at once.
const CONNECTIONS: usize = 1024;
/// Connections of one client at once.
const PER_CLIENT: usize = 32;
/// A client must send a request's head, or take some of the answer, within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Parts of an image path.
const DEPTH: usize = 5;

/// The URL of a client's boot script.
pub(crate) fn script_url(server: SocketAddrV4, mac: MacAddr) -> String {
    format!("http://{server}/boot/script?mac={mac}")
}

struct Shared {
    interface: ServedInterface,
    address: SocketAddrV4,
    boot: BootFiles,
    loaders: Loaders,
    tftp: BTreeMap<String, Bytes>,
    director: Arc<dyn BootDirector>,
    sessions: Sessions,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// HTTP boot on one interface.
pub(crate) struct HttpBoot {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl HttpBoot {
    pub(crate) fn bind(
        interface: &ServedInterface,
        config: &PxeConfig,
        director: Arc<dyn BootDirector>,
        sessions: Sessions,
    ) -> io::Result<Self> {
        let address = SocketAddrV4::new(interface.address, config.ports.http);
        let listener = tcp_on(&interface.device, address)?;
        let shared = Shared {
            interface: interface.clone(),
            address,
            boot: config.boot.clone(),
            loaders: config.loaders.clone(),
            tftp: config.tftp.clone(),
            director,
            sessions,
            clients: Mutex::default(),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let Some(client) = Client::enter(peer.ip(), &self.shared) else { continue };
                    connections.spawn(async move {
                        serve(stream, peer, &client).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for connections to end rather than spin.
                    tracing::warn!(%error, "HTTP boot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.shutdown().await;
    }
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

async fn serve(stream: TcpStream, peer: SocketAddr, client: &Client) {
    let socket = socket2::SockRef::from(&stream);
    let prepared = socket.set_tcp_user_timeout(Some(PATIENCE)).and_then(|()| socket.set_tcp_nodelay(true));
    if let Err(error) = prepared {
        tracing::debug!(%error, %peer, "HTTP boot connection");
        return;
    }
    let service = service_fn(|request| {
        let shared = Arc::clone(&client.shared);
        async move { Ok::<_, Infallible>(shared.answer(request, peer).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 * 1024);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, %peer, "HTTP boot connection");
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let path = request.uri().path().to_owned();
        if path == "/boot/script" {
            return self.script(request.uri().query().unwrap_or_default(), peer);
        }
        let found = if let Some(name) = path.strip_prefix("/boot/file/") {
            self.boot_file(name).await
        } else if let Some(rest) = path.strip_prefix("/images/") {
            self.image(rest).await
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        };
        match found {
            Ok(content) => self.send(content, &request, path, peer).await,
            Err(error) => {
                let status = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StatusCode::NOT_FOUND,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                tracing::warn!(%error, %path, %peer, "HTTP boot file not served");
                self.tell(
                    peer,
                    What::HttpFile { path: shown(&path), peer: peer.ip(), status: status.as_u16(), bytes: 0 },
                );
                text(status, format!("{status}\n"))
            }
        }
    }

    async fn boot_file(&self, name: &str) -> io::Result<Content> {
        if let Some(path) = self.boot.files.get(name) {
            return Content::disk(path).await;
        }
        match self.tftp.get(name) {
            Some(bytes) => Ok(Content::memory(bytes.clone())),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    async fn image(&self, rest: &str) -> io::Result<Content> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let mut path: PathBuf = self.boot.images.clone().ok_or_else(missing)?;
        for (depth, part) in rest.split('/').enumerate() {
            if depth >= DEPTH || !plain_name(part) {
                return Err(missing());
            }
            path.push(part);
        }
        Content::disk(&path).await
    }

    async fn send(
        self: &Arc<Self>,
        content: Content,
        request: &Request<Incoming>,
        path: String,
        peer: SocketAddr,
    ) -> Response<Body> {
        let head = *request.method() == Method::HEAD;
        let status = Arc::new(Mutex::new(StatusCode::OK));
        let (told, shared) = (Arc::clone(&status), Arc::clone(self));
        let report = Box::new(move |bytes| {
            // Chunks come by the hundred: only what failed is worth an event.
            if head || path.starts_with("/images/") {
                return;
            }
            let status = *told.lock().unwrap_or_else(PoisonError::into_inner);
            shared.fetched(&path, status, bytes, peer);
        });
        match content.answer(request.headers(), head, report).await {
            Ok(response) => {
                *status.lock().unwrap_or_else(PoisonError::into_inner) = response.status();
                response
            }
            Err(error) => {
                tracing::warn!(%error, %peer, "HTTP boot file not read");
                text(StatusCode::INTERNAL_SERVER_ERROR, "500\n")
            }
        }
    }

    fn fetched(&self, path: &str, status: StatusCode, bytes: u64, peer: SocketAddr) {
        let name = path.strip_prefix("/boot/file/").unwrap_or_default();
        let whole = self.tftp.get(name).is_some_and(|file| file.len() as u64 == bytes);
        if let IpAddr::V4(address) = peer.ip()
            && whole
            && status == StatusCode::OK
            && self.loaders.is_loader(name)
        {
            self.sessions.loader_fetched(address, now());
        }
        self.tell(
            peer,
            What::HttpFile { path: shown(path), peer: peer.ip(), status: status.as_u16(), bytes },
        );
    }

    fn script(&self, query: &str, peer: SocketAddr) -> Response<Body> {
        let mac =
            query.split('&').find_map(|pair| pair.strip_prefix("mac=")).map(|mac| mac.replace("%3A", ":"));
        let Some(mac) = mac.and_then(|mac| mac.replace("%3a", ":").parse::<MacAddr>().ok()) else {
            return text(StatusCode::BAD_REQUEST, "ask for /boot/script?mac=52:54:00:12:34:56\n");
        };
        let IpAddr::V4(address) = peer.ip() else {
            return text(StatusCode::BAD_REQUEST, "scripts are served by IPv4\n");
        };
        let leased_to = self.sessions.who(address).mac;
        let network = self.interface.network.name.clone();
        let action = self.director.boot_script(&ScriptQuery { mac, peer: address, leased_to, network });
        let place = Place { server: self.address, kernel: &self.boot.kernel, initrd: &self.boot.initrd };
        match script(&action, mac, &place) {
            Ok(body) => {
                if leased_to == Some(mac) {
                    self.sessions.script_fetched(mac);
                }
                self.tell_of(mac, address, What::Script { action, peer: peer.ip() });
                text(StatusCode::OK, body)
            }
            Err(error) => {
                tracing::error!(%error, %mac, "no boot script");
                let (path, status) = ("/boot/script".to_owned(), StatusCode::INTERNAL_SERVER_ERROR);
                self.tell_of(
                    mac,
                    address,
                    What::HttpFile { path, peer: peer.ip(), status: status.as_u16(), bytes: 0 },
                );
                text(status, format!("no script: {error}\n"))
            }
        }
    }

    fn tell(&self, peer: SocketAddr, what: What) {
        let IpAddr::V4(address) = peer.ip() else { return };
        let known = self.sessions.who(address);
        self.director.event(PxeEvent {
            interface: self.interface.device.clone(),
            mac: known.mac,
            host: known.host,
            boot: known.boot,
            what,
        });
    }

    fn tell_of(&self, mac: MacAddr, address: Ipv4Addr, what: What) {
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

/// A path from the network, fit for a log.
fn shown(path: &str) -> String {
    path.chars().take(200).map(|c| if c.is_ascii_graphic() { c } else { '.' }).collect()
}
