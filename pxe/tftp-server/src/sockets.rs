//! The sockets: a listener for each address, and one connected socket for each transfer.
//!
//! Invariant: a reply leaves from the address that was asked and by the listener's device.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::server::{BindError, Listen};

/// Room for what waits to be sent: a window of the largest size, with what the kernel counts beside it.
const SEND_BUFFER: usize = 512 * 1024;
/// Requests that may wait at a listener: a storm's worth. The kernel counts over 700 bytes for the shortest datagram.
const LISTEN_BUFFER: usize = 4 << 20;
/// Longest wait in a transfer's own `recv`.
pub(crate) const LONE_WAIT: Duration = Duration::from_millis(5);
/// Bytes of IP and UDP header before a TFTP packet.
const HEADERS: u32 = 28;

/// An open listener.
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    pub(crate) listen: Listen,
    pub(crate) iface: Arc<str>,
}

impl Listener {
    pub(crate) fn open(listen: &Listen) -> Result<Self, BindError> {
        let opened = open(*listen.address.ip(), listen.address.port(), listen.device.as_deref());
        let socket = opened.and_then(|socket| {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
                .map_err(|errno| ("asking for the local address", errno.into()))?;
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
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket_ipv4())
            .unwrap_or(self.listen.address)
    }

    /// One datagram with its sender and the address it was sent to.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
        let mut space = nix::cmsg_space!(nix::libc::in_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let got = recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let peer = got.address.map(|a| SocketAddrV4::new(a.ip(), a.port()));
        let mut local = *self.listen.address.ip();
        if local.is_unspecified() {
            for message in got.cmsgs()? {
                if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
                    local = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                }
            }
        }
        let peer = peer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((got.bytes, peer, local))
    }

    /// Sends what belongs to no transfer: an error packet.
    pub(crate) fn send_to(&self, packet: &[u8], peer: SocketAddrV4) {
        if let Err(error) = self.socket.send_to(packet, &peer.into()) {
            tracing::debug!(%error, %peer, "TFTP error packet not sent");
        }
    }

    /// A socket for a transfer from `local` to `peer`: blocking, so that each call says whether it may wait.
    pub(crate) fn transfer(&self, local: Ipv4Addr, peer: SocketAddrV4) -> io::Result<Socket> {
        let socket = open(local, 0, self.listen.device.as_deref()).map_err(|(_, error)| error)?;
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
pub(crate) fn path_block(socket: &Socket) -> u16 {
    let mtu = nix::sys::socket::getsockopt(socket, sockopt::IpMtu).unwrap_or(1500);
    let mtu = u32::try_from(mtu).unwrap_or(1500);
    let block = mtu.saturating_sub(HEADERS + 4).clamp(8, u32::from(crate::negotiate::LARGEST_BLOCK));
    u16::try_from(block).unwrap_or(crate::negotiate::LARGEST_BLOCK)
}

fn open(address: Ipv4Addr, port: u16, device: Option<&str>) -> Result<Socket, (&'static str, io::Error)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(|e| ("a socket", e))?;
    socket.set_nonblocking(true).map_err(|e| ("non-blocking mode", e))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes())).map_err(|e| ("binding to the device", e))?;
    }
    socket.bind(&SocketAddrV4::new(address, port).into()).map_err(|e| ("binding the address", e))?;
    Ok(socket)
}
