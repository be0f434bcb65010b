//! The service whole, on loopback, with clients at addresses of their own: what a crowd of strangers leaves for hosts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use dayzero_model::boot::Client as Who;
use dayzero_model::site::NetworkRole;
use dayzero_model::{BootId, Timestamp};

use super::*;
use crate::config::{Ipv4Prefix, Ports, ServedNetwork};
use crate::director::SeenClient;
use crate::session::Known;

/// A director of whom nothing is asked here.
struct Silent;

impl BootDirector for Silent {
    fn client(&self, _: &SeenClient) -> Who {
        Who::Unknown
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn event(&self, _: PxeEvent) {}
}

const US: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// What a connection may take to be answered on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

/// A server with one large file, its tasks, and its address.
struct Served {
    address: SocketAddr,
    cancel: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    _file: tempfile::NamedTempFile,
}

impl Served {
    /// `hosts` so many planned hosts with an open window, from 127.1.0.1 on.
    fn start(hosts: u8, tune: impl FnOnce(&mut Shared)) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        let prefix = Ipv4Prefix { address: US, len: 8 };
        let network = ServedNetwork::new("mgmt".parse().unwrap(), NetworkRole::Management, prefix);
        let interface = ServedInterface { device: "lo".to_owned(), address: US, network };
        let config = PxeConfig {
            interfaces: vec![interface.clone()],
            ports: Ports { http: 0, https: 0, ..Ports::default() },
            boot: BootFiles {
                files: [("large.img".to_owned(), file.path().to_owned())].into(),
                ..BootFiles::default()
            },
            ..PxeConfig::default()
        };
        let sessions = Sessions::default();
        for n in 1..=hosts {
            let known =
                Known { mac: None, host: format!("host{n}").parse().ok(), boot: Some(BootId(u64::from(n))) };
            sessions.given(MacAddr([2, 0, 0, 0, 0, n]), host(n), &known, Timestamp(1));
        }
        let mut http = HttpBoot::bind(&interface, &config, &Six::new(), Arc::new(Silent), sessions).unwrap();
        tune(Arc::get_mut(&mut http.shared).unwrap());
        let address = http.listeners[0].0.local_addr().unwrap();
        let (cancel, mut tasks) = (CancellationToken::new(), tokio::task::JoinSet::new());
        let workers = Workers::start(&mut tasks, &cancel).unwrap();
        tasks.spawn(http.run(workers, cancel.clone()));
        Self { address, cancel, tasks, _file: file }
    }

    async fn end(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, 0, n)
}

fn stranger(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 2, 0, n)
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Asks for the large file, and takes no more of the answer than its head: its first line.
fn ask(mut stream: &TcpStream, agent: &str) -> io::Result<String> {
    write!(stream, "GET /boot/file/large.img HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

const OK: &str = "HTTP/1.1 200 OK";

/// Strangers that say they are firmware are served at once, as firmware must be; so is each host beside them, though the
/// link has fewer places than there are strangers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_cannot_wait_leave_places_for_hosts() {
    for agent in ["UefiHttpBoot/1.0", "GRUB 2.06-13+deb12u1"] {
        let served = Served::start(5, |shared| shared.link = Link::new(10));
        let address = served.address;
        let asking = move || {
            let strangers: Vec<TcpStream> = (1..=12).map(|n| connect(stranger(n), address)).collect();
            for stream in &strangers {
                assert_eq!(ask(stream, agent).unwrap(), OK, "who cannot wait is not told to");
            }
            let hosts: Vec<TcpStream> = (1..=5).map(|n| connect(host(n), address)).collect();
            for (n, stream) in hosts.iter().enumerate() {
                assert_eq!(
                    ask(stream, "iPXE/1.21.1+").unwrap(),
                    OK,
                    "host {n}, beside strangers with {agent}"
                );
            }
        };
        tokio::task::spawn_blocking(asking).await.unwrap();
        served.end().await;
    }
}

/// A machine with many addresses holds connections on which it asks nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_hold_connections_leave_some_for_hosts() {
    let most = Most { total: 12, strangers: 8, per_client: 4 };
    let served = Served::start(4, |shared| shared.clients = Clients::new(most));
    let address = served.address;
    let asking = move || {
        let strangers: Vec<TcpStream> = (1..=30).map(|n| connect(stranger(n), address)).collect();
        let hosts: Vec<TcpStream> = (1..=4).map(|n| connect(host(n), address)).collect();
        for (n, stream) in hosts.iter().enumerate() {
            assert_eq!(ask(stream, "iPXE/1.21.1+").unwrap(), OK, "host {n}");
        }
        // Those beyond their share were hung up on, and did not wait in front of the hosts.
        let open = strangers.iter().filter(|stream| ask(stream, "curl/8").is_ok()).count();
        assert!((1..=8).contains(&open), "{open} strangers are connected");
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
    served.end().await;
}
