//! The socket of one interface's DHCPv6 server.
//!
//! Invariants: an answer that the socket has no room for is told as unsent, and the loop reads on: what waits for neighbours
//! that answer nothing holds up nobody's question. A client whose link-local address is made of its MAC, as firmware's is, is
//! answered at that MAC: its answer waits for no neighbour, and for no room either.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::core::{ALL_AGENTS, Came, Core};
use super::wire::{BadMessage, MAX_DATAGRAM, Message, eui64};
use crate::director::{BootDirector, PxeEvent};
use crate::limit::Limit;
use crate::net::{DirectSender, device_index, link_local, send_buffer};
use crate::time::{micros, now};
use dayzero_model::datagram::{Datagram, Wire};
use dayzero_model::event::What;

pub(crate) const SERVER_PORT: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
const RECEIVE_BUFFER: usize = 4 << 20;
/// A link-local address seldom changes, and looking at the devices costs more than an answer.
const OWN_FOR: Duration = Duration::from_secs(1);

/// DHCPv6 on one interface.
pub(crate) struct Server {
    socket: UdpSocket,
    core: Core,
    device: String,
    director: Arc<dyn BootDirector>,
    /// Lines about answers that could not be sent.
    unsent: Limit<Ipv6Addr>,
    /// Messages that break the rules.
    broken: Limit<MacAddr>,
    /// To MACs of the segment.
    frames: Option<DirectSender>,
    /// Our own link-local address, and when it was looked up.
    own: Mutex<Option<(Ipv6Addr, Instant)>>,
}

