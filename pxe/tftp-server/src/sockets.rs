//! The sockets: a listener for each address, and one connected socket for each transfer.
//!
//! Invariants: a reply leaves from the address that was asked and by the listener's device; a listener is of one
//! address family, so that what IPv4 costs does not depend on IPv6.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, GetSockOpt, MsgFlags, SockaddrLike, SockaddrStorage, getsockopt,
    recvmsg, setsockopt, sockopt,
};
use nix::{getsockopt_impl, libc, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use crate::server::{BindError, Listen};

/// Room for what waits to be sent: a window of the largest size, with what the kernel counts beside it.
const SEND_BUFFER: usize = 512 * 1024;
/// Requests that may wait at a listener: a storm's worth. The kernel counts over 700 bytes for the shortest datagram.
const LISTEN_BUFFER: usize = 4 << 20;
/// Longest wait in a transfer's own `recv`.
pub(crate) const LONE_WAIT: Duration = Duration::from_millis(5);
/// Bytes of IPv4 and UDP header before a TFTP packet.
const HEADERS: u32 = 28;
/// The same of IPv6.
const HEADERS6: u32 = 48;

sockopt_impl!(
    /// What the path to a connected IPv6 socket's peer carries.
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

/// An open listener.
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    pub(crate) listen: Listen,
    pub(crate) iface: Arc<str>,
}

impl Listener {
    pub(crate) fn open(listen: &Listen) -> Result<Self, BindError> {
        let opened = open(listen.address, listen.device.as_deref());
        let socket = opened.and_then(|socket| {
            let told = match listen.address {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true),
                SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true),
            };
            told.map_err(|errno| ("asking for the local address", errno.into()))?;
            // Beyond the system's limit only with CAP_NET_ADMIN; without it, what the system grants is taken.
            if setsockopt(&socket, sockopt::RcvBufForce, &LISTEN_BUFFER).is_err() {
                socket.set_recv_buffer_size(LISTEN_BUFFER).map_err(|error| ("a receive buffer", error))?;
            }
            Ok(socket)
        });
        let socket = opened_or(socket, listen)?;
        Ok(Self { socket, listen: listen.clone(), iface: listen.iface.as_str().into() })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let bound = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        bound.unwrap_or(self.listen.address)
    }

    /// One datagram with its sender and the address it was sent to.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, IpAddr)> {
        let mut space = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let got = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let mut local = self.listen.address.ip();
        if local.is_unspecified() {
            for message in got.cmsgs()? {
                match message {
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        local = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into();
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        local = Ipv6Addr::from(info.ipi6_addr.s6_addr).into();
                    }
                    _ => {}
                }
            }
        }
        let peer = got.address.as_ref().and_then(address_of);
        let peer = peer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((got.bytes, peer, local))
    }

    /// Sends what belongs to no transfer: an error packet.
    pub(crate) fn send_to(&self, packet: &[u8], peer: SocketAddr) {
        if let Err(error) = self.socket.send_to(packet, &peer.into()) {
            tracing::debug!(%error, %peer, "TFTP error packet not sent");
        }
    }

    /// A socket for a transfer from `local` to `peer`: blocking, so that each call says whether it may wait.
    pub(crate) fn transfer(&self, local: IpAddr, peer: SocketAddr) -> io::Result<Socket> {
        let local = match (local, peer) {
            // A link-local address means something on its link alone: the one that the request came by.
            (IpAddr::V6(local), SocketAddr::V6(peer)) if local.is_unicast_link_local() => {
                SocketAddrV6::new(local, 0, 0, peer.scope_id()).into()
            }
            _ => SocketAddr::new(local, 0),
        };
        let socket = open(local, self.listen.device.as_deref()).map_err(|(_, error)| error)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.connect(&peer.into())?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(LONE_WAIT))?;
        Ok(socket)
    }
}

fn opened_or(
    socket: Result<Socket, (&'static str, io::Error)>,
    listen: &Listen,
) -> Result<Socket, BindError> {
    socket.map_err(|(step, source)| BindError {
        address: listen.address,
        device: listen.device.clone(),
        step,
        source,
    })
}

/// The largest block that a connected socket's path carries in one packet, unfragmented.
pub(crate) fn path_block(socket: &Socket, peer: SocketAddr) -> u16 {
    let (mtu, headers) = match peer {
        SocketAddr::V4(_) => (mtu(socket, sockopt::IpMtu), HEADERS),
        SocketAddr::V6(_) => (mtu(socket, Ipv6Mtu), HEADERS6),
    };
    let block = mtu.saturating_sub(headers + 4).clamp(8, u32::from(crate::negotiate::LARGEST_BLOCK));
    u16::try_from(block).unwrap_or(crate::negotiate::LARGEST_BLOCK)
}

fn mtu(socket: &Socket, option: impl GetSockOpt<Val = libc::c_int>) -> u32 {
    let mtu = getsockopt(socket, option).unwrap_or(1500);
    u32::try_from(mtu).unwrap_or(1500)
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        AddressFamily::Inet => storage.as_sockaddr_in().map(|a| SocketAddr::new(a.ip().into(), a.port())),
        _ => storage.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a).into()),
    }
}

fn open(address: SocketAddr, device: Option<&str>) -> Result<Socket, (&'static str, io::Error)> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(|e| ("a socket", e))?;
    socket.set_nonblocking(true).map_err(|e| ("non-blocking mode", e))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true).map_err(|e| ("IPv6 alone", e))?;
        // Bound while the kernel still looks whether anybody else has the address (RFC 4862), a second after it was set.
        socket.set_freebind_v6(true).map_err(|e| ("an address that is new", e))?;
    }
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes())).map_err(|e| ("binding to the device", e))?;
    }
    socket.bind(&address.into()).map_err(|e| ("binding the address", e))?;
    Ok(socket)
}
