//! The sockets of one interface's DHCP server.
//!
//! Invariants: what has arrived is handled as one batch; answers that depend on no lease (those of reservations) are sent
//! at once and wait for nothing: leases have a task of their own, [`keep_leases`], and where the store is so slow that
//! [`WAITING`] answers wait for it, more than any storm that is asked of us, the next ones are dropped: reading less instead
//! would hold up reservations, which come by the same socket. An answer that depends on a
//! lease is sent once the store has it, and those of all batches that came in while the store was busy are committed
//! together; if the store fails, they are not sent. Events are told before the answer goes out, so that what it leads to
//! is told after it; that it could not leave is told then. Nothing waits for an ARP answer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use dayzero_model::MacAddr;
use dayzero_model::event::What;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arp::{Arp, Conflict};
use super::core::{Came, Destination, DhcpCore, Handled};
use super::lease::{LeaseChange, LeaseStore};
use super::networks::Networks;
use super::wire::{BadDatagram, Broken, MAX_DATAGRAM, Request};
use crate::director::{BootDirector, PxeEvent};
use crate::limit::Limit;
use crate::net::{DirectSender, udp_on};
use crate::time::{micros, now};
use dayzero_model::datagram::{Datagram, Wire};

/// Datagrams that are read or sent in one system call.
const AT_ONCE: usize = 64;
/// Answers that may wait for the store: a storm of 10,000 machines and more than half as many again, so that a disk that
/// stands still for all of it loses none. Beside them as many may be in the batch that is being stored. One that waits
/// takes less than 1.5 KiB, so both together at most 48 MiB for an interface; only while the store is behind, since an idle queue
/// holds nothing. Beyond, a client hears nothing and asks again.
const WAITING: usize = 16_384;
const CLIENT_PORT: u16 = 68;

/// The server's sockets.
pub(crate) struct DhcpServer {
    /// The boot server's port, beside another DHCP server.
    boot_server: Option<UdpSocket>,
    arp: Option<Arp>,
    leases: Arc<dyn LeaseStore>,
    core: DhcpCore,
    way: Arc<Way>,
    /// Messages that break the rules.
    broken: Limit<MacAddr>,
}

/// The way out, for answers of all kinds.
struct Way {
    socket: UdpSocket,
    direct: DirectSender,
    server: SocketAddrV4,
    /// All addresses that are ours.
    networks: Arc<Networks>,
    told: Told,
}

/// What is told beside the events of what was handled.
struct Told {
    device: String,
    director: Arc<dyn BootDirector>,
    /// Lines about answers that could not be sent.
    unsent: Limit<Ipv4Addr>,
}

/// An answer on its way out.
struct Outgoing {
    bytes: Vec<u8>,
    to: SocketAddrV4,
    from: Ipv4Addr,
    /// The event that says so.
    event: Option<PxeEvent>,
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
        let direct = DirectSender::new(device)?;
        let arp = Arp::bind(device).inspect_err(|error| {
            tracing::warn!(%error, device, "no ARP probes: an address that is in use shows only when its client declines it");
        });
        let Parts { core, leases, director } = parts;
        let (networks, unsent) = (core.networks(), Limit::new("DHCP answers that could not be sent"));
        let told = Told { device: device.to_owned(), director, unsent };
        let way = Arc::new(Way { socket, direct, server, networks, told });
        let broken = Limit::new("DHCP messages that break the rules");
        Ok(Self { boot_server, arp: arp.ok(), leases, core, way, broken })
    }

    /// Serves until `cancel`.
    ///
    /// # Errors
    /// The socket failed, or the keeper of leases ended.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> io::Result<()> {
        let (queue, waiting) = mpsc::channel(WAITING);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep_leases(Arc::clone(&self.leases), Arc::clone(&self.way), waiting));
        let ended = with(&mut keeper, self.serve(&queue, &cancel)).await;
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
                    self.sort(vec![handled], queue).await;
                }
                ready = ready(self.boot_server.as_ref()) => {
                    if let (Ok(()), Some(socket)) = (ready, &self.boot_server) {
                        for handled in self.read(socket, &mut buffers, true) {
                            way.send_one(handled, socket).await;
                        }
                    }
                }
                ready = way.socket.readable() => {
                    ready?;
                    let batch = self.read(&way.socket, &mut buffers, false);
                    self.sort(batch, queue).await;
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
    async fn sort(&mut self, batch: Vec<Handled>, queue: &mpsc::Sender<Handled>) {
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
        self.way.send_all(ready).await;
    }
}