impl Server {
    /// # Errors
    /// The port is taken, the device is missing, or the kernel has no IPv6.
    pub(crate) fn bind(device: &str, core: Core, director: Arc<dyn BootDirector>) -> io::Result<Self> {
        let index = u32::try_from(device_index(device)?).unwrap_or_default();
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_only_v6(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        send_buffer(&socket);
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0).into())?;
        socket.join_multicast_v6(&ALL_AGENTS, index)?;
        socket.join_multicast_v6(&ALL_SERVERS, index)?;
        socket.set_multicast_if_v6(index)?;
        let socket = UdpSocket::from_std(socket.into())?;
        let frames = Some(DirectSender::new(device)?);
        Ok(Self { frames, ..Self::with(socket, device, core, director) })
    }

    fn with(socket: UdpSocket, device: &str, core: Core, director: Arc<dyn BootDirector>) -> Self {
        let unsent = Limit::new("DHCPv6 answers that could not be sent");
        let broken = Limit::new("DHCPv6 messages that break the rules");
        let (device, frames, own) = (device.to_owned(), None, Mutex::default());
        Self { socket, core, device, director, unsent, broken, frames, own }
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            let got = tokio::select! {
                () = cancel.cancelled() => return,
                got = self.socket.async_io(Interest::READABLE, || receive(&self.socket, &mut buffer)) => got,
            };
            let (length, from, to) = match got {
                Ok(got) => got,
                Err(error) => {
                    tracing::debug!(%error, device = %self.device, "DHCPv6 receive");
                    continue;
                }
            };
            self.received(&buffer[..length], from, to);
        }
    }

    fn received(&self, bytes: &[u8], from: SocketAddrV6, to: Ipv6Addr) {
        let came = Came { from: *from.ip(), to };
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, %from, device = %self.device, "DHCPv6 datagram ignored");
                return self.refused(bytes, from, came, &error);
            }
        };
        let handled = self.core.handle(&message, came, now());
        let client = handled.client();
        self.tap(client, from, to, false, bytes);
        let sent = |event: &&PxeEvent| matches!(event.what, What::DhcpOut { .. });
        let answer = handled.events.iter().rev().find(sent).cloned();
        for event in handled.events {
            self.director.event(event);
        }
        let Some(reply) = handled.reply else { return };
        self.tap(client, from, to, true, &reply);
        // To where it came from: a client's port 546, a relay's 547.
        let Err(error) = self.send(&reply, from) else { return };
        if self.unsent.allows(*from.ip(), false, Instant::now()) {
            tracing::warn!(%error, %from, device = %self.device, "DHCPv6 answer not sent");
        }
        let to = IpAddr::V6(*from.ip());
        if let Some(event) = answer.and_then(|event| event.unsent(to, &error)) {
            self.director.event(event);
        }
    }

    fn send(&self, reply: &[u8], to: SocketAddrV6) -> io::Result<()> {
        if let (Some(frames), Some(mac)) = (&self.frames, eui64(*to.ip()))
            && let Some(own) = self.link_local()
        {
            match frames.send6(mac, SocketAddrV6::new(own, SERVER_PORT, 0, 0), to, reply) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, %mac, "frame not sent to its MAC: by the kernel's routing")
                }
            }
        }
        SockRef::from(&self.socket).send_to(reply, &to.into()).map(drop)
    }

    /// Our own address on the link, looked up once a second.
    fn link_local(&self) -> Option<Ipv6Addr> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_none_or(|(_, at)| at.elapsed() >= OWN_FOR) {
            *own = link_local(&self.device).map(|address| (address, Instant::now()));
        }
        own.map(|(address, _)| address)
    }

    /// A datagram that is no message that can be answered: its client's, or nobody's.
    fn refused(&self, bytes: &[u8], from: SocketAddrV6, came: Came, error: &BadMessage) {
        let handled =
            Message::broken(bytes).map(|message| self.core.broken(&message, came, error)).unwrap_or_default();
        let (mac, of_host) = handled.client();
        self.tap((mac, of_host), from, came.to, false, bytes);
        if mac.is_some_and(|mac| self.broken.allows(mac, of_host, Instant::now())) {
            for event in handled.events {
                self.director.event(event);
            }
        }
    }

    /// `ours` is the address that the message came to; what was asked of a group is answered by whichever fits.
    fn tap(
        &self,
        (mac, of_host): (Option<MacAddr>, bool),
        peer: SocketAddrV6,
        ours: Ipv6Addr,
        sent: bool,
        bytes: &[u8],
    ) {
        let own = if sent && ours.is_multicast() { Ipv6Addr::UNSPECIFIED } else { ours };
        let (peer, ours) = (SocketAddr::V6(peer), SocketAddr::V6(SocketAddrV6::new(own, SERVER_PORT, 0, 0)));
        let wire = if sent { Wire::Udp { from: ours, to: peer } } else { Wire::Udp { from: peer, to: ours } };
        let (at, interface, length) = (micros(), self.device.as_str(), bytes.len());
        self.director.datagram(&Datagram { at, interface, mac, of_host, sent, wire, bytes, length });
    }
}

/// Length, sender and destination of the next datagram.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV6, Ipv6Addr)> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let got = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let to = got.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let from =
        got.address.map(SocketAddrV6::from).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((got.bytes, from, to.unwrap_or(ALL_AGENTS)))
}

#[cfg(test)]
mod tests {
    use dayzero_model::boot::{BootAction, Client};
    use dayzero_model::event::Ignored;
    use dayzero_model::site::NetworkRole;

    use super::super::core::Told;
    use super::super::wire::tests::{MAC, message};
    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{Ipv6Prefix, PxeConfig};
    use crate::dhcp::networks::Networks;
    use crate::director::{ScriptQuery, SeenClient};
    use crate::session::Sessions;

    /// Knows one host, and keeps what it is told: datagrams with their MAC and whether they are of the host, events.
    #[derive(Default)]
    struct Keeper(Mutex<(Taps, Vec<PxeEvent>)>);

    type Taps = Vec<(Option<MacAddr>, bool)>;

