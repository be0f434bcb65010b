//! The sockets of one interface's DHCP server.
//!
//! Invariants: what has arrived is handled as one batch; answers that depend on no lease (those of reservations) are sent
//! at once and wait for nothing: leases have a task of their own, [`keep_leases`], and where the store is so slow that
//! [`WAITING`] answers wait for it, more than any storm that is asked of us, the next ones are dropped: reading less instead
//! would hold up reservations, which come by the same socket. An answer that depends on a
//! lease is sent once the store has it, and those of all batches that came in while the store was busy are committed
//! together; if the store fails, they are not sent. Nothing here waits until an answer has left: see [`super::send`].

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use dayzero_model::MacAddr;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arp::{Arp, Conflict};
use super::core::{Came, DhcpCore, Handled};
use super::lease::{LeaseChange, LeaseStore};
use super::send::{Late, Told, Way};
use super::wire::{BadDatagram, Broken, MAX_DATAGRAM, Request};
use crate::director::BootDirector;
use crate::limit::Limit;
use crate::net::udp_on;
use crate::time::now;
use dayzero_model::datagram::Wire;

/// Datagrams that are read or sent in one system call.
pub(super) const AT_ONCE: usize = 64;
/// Answers that may wait for the store: a storm of 10,000 machines and more than half as many again, so that a disk that
/// stands still for all of it loses none. Beside them as many may be in the batch that is being stored. One that waits
/// takes less than 1.5 KiB, so both together at most 48 MiB for an interface; only while the store is behind, since an idle queue
/// holds nothing. Beyond, a client hears nothing and asks again.
const WAITING: usize = 16_384;

/// The server's sockets.
pub(crate) struct DhcpServer {
    /// The boot server's port, beside another DHCP server.
    boot_server: Option<UdpSocket>,
    arp: Option<Arp>,
    leases: Arc<dyn LeaseStore>,
    core: DhcpCore,
    way: Arc<Way>,
    /// Answers that their sockets had no room for.
    late: Late,
    /// Messages that break the rules.
    broken: Limit<MacAddr>,
}

/// What a server is made of.
pub(crate) struct Parts {
    pub(crate) core: DhcpCore,
    pub(crate) leases: Arc<dyn LeaseStore>,
    pub(crate) director: Arc<dyn BootDirector>,
}

struct Buffers(Vec<Vec<u8>>);

impl DhcpServer {
    /// Opens the sockets; `boot_server` is the port of proxyDHCP's second step, where it is served.
    pub(crate) fn bind(
        device: &str,
        server: SocketAddrV4,
        boot_server: Option<u16>,
        parts: Parts,
    ) -> io::Result<Self> {
        let socket = udp_on(device, server.port())?;
        let boot_server = boot_server.map(|port| udp_on(device, port)).transpose()?;
        let arp = Arp::bind(device).inspect_err(|error| {
            tracing::warn!(%error, device, "no ARP probes: an address that is in use shows only when its client declines it");
        });
        let Parts { core, leases, director } = parts;
        let (way, late) = Way::new(socket, server, core.networks(), Told::new(device, director))?;
        let broken = Limit::new("DHCP messages that break the rules");
        Ok(Self { boot_server, arp: arp.ok(), leases, core, way: Arc::new(way), late, broken })
    }

