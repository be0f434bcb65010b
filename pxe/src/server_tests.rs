//! The services whole, on loopback: what goes on while a plan is followed, and what ends when one of them does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dayzero_model::boot::{BootAction, Client};
use dayzero_model::site::{DhcpMode, NetworkRole};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::*;
use crate::config::{Ipv4Prefix, Loaders, NameZone, Ports, ServedNetwork};
use crate::dhcp::lease::MemoryLeases;
use crate::director::{PxeEvent, ScriptQuery, SeenClient};

const US: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// What anything may take on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);
/// Of a file in four blocks.
const SIZE: usize = 2000;

/// Panics at the next event, once it is told to.
#[derive(Default)]
struct Fragile(AtomicBool);

impl BootDirector for Fragile {
    fn client(&self, _: &SeenClient) -> Client {
        Client::Unknown
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn event(&self, _: PxeEvent) {
        assert!(!self.0.load(Ordering::Relaxed), "it breaks, as it was told to");
    }
}

/// A port that nobody has just now, of TCP or of UDP.
fn free() -> u16 {
    loop {
        let port = TcpListener::bind((US, 0)).unwrap().local_addr().unwrap().port();
        if UdpSocket::bind((US, port)).is_ok() {
            return port;
        }
    }
}

/// DNS, TFTP and HTTP boot for hosts of these names. No DHCP and no advertisements: they need rights.
fn services(ports: Ports, hosts: &[&str]) -> PxeConfig {
    let prefix = Ipv4Prefix { address: US, len: 8 };
    let network = ServedNetwork::new("mgmt".parse().unwrap(), NetworkRole::Management, prefix);
    let network = ServedNetwork { mode: DhcpMode::Off, dns: vec![US], ..network };
    let named = |(n, host): (usize, &&str)| {
        let address = Ipv4Addr::new(127, 0, 1, u8::try_from(n).unwrap());
        (host.parse().unwrap(), vec![address.into()])
    };
    let names = hosts.iter().enumerate().map(named).collect();
    PxeConfig {
        interfaces: vec![ServedInterface { device: "lo".into(), address: US, network }],
        names: NameZone { domain: "lab.example".into(), names, ..NameZone::default() },
        loaders: Loaders { bios: None, uefi_x64: None, ..Loaders::default() },
        tftp: [("large".to_owned(), Bytes::from(vec![7; SIZE]))].into(),
        ports,
        ..crate::config::tests::config()
    }
}

fn ports() -> Ports {
    Ports { http: free(), https: free(), tftp: free(), dns: free(), ..Ports::default() }
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind((US, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn question(host: &str) -> Vec<u8> {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(host).unwrap(), RecordType::A));
    question.to_vec().unwrap()
}

fn answer(bytes: &[u8]) -> String {
    let message = Message::from_vec(bytes).unwrap();
    match (message.metadata.response_code, message.answers.first()) {
        (ResponseCode::NoError, Some(record)) => record.data.to_string(),
        (code, _) => code.to_string(),
    }
}

fn resolve(port: u16, host: &str) -> String {
    let (socket, mut buffer) = (client(), [0; 1500]);
    socket.send_to(&question(host), (US, port)).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    answer(&buffer[..length])
}

/// One more question on a connection.
fn converse(mut stream: &TcpStream, host: &str) -> String {
    let question = question(host);
    stream
        .write_all(&[&u16::try_from(question.len()).unwrap().to_be_bytes()[..], &question].concat())
        .unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    answer(&bytes)
}

/// A transfer at our pace.
struct Transfer {
    socket: UdpSocket,
    file: Vec<u8>,
    number: u16,
}

impl Transfer {
    /// Its first block is here, and is not acknowledged yet.
    fn begin(port: u16) -> Self {
        let socket = client();
        socket.send_to(b"\0\x01large\0octet\0", (US, port)).unwrap();
        let mut block = [0; 600];
        let (length, from) = socket.recv_from(&mut block).unwrap();
        assert_eq!(block[..4], [0, 3, 0, 1], "the first block");
        socket.connect(from).unwrap();
        Self { socket, file: block[4..length].to_vec(), number: 1 }
    }

    /// Acknowledges, and takes the next block; no: that was the last one.
    fn step(&mut self) -> bool {
        let [high, low] = self.number.to_be_bytes();
        self.socket.send(&[0, 4, high, low]).unwrap();
        if self.file.len() < usize::from(self.number) * 512 {
            return false;
        }
        self.number += 1;
        let mut block = [0; 600];
        // What was sent again while nobody listened comes first.
        let length = loop {
            let length = self.socket.recv(&mut block).expect("the transfer goes on");
            assert_eq!(block[..2], [0, 3], "{:?}", String::from_utf8_lossy(&block[4..length]));
            if block[2..4] == self.number.to_be_bytes() {
                break length;
            }
        };
        self.file.extend_from_slice(&block[4..length]);
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_adds_hosts_is_told_at_once_and_a_transfer_goes_on() {
    let ports = ports();
    let (director, leases) = (Arc::new(Fragile::default()), Arc::new(MemoryLeases::default()));
    let server = PxeServer::bind(services(ports, &["host1"]), director, leases).await.unwrap();
    let (live, cancel) = (server.live(), CancellationToken::new());
    let running = tokio::spawn(server.run(cancel.clone()));

    let mut transfer = Transfer::begin(ports.tftp);
    assert!(transfer.step(), "the second block waits");
    let connection = TcpStream::connect((US, ports.dns)).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(resolve(ports.dns, "host1.lab.example."), "127.0.1.0");
    assert_eq!(resolve(ports.dns, "host2.lab.example."), ResponseCode::NXDomain.to_string());

    let mut after = services(ports, &["host1", "host2", "pdu1"]);
    after.interfaces[0].network.gateway = Some(Ipv4Addr::new(127, 0, 0, 9));
    live.follow(&after).await.unwrap();
    assert_eq!(converse(&connection, "host2.lab.example."), "127.0.1.1", "on a connection of before");
    assert_eq!(resolve(ports.dns, "pdu1.lab.example."), "127.0.1.2");
    after.names.domain = "new.example".into();
    live.follow(&after).await.unwrap();
    assert_eq!(resolve(ports.dns, "host2.new.example."), "127.0.1.1");
    assert_eq!(resolve(ports.dns, "host2.lab.example."), ResponseCode::Refused.to_string());
    while transfer.step() {}
    assert_eq!(transfer.file, vec![7; SIZE]);

    after.interfaces[0].network.dns.clear();
    after.names.domain = "other.example".into();
    assert!(matches!(live.follow(&after).await, Err(StartError::Sockets)));
    assert_eq!(resolve(ports.dns, "host2.new.example."), "127.0.1.1", "nothing was changed");
    cancel.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_breaks_off_is_named_and_the_others_end() {
    let ports = ports();
    let (director, leases) = (Arc::new(Fragile::default()), Arc::new(MemoryLeases::default()));
    let (config, told) = (services(ports, &["host1"]), Arc::clone(&director));
    let server = PxeServer::bind(config, told, leases).await.unwrap();
    let running = tokio::spawn(server.run(CancellationToken::new()));
    assert_eq!(resolve(ports.dns, "host1.lab.example."), "127.0.1.0");

    director.0.store(true, Ordering::Relaxed);
    client().send_to(b"\0\x01missing\0octet\0", (US, ports.tftp)).unwrap();
    let ended = tokio::time::timeout(SOON, running).await.expect("it does not go on without TFTP");
    let error = ended.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "TFTP ended");
    let why = error.source.unwrap().to_string();
    assert!(why.contains("it breaks, as it was told to"), "{why}");
    UdpSocket::bind((US, ports.dns)).expect("DNS has ended");
    TcpListener::bind((US, ports.http)).expect("HTTP boot has ended");
}

#[tokio::test]
async fn the_first_that_ends_by_itself_is_named_and_ends_the_others() {
    async fn breaks_off() -> io::Result<()> {
        panic!("out of luck")
    }
    let fates: [(BoxFuture<'static, io::Result<()>>, Option<&str>); 3] = [
        (async { Ok(()) }.boxed(), None),
        (async { Err(io::Error::other("no socket")) }.boxed(), Some("no socket")),
        (breaks_off().boxed(), Some("out of luck")),
    ];
    let until = |end: CancellationToken| async move {
        end.cancelled().await;
        Ok(())
    };
    for (fate, why) in fates {
        let (end, mut running) = (CancellationToken::new(), Running::default());
        running.add("DNS on mgmt0".to_owned(), until(end.clone()));
        running.add("DHCP on mgmt0".to_owned(), fate);
        let error = running.until_end(&end).await.unwrap_err();
        assert_eq!(error.to_string(), "DHCP on mgmt0 ended");
        let told = error.source.map(|source| source.to_string());
        assert_eq!(told.is_some(), why.is_some(), "{told:?}");
        assert!(why.is_none_or(|why| told.unwrap().contains(why)));
    }
    let (end, mut running) = (CancellationToken::new(), Running::default());
    running.add("DNS on mgmt0".to_owned(), until(end.clone()));
    running.threads.spawn(async { panic!("out of luck") });
    let error = running.until_end(&end).await.unwrap_err();
    assert_eq!(error.to_string(), "the threads of HTTP boot ended");

    let (end, mut running) = (CancellationToken::new(), Running::default());
    running.add("DNS on mgmt0".to_owned(), until(end.clone()));
    end.cancel();
    assert!(running.until_end(&end).await.is_ok(), "as it was told to");
}