/// Serves as long as the keeper of leases does its work.
async fn with(keeper: &mut JoinSet<()>, serving: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        ended = serving => ended,
        Some(ended) = keeper.join_next() => Err(match ended {
            Ok(()) => io::Error::other("the keeper of leases ended"),
            Err(error) => io::Error::other(error),
        }),
    }
}

/// Makes leases durable and answers their clients then, until all senders of the queue are gone.
async fn keep_leases(leases: Arc<dyn LeaseStore>, way: Arc<Way>, mut queue: mpsc::Receiver<Handled>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, WAITING).await > 0 {
        let changes: Vec<LeaseChange> = batch.iter().filter_map(|handled| handled.change.clone()).collect();
        if let Err(error) = leases.commit(changes).await {
            tracing::error!(%error, device = %way.told.device, "leases not stored: their clients get no answer");
            for handled in &mut batch {
                handled.not_stored("the lease could not be stored: see the appliance's log");
            }
        }
        way.send_all(std::mem::take(&mut batch)).await;
    }
}

impl Way {
    async fn send_all(&self, batch: Vec<Handled>) {
        let mut routed: Vec<Outgoing> = Vec::with_capacity(batch.len());
        for mut handled in batch {
            let (mac, of_host) = (handled.mac(), handled.of_host());
            let event = self.told.events(&mut handled);
            let Some((bytes, to)) = handled.reply else { continue };
            let from = handled.from.unwrap_or(*self.server.ip());
            let all = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
            let at = match to {
                Destination::Unicast(at) => at,
                Destination::Broadcast => all,
                Destination::Direct(_, address) => SocketAddrV4::new(address, CLIENT_PORT),
            };
            let source = SocketAddrV4::new(from, self.server.port());
            self.told.tap(mac, of_host, true, udp(source, at), &bytes);
            match to {
                Destination::Unicast(to) => routed.push(Outgoing { bytes, to, from, event }),
                Destination::Broadcast => routed.push(Outgoing { bytes, to: all, from, event }),
                Destination::Direct(mac, _) => {
                    if let Err(error) = self.direct.send(mac, source, at, &bytes) {
                        tracing::debug!(%error, %mac, "frame not sent to its MAC: broadcasting");
                        routed.push(Outgoing { bytes, to: all, from, event });
                    }
                }
            }
        }
        // One call sends from one address.
        let mut rest = routed.as_slice();
        while let Some(Outgoing { from, .. }) = rest.first() {
            let same = rest.iter().take_while(|one| one.from == *from).count().min(AT_ONCE);
            let (part, others) = rest.split_at(same);
            self.send_from(&self.socket, part, *from).await;
            rest = others;
        }
    }

    async fn send_one(&self, mut handled: Handled, socket: &UdpSocket) {
        let (mac, of_host) = (handled.mac(), handled.of_host());
        let event = self.told.events(&mut handled);
        if let Some((bytes, Destination::Unicast(to))) = handled.reply {
            let from = *self.server.ip();
            let source = SocketAddrV4::new(from, port_of(socket));
            self.told.tap(mac, of_host, true, udp(source, to), &bytes);
            self.send_from(socket, &[Outgoing { bytes, to, from, event }], from).await;
        }
    }

    /// By the kernel's routing, from the address that is our server identifier.
    async fn send_from(&self, socket: &UdpSocket, part: &[Outgoing], from: Ipv4Addr) {
        // An override (RFC 5107) is the relay's address, which we cannot send from.
        let spec_dst = if self.networks.is_own(from) { from } else { *self.server.ip() };
        send(socket, part, spec_dst, &self.told).await;
    }
}

impl Told {
    fn tap(&self, mac: Option<MacAddr>, of_host: bool, sent: bool, wire: Wire, bytes: &[u8]) {
        let (at, interface, length) = (micros(), self.device.as_str(), bytes.len());
        self.director.datagram(&Datagram { at, interface, mac, of_host, sent, wire, bytes, length });
    }

    /// Tells what happened, and gives back what says that an answer goes out.
    fn events(&self, handled: &mut Handled) -> Option<PxeEvent> {
        let mut answer = None;
        for event in std::mem::take(&mut handled.events) {
            if matches!(event.what, What::DhcpOut { .. }) && handled.reply.is_some() {
                answer = Some(event.clone());
            }
            self.director.event(event);
        }
        answer
    }

    fn unsent(&self, answer: &Outgoing, error: &io::Error) {
        if self.unsent.allows(*answer.to.ip(), false, Instant::now()) {
            tracing::warn!(%error, to = %answer.to, device = %self.device, "DHCP answer not sent");
        }
        let to = IpAddr::V4(*answer.to.ip());
        if let Some(event) = answer.event.as_ref().and_then(|event| event.unsent(to, error)) {
            self.director.event(event);
        }
    }
}