    /// Serves until `cancel`.
    ///
    /// # Errors
    /// The socket failed, or the keeper of leases ended.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> io::Result<()> {
        let (queue, waiting) = mpsc::channel(WAITING);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep_leases(Arc::clone(&self.leases), Arc::clone(&self.way), waiting));
        let mut senders = JoinSet::new();
        for (lane, answers) in std::mem::take(&mut self.late) {
            let way = Arc::clone(&self.way);
            senders.spawn(async move { way.catch_up(lane, answers).await });
        }
        let serving = with("the sender of late answers", &mut senders, self.serve(&queue, &cancel));
        let ended = with("the keeper of leases", &mut keeper, serving).await;
        // What waits for the store is stored, and its clients hear of it.
        drop(queue);
        while let Some(ended) = keeper.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, device = %self.way.told.device, "the keeper of DHCP leases ended");
            }
        }
        ended
    }

    async fn serve(&mut self, queue: &mpsc::Sender<Handled>, cancel: &CancellationToken) -> io::Result<()> {
        let mut buffers = Buffers(vec![vec![0; MAX_DATAGRAM + 1]; AT_ONCE]);
        let way = Arc::clone(&self.way);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                conflict = conflict(&mut self.arp) => {
                    let Conflict { address, expected, found, message } = conflict;
                    let wire = Wire::Arp { from: found, to: self.mac() };
                    way.told.tap(Some(expected), true, false, wire, &message);
                    let handled = self.core.conflict(address, expected, found, now());
                    self.sort(vec![handled], queue);
                }
                ready = ready(self.boot_server.as_ref()) => {
                    if let (Ok(()), Some(socket)) = (ready, &self.boot_server) {
                        let batch = self.read(socket, &mut buffers, true);
                        way.send_all(batch, port_of(socket));
                    }
                }
                ready = way.socket.readable() => {
                    ready?;
                    let batch = self.read(&way.socket, &mut buffers, false);
                    self.sort(batch, queue);
                }
            }
        }
    }

    /// Reads and handles what has arrived, at most [`AT_ONCE`] datagrams.
    fn read(&self, socket: &UdpSocket, buffers: &mut Buffers, boot_server: bool) -> Vec<Handled> {
        let device = self.way.told.device.as_str();
        let got = socket.try_io(Interest::READABLE, || receive(socket, buffers));
        let got = match got {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Vec::new(),
            Err(error) => {
                tracing::debug!(%error, device, "DHCP receive");
                return Vec::new();
            }
        };
        let at = now();
        let port = if boot_server { port_of(socket) } else { self.way.server.port() };
        let mut batch = Vec::with_capacity(got.len());
        for ((length, from, to), buffer) in got.into_iter().zip(&buffers.0) {
            let bytes = &buffer[..length];
            let wire = udp(from, SocketAddrV4::new(to, port));
            let came = Came { from, to, boot_server };
            match Request::parse(bytes) {
                Ok(request) => {
                    let handled = self.core.handle(&request, came, at);
                    self.way.told.tap(Some(request.mac), handled.of_host(), false, wire, bytes);
                    batch.push(handled);
                }
                Err(error) => {
                    tracing::debug!(%error, %from, device, "DHCP datagram ignored");
                    let (mac, of_host, handled) = refused(&self.core, &self.broken, bytes, came, &error);
                    self.way.told.tap(mac, of_host, false, wire, bytes);
                    batch.extend(handled);
                }
            }
        }
        batch
    }

    fn mac(&self) -> MacAddr {
        self.arp.as_ref().map_or(MacAddr([0; 6]), Arp::own)
    }

    /// Sends what depends on no lease, and gives the rest to the keeper of leases.
    fn sort(&mut self, batch: Vec<Handled>, queue: &mpsc::Sender<Handled>) {
        let mut ready = Vec::with_capacity(batch.len());
        for handled in batch {
            if let Some((address, expected)) = handled.probe {
                let probe = self.arp.as_mut().and_then(|arp| arp.probe(address, expected, now()));
                if let Some(probe) = probe {
                    let wire = Wire::Arp { from: self.mac(), to: MacAddr([0xff; 6]) };
                    self.way.told.tap(Some(expected), handled.of_host(), true, wire, &probe);
                }
            }
            if handled.change.is_none() {
                ready.push(handled);
            } else if let Err(error) = queue.try_send(handled) {
                let mut handled = error.into_inner();
                handled.not_stored("the store is behind with leases: it asks again");
                ready.push(handled);
            }
        }
        self.way.send_all(ready, self.way.server.port());
    }
}

/// Serves as long as who works beside it does.
async fn with(
    who: &str,
    beside: &mut JoinSet<()>,
    serving: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::select! {
        ended = serving => ended,
        Some(ended) = beside.join_next() => Err(match ended {
            Ok(()) => io::Error::other(format!("{who} ended")),
            Err(error) => io::Error::other(error),
        }),
    }
}

/// Makes leases durable and answers their clients then, until all senders of the queue are gone.
async fn keep_leases(leases: Arc<dyn LeaseStore>, way: Arc<Way>, mut queue: mpsc::Receiver<Handled>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, WAITING).await > 0 {
        let changes: Vec<LeaseChange> =
            batch.iter_mut().filter_map(|handled| handled.change.take()).collect();
        if let Err(error) = leases.commit(changes).await {
            tracing::error!(%error, device = %way.told.device, "leases not stored: their clients get no answer");
            for handled in &mut batch {
                handled.not_stored("the lease could not be stored: see the appliance's log");
            }
        }
        way.send_all(std::mem::take(&mut batch), way.server.port());
    }
}

