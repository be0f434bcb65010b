//! The sockets of one interface's DHCP server.
//!
//! Invariants: what has arrived is handled as one batch; answers that depend on no lease (those of reservations) are sent
//! at once and wait for nothing: leases have a task of their own, [`keep_leases`], and where the store is so slow that
//! [`WAITING`] answers wait for it, more than any storm that is asked of us, the next ones are dropped: reading less instead
//! would hold up reservations, which come by the same socket. An answer that depends on a
//! lease is sent once the store has it, and those of all batches that came in while the store was busy are committed
//! together; if the store fails, they are not sent. Events are told before the answer goes out, so that what it leads to
//! is told after it. Nothing waits for an ARP answer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dayzero_model::{MacAddr, Timestamp};
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
use super::wire::{MAX_DATAGRAM, Request};
use crate::director::BootDirector;
use crate::limit::Limit;
use crate::net::{DirectSender, udp_on};
use dayzero_model::datagram::{Datagram, Wire};

/// Datagrams that are read or sent in one system call.
const AT_ONCE: usize = 64;
/// Answers that may wait for the store: a storm of 10,000 machines and more than half as many again, so that a disk that
/// stands still for all of it loses none. Beside them as many may be in the batch that is being stored. One that waits
/// takes less than 1.5 KiB, so both together at most 48 MiB for an interface; only while the store is behind, since an idle queue
/// holds nothing. Beyond, a client hears nothing and asks again.
const WAITING: usize = 16_384;
const CLIENT_PORT: u16 = 68;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// For datagrams, whose order matters to the microsecond.
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The server's sockets.
pub(crate) struct DhcpServer {
    /// The boot server's port, beside another DHCP server.
    boot_server: Option<UdpSocket>,
    arp: Option<Arp>,
    leases: Arc<dyn LeaseStore>,
    core: DhcpCore,
    way: Arc<Way>,
}

