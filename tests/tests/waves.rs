//! Our agent's own fetching code against the boot services' own HTTP server, over TLS as on a host and without: when others
//! have the places of the link, it is told to come back, and does, not before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on fails

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dayzero_model::boot::{BootAction, Client};
use dayzero_model::event::What;
use dayzero_model::site::{DhcpMode, NetworkRole};
use dayzero_pxe::{
    BootDirector, BootFiles, Ipv4Prefix, Loaders, MemoryLeases, Ports, PxeConfig, PxeEvent, PxeServer,
    ScriptQuery, SeenClient, ServedInterface, ServedNetwork,
};
use dayzero_storage::source::{ChunkSource, Http, HttpChunks};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::sync::CancellationToken;

const US: Ipv4Addr = Ipv4Addr::LOCALHOST;
const CHUNK: &str = "abcd";
/// More than there are places for those whom nobody planned: half of the 64 of a link whose speed nobody tells.
const CROWD: u8 = 40;

/// Sees what the services tell; nobody boots here.
#[derive(Default)]
struct Watch(Mutex<Vec<(Instant, What)>>);

impl Watch {
    /// When a chunk was answered so.
    fn answered(&self, wanted: u16) -> Vec<Instant> {
        let is_it = |what: &What| matches!(what, What::HttpFile { path, status, .. } if *status == wanted && path.ends_with(CHUNK));
        self.0.lock().unwrap().iter().filter(|(_, what)| is_it(what)).map(|(at, _)| *at).collect()
    }
}

impl BootDirector for Watch {
    fn client(&self, _: &SeenClient) -> Client {
        Client::Unknown
    }
    fn boot_script(&self, _: &ScriptQuery) -> BootAction {
        BootAction::Refuse
    }
    fn event(&self, event: PxeEvent) {
        self.0.lock().unwrap().push((Instant::now(), event.what));
    }
}

/// A port that nobody has just now.
fn free() -> u16 {
    TcpListener::bind((US, 0)).unwrap().local_addr().unwrap().port()
}

/// The services on loopback, a server's certificate for them, and the file whose bodies take the places.
fn config(dir: &std::path::Path) -> (PxeConfig, String) {
    let chunks = dir.join("images/chunks/ab");
    std::fs::create_dir_all(&chunks).unwrap();
    std::fs::write(chunks.join(CHUNK), vec![7; 100_000]).unwrap();
    let file = |name: &str, size| {
        let path = dir.join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        (name.to_owned(), path)
    };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let network = ServedNetwork {
        mode: DhcpMode::Off,
        ..ServedNetwork::new(
            "mgmt".parse().unwrap(),
            NetworkRole::Management,
            Ipv4Prefix { address: US, len: 8 },
        )
    };
    let config = PxeConfig {
        interfaces: vec![ServedInterface { device: "lo".into(), address: US, network }],
        loaders: Loaders {
            bios: None,
            uefi_x86: None,
            uefi_x64: None,
            uefi_arm64: None,
            ..Loaders::default()
        },
        boot: BootFiles {
            files: [file("vmlinuz", 1), file("initrd.img", 1), file("large.img", 256 << 20)].into(),
            kernel: "vmlinuz".into(),
            initrd: "initrd.img".into(),
            images: Some(dir.join("images")),
        },
        tls: Some(Arc::new(tls)),
        ports: Ports { http: free(), https: free(), tftp: free(), ..Ports::default() },
        ..PxeConfig::default()
    };
    (config, made.cert.pem())
}

/// Clients at addresses of their own, each with the beginning of a large file: those of them that have a place.
fn crowd(to: SocketAddr) -> Vec<TcpStream> {
    let one = |n: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 3, 0, n], 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET /boot/file/large.img HTTP/1.1\r\nHost: a\r\nUser-Agent: iPXE/1.21.1\r\n\r\n")
            .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (&head == b"HTTP/1.1 200").then_some(stream)
    };
    (1..=CROWD).filter_map(one).collect()
}

async fn comes_back(https: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (config, certificate) = config(dir.path());
    let ports = config.ports;
    let (watch, cancel) = (Arc::new(Watch::default()), CancellationToken::new());
    let server = PxeServer::bind(config, watch.clone(), Arc::new(MemoryLeases::default())).await.unwrap();
    let serving = tokio::spawn(server.run(cancel.clone()));

    let to = SocketAddr::from((US, ports.http));
    let held = tokio::task::spawn_blocking(move || crowd(to)).await.unwrap();
    assert!(!held.is_empty() && held.len() < usize::from(CROWD), "{} have a place", held.len());

    let base = if https {
        format!("https://127.0.0.1:{}/images", ports.https)
    } else {
        format!("http://127.0.0.1:{}/images", ports.http)
    };
    let agent = HttpChunks::new(Http::for_url(&base, &certificate).unwrap(), &base);
    let fetching = tokio::spawn(async move { agent.fetch(CHUNK, 1 << 20).await });
    let begun = Instant::now();
    while watch.answered(503).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", watch.0.lock().unwrap());
        assert!(!fetching.is_finished(), "it was not told to wait: {:?}", watch.0.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(held);
    let bytes = fetching.await.unwrap().unwrap();
    let done = Instant::now();
    assert_eq!(bytes.len(), 100_000);
    assert!(bytes.iter().all(|byte| *byte == 7));
    let told = watch.answered(503);
    // A second is the least that anybody is told.
    assert!(
        done - *told.last().unwrap() >= Duration::from_secs(1),
        "it did not wait as it was told: {told:?}"
    );
    assert!(told.windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(1)), "nor each time: {told:?}");

    cancel.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_agent_comes_back_when_the_boot_server_tells_it_to() {
    comes_back(true).await;
    comes_back(false).await;
}