/// Whose a datagram is that [`Request::parse`] refuses, whether that is a host, and what is told of it: within the limit.
fn refused(
    core: &DhcpCore,
    limit: &Limit<MacAddr>,
    bytes: &[u8],
    came: Came,
    error: &BadDatagram,
) -> (Option<MacAddr>, bool, Option<Handled>) {
    let Some(broken) = Broken::read(bytes) else { return (hardware_address(bytes), false, None) };
    let handled = core.broken(&broken, came, error);
    let (mac, of_host) = (broken.request.mac, handled.of_host());
    (Some(mac), of_host, Some(handled).filter(|_| limit.allows(mac, of_host, Instant::now())))
}

async fn conflict(arp: &mut Option<Arp>) -> Conflict {
    match arp {
        Some(arp) => arp.conflict(now).await,
        None => std::future::pending().await,
    }
}

async fn ready(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

pub(super) fn udp(from: SocketAddrV4, to: SocketAddrV4) -> Wire {
    Wire::Udp { from: SocketAddr::V4(from), to: SocketAddr::V4(to) }
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().map(|address| address.port()).unwrap_or_default()
}

/// The MAC in a message that is otherwise none.
fn hardware_address(bytes: &[u8]) -> Option<MacAddr> {
    let ethernet = bytes.get(1..3)? == [1, 6];
    ethernet.then(|| bytes.get(28..34)?.try_into().ok().map(MacAddr)).flatten()
}

/// Length, sender and destination of each datagram.
fn receive(socket: &UdpSocket, buffers: &mut Buffers) -> io::Result<Vec<(usize, SocketAddrV4, Ipv4Addr)>> {
    let space = nix::cmsg_space!(libc::in_pktinfo);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(buffers.0.len(), Some(space));
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.0.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let got = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?;
    let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let each = |message: nix::sys::socket::RecvMsg<'_, '_, SockaddrIn>| {
        let from = message.address.map_or(nobody, |from| SocketAddrV4::new(from.ip(), from.port()));
        let to = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
            }
            _ => None,
        });
        (message.bytes, from, to.unwrap_or(Ipv4Addr::BROADCAST))
    };
    Ok(got.map(each).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{LeasePool, PxeConfig, ServedInterface};
    use crate::dhcp::networks::Networks;
    use crate::dhcp::wire::tests::datagram;
    use crate::director::{PxeEvent, ScriptQuery, SeenClient};
    use crate::session::Sessions;
    use dayzero_model::boot::{BootAction, Client};
    use dayzero_model::event::{Ignored, What};
    use dayzero_model::site::{AddressRange, NetworkRole};
    use dhcproto::v4::{DhcpOption, Message, MessageType};
    use dhcproto::{Encodable, Encoder};
    use std::sync::Mutex;

    /// Knows one host, and keeps what it is told.
    #[derive(Default)]
    struct Keeper(Mutex<Vec<PxeEvent>>);

    const HOST: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);

    impl BootDirector for Keeper {
        fn client(&self, seen: &SeenClient) -> Client {
            let (host, address) = ("host1".parse().unwrap(), Ipv4Addr::new(10, 77, 0, 11));
            if seen.mac == HOST { Client::Bmc { host, address } } else { Client::Unknown }
        }
        fn boot_script(&self, _: &ScriptQuery) -> BootAction {
            BootAction::Refuse
        }
        fn event(&self, event: PxeEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    fn core_of(interface: &ServedInterface) -> DhcpCore {
        let config = PxeConfig { interfaces: vec![interface.clone()], ..config() };
        let networks = Arc::new(Networks::new(&config, &[]));
        DhcpCore::new(interface, &config, networks, Arc::new(Keeper::default()), Sessions::default())
    }

    fn came() -> Came {
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        Came { from, to: Ipv4Addr::BROADCAST, boot_server: false }
    }

    /// What a waiting answer holds beside itself.
    fn held(handled: &Handled) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let of = |event: &PxeEvent| {
            event.host.as_ref().map_or(0, |host| host.as_str().len())
                + match &event.what {
                    What::DhcpIn { interface, uuid, vendor_class, .. } => {
                        interface.capacity() + text(uuid) + text(vendor_class)
                    }
                    What::DhcpOut { file, .. } => text(file),
                    other => panic!("{other:?} waits for no store"),
                }
        };
        let reply = handled.reply.as_ref().map_or(0, |(bytes, _)| bytes.capacity());
        let events = handled.events.capacity() * size_of::<PxeEvent>();
        reply + events + handled.events.iter().map(of).sum::<usize>()
    }

    #[test]
    fn what_may_wait_for_the_store_fits_in_the_memory_that_is_stated() {
        let mut guest = interface(NetworkRole::Guest);
        let range = AddressRange { first: [10, 77, 0, 50].into(), last: [10, 77, 0, 59].into() };
        guest.network.pool = Some(LeasePool { range, open: true });
        let core = core_of(&guest);
        let mut message = Message::default();
        message.set_chaddr(&[2, 0, 0, 0, 0, 1]);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Request));
        options.insert(DhcpOption::RequestedIpAddress(range.first));
        options.insert(DhcpOption::ServerIdentifier(guest.address));
        options.insert(DhcpOption::ClientIdentifier(vec![7; 64]));
        options.insert(DhcpOption::MaxMessageSize(1500));
        options.insert(DhcpOption::ClassIdentifier(vec![b'v'; 255]));
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        let handled = core.handle(&Request::parse(&bytes).unwrap(), came(), now());
        assert!(handled.change.is_some(), "{handled:?}");
        let one = size_of::<Handled>() + held(&handled);
        assert!(one <= 1536, "{one} bytes");
        const { assert!(2 * WAITING * 1536 <= 48 << 20) };
    }

    /// A planned host is heard whatever strangers send; nobody's flood is told one by one.
    #[test]
    fn a_datagram_that_breaks_the_rules_is_told_with_its_client_and_a_flood_of_them_is_not() {
        let core = core_of(&interface(NetworkRole::Management));
        let limit = Limit::new("broken messages");
        let told = |mac: MacAddr, options: &[(u8, &[u8])]| {
            let mut bytes = datagram(options);
            bytes[28..34].copy_from_slice(&mac.0);
            let error = Request::parse(&bytes).unwrap_err();
            let (whose, of_host, handled) = refused(&core, &limit, &bytes, came(), &error);
            assert_eq!((whose, of_host), (Some(mac), mac == HOST), "for the recording");
            handled.map(|handled| {
                assert!(handled.reply.is_none() && handled.change.is_none());
                handled.events
            })
        };
        let stranger = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            MacAddr([2, 0, 0, a, b, c])
        };
        let short = [(53, &[1][..]), (60, b"PXEClient:Arch:00007:UNDI:003016"), (93, &[7])];
        let flood = (0..5000).filter(|n| told(stranger(*n), &short).is_some()).count();
        assert_eq!(flood, 200);
        let events = told(HOST, &short).expect("a host's, in the middle of a flood");
        assert!(events.iter().all(|event| event.mac == Some(HOST) && event.host.is_some()), "{events:?}");
        let [asked, ignored] = events.as_slice() else { panic!("{events:?}") };
        let class = |what: &What| matches!(what, What::DhcpIn { kind, .. } if kind == "DISCOVER");
        assert!(class(&asked.what) && asked.what.asks_to_boot(), "{asked:?}");
        let What::DhcpIgnored { why: Ignored::Malformed, reason } = &ignored.what else {
            panic!("{ignored:?}")
        };
        assert!(reason.contains("option 93 has 1 bytes"), "{reason}");
        let more = (0..1000).filter(|_| told(HOST, &short).is_some()).count();
        assert_eq!(more, 9, "of one client");

        // A server's answer is no client's message, and is only recorded.
        let mut answer = datagram(&short);
        answer[0] = 2;
        let error = Request::parse(&answer).unwrap_err();
        let (whose, _, handled) = refused(&core, &Limit::new("x"), &answer, came(), &error);
        assert!(whose == Some(HOST) && handled.is_none(), "{handled:?}");
    }

    #[tokio::test]
    async fn without_its_keeper_of_leases_it_does_not_go_on() {
        let mut keeper = JoinSet::new();
        keeper.spawn(async { panic!("the store breaks") });
        let error = with("the keeper", &mut keeper, std::future::pending()).await.unwrap_err().to_string();
        assert!(error.contains("the store breaks"), "{error}");
        keeper.spawn(std::future::pending());
        assert!(
            with("the keeper", &mut keeper, std::future::ready(Ok(()))).await.is_ok(),
            "it was told to end"
        );
    }
}