/// The way out, for answers of all kinds.
struct Way {
    socket: UdpSocket,
    direct: DirectSender,
    device: String,
    server: SocketAddrV4,
    /// All addresses that are ours.
    networks: Arc<Networks>,
    director: Arc<dyn BootDirector>,
    /// Answers that could not be sent.
    unsent: Limit<Ipv4Addr>,
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
        let way = Way { socket, direct, device: device.to_owned(), server, networks, director, unsent };
        Ok(Self { boot_server, arp: arp.ok(), leases, core, way: Arc::new(way) })
    }

    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let (queue, waiting) = mpsc::channel(WAITING);
        let mut keeper = JoinSet::new();
        keeper.spawn(keep_leases(Arc::clone(&self.leases), Arc::clone(&self.way), waiting));
        self.serve(&queue, &cancel).await;
        // What waits for the store is stored, and its clients hear of it.
        drop(queue);
        while let Some(ended) = keeper.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, device = %self.way.device, "the keeper of DHCP leases ended");
            }
        }
    }

    async fn serve(&mut self, queue: &mpsc::Sender<Handled>, cancel: &CancellationToken) {
        let mut buffers = Buffers(vec![vec![0; MAX_DATAGRAM + 1]; AT_ONCE]);
        let way = Arc::clone(&self.way);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                conflict = conflict(&mut self.arp) => {
                    let Conflict { address, expected, found, message } = conflict;
                    let wire = Wire::Arp { from: found, to: self.mac() };
                    way.tap(Some(expected), true, false, wire, &message);
                    let handled = self.core.conflict(address, expected, found, now());
                    self.sort(vec![handled], queue).await;
                }
                ready = ready(self.boot_server.as_ref()) => {
                    if let (Ok(()), Some(socket)) = (ready, &self.boot_server) {
                        for handled in self.read(socket, &mut buffers, true) {
                            way.told(handled, socket).await;
                        }
                    }
                }
                ready = way.socket.readable() => {
                    if let Err(error) = ready {
                        tracing::warn!(%error, device = %way.device, "DHCP socket");
                        return;
                    }
                    let batch = self.read(&way.socket, &mut buffers, false);
                    self.sort(batch, queue).await;
                }
            }
        }
    }

    /// Reads and handles what has arrived, at most [`AT_ONCE`] datagrams.
    fn read(&self, socket: &UdpSocket, buffers: &mut Buffers, boot_server: bool) -> Vec<Handled> {
        let device = self.way.device.as_str();
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
            match Request::parse(bytes) {
                Ok(request) => {
                    let handled = self.core.handle(&request, Came { from, to, boot_server }, at);
                    self.way.tap(Some(request.mac), handled.of_host(), false, wire, bytes);
                    batch.push(handled);
                }
                Err(error) => {
                    tracing::debug!(%error, %from, device, "DHCP datagram ignored");
                    self.way.tap(hardware_address(bytes), false, false, wire, bytes);
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
                    self.way.tap(Some(expected), handled.of_host(), true, wire, &probe);
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

/// Makes leases durable and answers their clients then, until all senders of the queue are gone.
async fn keep_leases(leases: Arc<dyn LeaseStore>, way: Arc<Way>, mut queue: mpsc::Receiver<Handled>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, WAITING).await > 0 {
        let changes: Vec<LeaseChange> = batch.iter().filter_map(|handled| handled.change.clone()).collect();
        if let Err(error) = leases.commit(changes).await {
            tracing::error!(%error, device = %way.device, "leases not stored: their clients get no answer");
            for handled in &mut batch {
                handled.not_stored("the lease could not be stored: see the appliance's log");
            }
        }
        way.send_all(std::mem::take(&mut batch)).await;
    }
}

impl Way {
    fn tap(&self, mac: Option<MacAddr>, of_host: bool, sent: bool, wire: Wire, bytes: &[u8]) {
        let (at, interface, length) = (micros(), self.device.as_str(), bytes.len());
        self.director.datagram(&Datagram { at, interface, mac, of_host, sent, wire, bytes, length });
    }

    async fn send_all(&self, batch: Vec<Handled>) {
        let mut routed: Vec<(Vec<u8>, SocketAddrV4, Ipv4Addr)> = Vec::with_capacity(batch.len());
        for handled in batch {
            let (mac, of_host) = (handled.mac(), handled.of_host());
            for event in handled.events {
                self.director.event(event);
            }
            let Some((bytes, to)) = handled.reply else { continue };
            let from = handled.from.unwrap_or(*self.server.ip());
            let all = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
            let at = match to {
                Destination::Unicast(at) => at,
                Destination::Broadcast => all,
                Destination::Direct(_, address) => SocketAddrV4::new(address, CLIENT_PORT),
            };
            let source = SocketAddrV4::new(from, self.server.port());
            self.tap(mac, of_host, true, udp(source, at), &bytes);
            match to {
                Destination::Unicast(at) => routed.push((bytes, at, from)),
                Destination::Broadcast => routed.push((bytes, all, from)),
                Destination::Direct(mac, _) => {
                    if let Err(error) = self.direct.send(mac, source, at, &bytes) {
                        tracing::debug!(%error, %mac, "frame not sent to its MAC: broadcasting");
                        routed.push((bytes, all, from));
                    }
                }
            }
        }
        // One call sends from one address.
        let mut rest = routed.as_slice();
        while let Some((_, _, from)) = rest.first() {
            let same = rest.iter().take_while(|one| one.2 == *from).count().min(AT_ONCE);
            let (part, others) = rest.split_at(same);
            self.send_from(&self.socket, part, *from).await;
            rest = others;
        }
    }

    async fn told(&self, handled: Handled, socket: &UdpSocket) {
        let (mac, of_host) = (handled.mac(), handled.of_host());
        for event in handled.events {
            self.director.event(event);
        }
        if let Some((bytes, Destination::Unicast(to))) = handled.reply {
            let source = SocketAddrV4::new(*self.server.ip(), port_of(socket));
            self.tap(mac, of_host, true, udp(source, to), &bytes);
            self.send_from(socket, &[(bytes, to, *self.server.ip())], *self.server.ip()).await;
        }
    }

    /// By the kernel's routing, from the address that is our server identifier.
    async fn send_from(
        &self,
        socket: &UdpSocket,
        part: &[(Vec<u8>, SocketAddrV4, Ipv4Addr)],
        from: Ipv4Addr,
    ) {
        // An override (RFC 5107) is the relay's address, which we cannot send from.
        let spec_dst = if self.networks.is_own(from) { from } else { *self.server.ip() };
        let mut sent = 0;
        while sent < part.len() {
            let result =
                socket.async_io(Interest::WRITABLE, || send_some(socket, &part[sent..], spec_dst)).await;
            match result {
                Ok(count) => sent += count.max(1),
                Err(error) => {
                    let to = part.get(sent).map(|one| one.1);
                    let client = to.map_or(Ipv4Addr::UNSPECIFIED, |to| *to.ip());
                    if self.unsent.allows(client, false, Instant::now()) {
                        tracing::warn!(%error, ?to, device = %self.device, "DHCP answer not sent");
                    }
                    sent += 1;
                }
            }
        }
    }
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
fn send_some(
    socket: &UdpSocket,
    part: &[(Vec<u8>, SocketAddrV4, Ipv4Addr)],
    spec_dst: Ipv4Addr,
) -> io::Result<usize> {
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(spec_dst).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let slices: Vec<[IoSlice<'_>; 1]> = part.iter().map(|(bytes, ..)| [IoSlice::new(bytes)]).collect();
    let to: Vec<Option<SockaddrIn>> = part.iter().map(|(_, to, _)| Some(SockaddrIn::from(*to))).collect();
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
    use crate::config::{LeasePool, PxeConfig};
    use crate::director::{PxeEvent, ScriptQuery, SeenClient};
    use crate::session::Sessions;
    use dayzero_model::boot::{BootAction, Client};
    use dayzero_model::event::What;
    use dayzero_model::site::{AddressRange, NetworkRole};
    use dhcproto::v4::{DhcpOption, Message, MessageType};
    use dhcproto::{Encodable, Encoder};

    struct Nobody;

    impl BootDirector for Nobody {
        fn client(&self, _: &SeenClient) -> Client {
            Client::Unknown
        }
        fn boot_script(&self, _: &ScriptQuery) -> BootAction {
            BootAction::Refuse
        }
        fn event(&self, _: PxeEvent) {}
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
        let config = PxeConfig { interfaces: vec![guest.clone()], ..config() };
        let networks = Arc::new(Networks::new(&config, &[]));
        let core = DhcpCore::new(&guest, &config, networks, Arc::new(Nobody), Sessions::default());
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
        let came = Came {
            from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
            to: Ipv4Addr::BROADCAST,
            boot_server: false,
        };
        let handled = core.handle(&Request::parse(&bytes).unwrap(), came, now());
        assert!(handled.change.is_some(), "{handled:?}");
        let one = size_of::<Handled>() + held(&handled);
        assert!(one <= 1536, "{one} bytes");
        const { assert!(2 * WAITING * 1536 <= 48 << 20) };
    }
}