/// Sends what leaves from one address; what does not is told, and does not stop the others.
async fn send(socket: &UdpSocket, part: &[Outgoing], spec_dst: Ipv4Addr, told: &Told) {
    let mut rest = part;
    while let Some((first, others)) = rest.split_first() {
        match socket.async_io(Interest::WRITABLE, || send_some(socket, rest, spec_dst)).await {
            Ok(count) => rest = rest.get(count.max(1)..).unwrap_or_default(),
            // It is of the first: what the kernel took before another is counted.
            Err(error) => {
                told.unsent(first, &error);
                rest = others;
            }
        }
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

fn udp(from: SocketAddrV4, to: SocketAddrV4) -> Wire {
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

/// Sends as many as the kernel takes at once, and says how many.
fn send_some(socket: &UdpSocket, part: &[Outgoing], spec_dst: Ipv4Addr) -> io::Result<usize> {
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(spec_dst).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let slices: Vec<[IoSlice<'_>; 1]> = part.iter().map(|one| [IoSlice::new(&one.bytes)]).collect();
    let to: Vec<Option<SockaddrIn>> = part.iter().map(|one| Some(SockaddrIn::from(one.to))).collect();
    let space = nix::cmsg_space!(libc::in_pktinfo);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(part.len(), Some(space));
    let control = [ControlMessage::Ipv4PacketInfo(&source)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &to, control, flags)?;
    Ok(sent.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{LeasePool, PxeConfig, ServedInterface};
    use crate::dhcp::wire::tests::datagram;
    use crate::director::{ScriptQuery, SeenClient};
    use crate::session::Sessions;
    use dayzero_model::boot::{BootAction, Client};
    use dayzero_model::event::Ignored;
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
            event.interface.capacity()
                + event.host.as_ref().map_or(0, |host| host.as_str().len())
                + match &event.what {
                    What::DhcpIn { kind, interface, uuid, vendor_class, .. } => {
                        kind.capacity() + interface.capacity() + text(uuid) + text(vendor_class)
                    }
                    What::DhcpOut { kind, file, .. } => kind.capacity() + text(file),
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

    /// The kernel refuses a broadcast on a socket that may not send one, as it refuses what a firewall or a route does not let
    /// out: the others leave, and that one's client is not held to have been answered.
    #[tokio::test]
    async fn an_answer_that_cannot_leave_is_told_and_stops_no_other() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(at) = socket.local_addr().unwrap() else { panic!() };
        let director = Arc::new(Keeper::default());
        let unsent = Limit::new("answers");
        let told = Told { device: "mgmt0".into(), director: Arc::clone(&director) as _, unsent };
        let answer = |n: u8, to: SocketAddrV4| {
            let what = What::DhcpOut { kind: "OFFER".into(), address: None, file: Some("x".into()) };
            let mac = Some(MacAddr([2, 0, 0, 0, 0, n]));
            let (interface, host) = ("mgmt0".to_owned(), Some("host1".parse().unwrap()));
            let event = Some(PxeEvent { interface, mac, host, boot: None, what });
            Outgoing { bytes: vec![n], to, from: *at.ip(), event }
        };
        let all = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
        send(&socket, &[answer(1, at), answer(2, all), answer(3, at), answer(4, all)], *at.ip(), &told).await;
        let mut got = [0; 8];
        for n in [1, 3] {
            assert_eq!((socket.recv(&mut got).await.unwrap(), got[0]), (1, n));
        }
        let events = director.0.lock().unwrap();
        let who: Vec<_> = events.iter().map(|event| event.mac.unwrap().0[5]).collect();
        assert_eq!(who, [2, 4]);
        for event in events.iter() {
            let What::DhcpUnsent { kind, to, error } = &event.what else { panic!("{event:?}") };
            assert_eq!((kind.as_str(), *to, event.host.is_some()), ("OFFER", IpAddr::V4(*all.ip()), true));
            assert!(error.contains("Permission denied"), "{error}");
        }
    }

    #[tokio::test]
    async fn without_its_keeper_of_leases_it_does_not_go_on() {
        let mut keeper = JoinSet::new();
        keeper.spawn(async { panic!("the store breaks") });
        let error = with(&mut keeper, std::future::pending()).await.unwrap_err().to_string();
        assert!(error.contains("the store breaks"), "{error}");
        keeper.spawn(std::future::pending());
        assert!(with(&mut keeper, std::future::ready(Ok(()))).await.is_ok(), "it was told to end");
    }
}