    impl BootDirector for Keeper {
        fn client(&self, seen: &SeenClient) -> Client {
            let (host, address) = ("host1".parse().unwrap(), [10, 77, 0, 11].into());
            let chain = dayzero_model::boot::Chain::Ipxe;
            match seen.mac {
                MAC => Client::Host { host, address, window: None, uuid: None, chain },
                _ => Client::Unknown,
            }
        }
        fn boot_script(&self, _: &ScriptQuery) -> BootAction {
            BootAction::Refuse
        }
        fn event(&self, event: PxeEvent) {
            self.0.lock().unwrap().1.push(event);
        }
        fn datagram(&self, datagram: &Datagram<'_>) {
            self.0.lock().unwrap().0.push((datagram.mac, datagram.of_host));
        }
    }

    async fn server() -> (Server, Arc<Keeper>) {
        let director = Arc::new(Keeper::default());
        let mut mgmt = interface(NetworkRole::Management);
        let address = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);
        mgmt.network.prefix6 = Some(Ipv6Prefix { address, len: 64 });
        let config = PxeConfig { interfaces: vec![mgmt.clone()], ..config() };
        let (told, duid) =
            (Arc::clone(&director) as Arc<dyn BootDirector>, vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 2]);
        let networks = Arc::new(Networks::new(&config, &[]));
        let (own, to) = (Told::default(), Arc::clone(&told));
        let core = Core::new(&mgmt, &config, networks, duid, own, to, Sessions::default());
        let socket = UdpSocket::bind("[::1]:0").await.unwrap();
        (Server::with(socket, "mgmt0", core, told), director)
    }

    fn duid(n: u16) -> Vec<u8> {
        [&[0, 3, 0, 1, 2, 0, 0, 0][..], &n.to_be_bytes()].concat()
    }

    const FROM: SocketAddrV6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 546, 0, 0);

    /// The recording has each datagram; the events are told within the limit, a host's whatever strangers send.
    #[tokio::test]
    async fn a_datagram_that_breaks_the_rules_is_recorded_and_told() {
        let (server, director) = server().await;
        for n in 0..1000 {
            server.received(&message(1, &[(1, &duid(n)), (61, &[0])]), FROM, ALL_AGENTS);
        }
        let own = [&[0, 3, 0, 1][..], &MAC.0].concat();
        server.received(&message(1, &[(1, &own), (61, &[0])]), FROM, ALL_AGENTS);
        server.received(&message(7, &[(1, &own)]), FROM, ALL_AGENTS);
        let (taps, events) = std::mem::take(&mut *director.0.lock().unwrap());
        assert_eq!((taps.len(), taps[1000], taps[1001]), (1002, (Some(MAC), true), (None, false)));
        let broken =
            |event: &&PxeEvent| matches!(&event.what, What::DhcpIgnored { why: Ignored::Malformed, .. });
        let told: Vec<&PxeEvent> = events.iter().filter(broken).collect();
        assert_eq!(told.len(), 201, "200 of strangers, and the host's");
        assert!(told[200].mac == Some(MAC) && told[200].host.is_some(), "{:?}", told[200]);
    }

    /// The kernel sends nothing to port 0.
    #[tokio::test]
    async fn an_answer_that_cannot_leave_is_told() {
        let (server, director) = server().await;
        let own = [&[0, 3, 0, 1][..], &MAC.0].concat();
        let solicit = message(1, &[(1, &own), (3, &[0; 12])]);
        for port in [546, 0] {
            let from = SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
            server.received(&solicit, from, ALL_AGENTS);
            let (_, events) = std::mem::take(&mut *director.0.lock().unwrap());
            let unsent = events.iter().find(|event| matches!(event.what, What::DhcpUnsent { .. }));
            assert!(matches!(events[1].what, What::DhcpOut { .. }), "{events:?}");
            assert_eq!(unsent.is_some(), port == 0, "{events:?}");
            if let Some(PxeEvent { what: What::DhcpUnsent { kind, to, error }, host, .. }) = unsent {
                assert_eq!((&**kind, *to), ("ADVERTISE", IpAddr::V6(Ipv6Addr::LOCALHOST)));
                assert!(host.is_some() && error.contains("Invalid argument"), "{error}");
            }
        }
    }
}
