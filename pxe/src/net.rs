//! Sockets bound to a device, and frames to clients that have no address yet.
//!
//! Invariants: each socket is bound to its device, so that a broadcast leaves where it should, and what arrives is of
//! that network; a frame to a client of the segment goes to its MAC by a packet socket, since ARP would ask for
//! an address that nobody answers for yet, or perhaps ever: what waits for ARP fills the socket that it left by.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use dayzero_model::MacAddr;
use nix::libc;
use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{Instant, timeout_at};

/// BPF's return of a constant: how many bytes of a packet are kept (Linux, `bpf_common.h`).
const RETURN: u16 = 0x06;

/// Asked of the kernel for a DHCP socket: a rack that powers on at once sends thousands of datagrams in a moment.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Asked of the kernel for a socket whose answers ARP or the neighbour discovery of IPv6 may hold back: it keeps at most
/// 208 KiB for one neighbour that does not answer (`unres_qlen_bytes`), which is as much as a socket may have by default.
/// The kernel doubles this number, and then fewer packets are under way than a device's queue takes.
const SEND_BUFFER: usize = 512 << 10;

/// Number of a device.
///
/// # Errors
/// If there is none of that name in this network namespace.
pub(crate) fn device_index(device: &str) -> io::Result<i32> {
    let index = nix::net::if_::if_nametoindex(device)?;
    i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// The MAC of a device.
///
/// # Errors
/// If there is none of that name, or it is no Ethernet.
pub(crate) fn device_mac(device: &str) -> io::Result<MacAddr> {
    for address in nix::ifaddrs::getifaddrs()? {
        if address.interface_name == device
            && let Some(mac) = address.address.as_ref().and_then(|a| a.as_link_addr()).and_then(|l| l.addr())
        {
            return Ok(MacAddr(mac));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{device} has no Ethernet address")))
}

/// The MAC that the device of a bound packet socket has now: the kernel looks when it is asked.
pub(crate) fn bound_mac(socket: &Socket) -> Option<MacAddr> {
    let address = socket.local_addr().ok()?;
    let long_enough = address.len() as usize >= std::mem::offset_of!(libc::sockaddr_ll, sll_addr) + 6;
    if address.family() != libc::AF_PACKET as libc::sa_family_t || !long_enough {
        return None;
    }
    // SAFETY: the kernel filled a `sockaddr_ll` up to the end of its MAC, as family and length say; the storage behind it
    // is large enough and aligned for every family's structure.
    let link = unsafe { &*address.as_ptr().cast::<libc::sockaddr_ll>() };
    let mac = link.sll_addr.first_chunk::<6>().filter(|_| link.sll_halen == 6)?;
    (*mac != [0; 6]).then_some(MacAddr(*mac))
}

/// A link-local address of a device.
pub(crate) fn link_local(device: &str) -> Option<Ipv6Addr> {
    let mut all = nix::ifaddrs::getifaddrs().ok()?.filter(|one| one.interface_name == device);
    all.find_map(|one| one.address?.as_sockaddr_in6().map(|a| a.ip()).filter(Ipv6Addr::is_unicast_link_local))
}

/// Whether a device has an address, be it still on trial (RFC 4862's duplicate detection).
pub(crate) fn device_has(device: &str, address: IpAddr) -> bool {
    let is = |storage: &SockaddrStorage| match address {
        IpAddr::V4(address) => storage.as_sockaddr_in().is_some_and(|a| a.ip() == address),
        IpAddr::V6(address) => storage.as_sockaddr_in6().is_some_and(|a| a.ip() == address),
    };
    let mut all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.any(|one| one.interface_name == device && one.address.as_ref().is_some_and(is))
}

/// The link-layer address that a packet socket is bound to, or sends to; `protocol` in network order.
pub(crate) fn link_address(index: i32, protocol: u16, mac: [u8; 6]) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every address family's structure.
    let at = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    at.sll_family = libc::AF_PACKET as u16;
    at.sll_protocol = protocol;
    at.sll_ifindex = index;
    at.sll_halen = 6;
    at.sll_addr[..6].copy_from_slice(&mac);
    // SAFETY: a `sockaddr_ll` was written, of that length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// A packet socket for one protocol (in network order) on one device; the link's own header is taken off. It has no protocol
/// before it is bound: until then it would hear all devices.
///
/// # Errors
/// No such device, or no right to packet sockets (CAP_NET_RAW).
pub(crate) fn packets_on(device: &str, protocol: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&link_address(device_index(device)?, protocol, [0; 6]))?;
    Ok(socket)
}

/// The first packet of a protocol on a device that `read` understands, without the link's header; the NIC lets those to these
/// groups through. `None`: none came before `end`.
///
/// # Errors
/// As [`packets_on`].
pub(crate) async fn first_packet<T>(
    device: &str,
    protocol: u16,
    groups: &[[u8; 6]],
    end: Instant,
    mut read: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let socket = packets_on(device, protocol.to_be())?;
    for group in groups {
        join(&socket, device_index(device)?, *group)?;
    }
    // SAFETY: a `Socket` owns its one descriptor, which stays open until it is dropped, with the `AsyncFd`.
    let socket = unsafe { AsyncFd::register(socket) }?;
    loop {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
        let got = socket.async_io(Interest::READABLE, |socket| socket.recv(&mut buffer));
        let Ok(got) = timeout_at(end, got).await else { return Ok(None) };
        let length = got?;
        // SAFETY: `recv` initialised the first `length` octets.
        let body: Vec<u8> = buffer[..length].iter().map(|b| unsafe { b.assume_init() }).collect();
        if let Some(read) = read(&body) {
            return Ok(Some(read));
        }
    }
}

/// Lets the frames of a group through the NIC's filter.
fn join(socket: &Socket, index: i32, group: [u8; 6]) -> io::Result<()> {
    let mut request = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_MULTICAST as u16,
        mr_alen: 6,
        mr_address: [0; 8],
    };
    request.mr_address[..6].copy_from_slice(&group);
    // SAFETY: the descriptor is open, and the pointer and length are those of a packet_mreq that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            std::ptr::from_ref(&request).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A UDP socket on `port` of all addresses, on one device, that may broadcast and tells where
/// each datagram was sent to.
///
/// # Errors
/// The port is taken, the device is missing, or rights (CAP_NET_RAW, CAP_NET_BIND_SERVICE) are.
pub(crate) fn udp_on(device: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_broadcast(true)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    send_buffer(&socket);
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    UdpSocket::from_std(socket.into())
}

/// Room for what waits for silent neighbours; without the right to have it (CAP_NET_ADMIN), what the system allows.
pub(crate) fn send_buffer(socket: &Socket) {
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err()
        && let Err(error) = socket.set_send_buffer_size(SEND_BUFFER)
    {
        tracing::debug!(%error, "a socket's room for what it sends is as it was");
    }
}

/// A UDP socket on one address of a device.
///
/// # Errors
/// As [`udp_on`], and if the address is not ours.
pub(crate) fn udp_at(device: &str, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    early(&socket, address)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// An IPv6 address that was set a moment ago is on trial, and cannot be bound otherwise.
fn early(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    Ok(())
}

/// A TCP listener on one device.
///
/// # Errors
/// As [`udp_on`], and if the address is not ours.
pub(crate) fn tcp_on(device: &str, address: impl Into<SocketAddr>) -> io::Result<TcpListener> {
    let address = address.into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    early(&socket, address)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Sends IPv4/UDP datagrams by the kernel's routing, from any port of ours, and receives nothing: its queue is its own.
#[derive(Debug)]
pub(crate) struct RoutedSender {
    socket: Socket,
}

impl RoutedSender {
    /// # Errors
    /// The device is missing, or rights (CAP_NET_RAW) are.
    pub(crate) fn new(device: &str) -> io::Result<Self> {
        // raw(7): the IP header is ours. What the network sends of this protocol, which nobody speaks, is not kept either.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
        send_buffer(&socket);
        Ok(Self { socket })
    }

    /// In the runtime, so that its room can be waited for.
    ///
    /// # Errors
    /// The runtime is out of descriptors.
    pub(crate) fn awaited(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: it owns its one descriptor, which stays open until it is dropped, with the `AsyncFd`.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// One datagram, which fits into a packet.
    ///
    /// # Errors
    /// What the kernel says: no room (try again), no route, a firewall.
    pub(crate) fn send(&self, from: SocketAddrV4, at: SocketAddrV4, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(&udp_packet(from, at, payload), &at.into()).map(drop)
    }
}

impl AsRawFd for RoutedSender {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Sends IPv4/UDP datagrams to a MAC.
#[derive(Debug)]
pub(crate) struct DirectSender {
    socket: OwnedFd,
    index: i32,
}

impl AsRawFd for DirectSender {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl DirectSender {
    pub(crate) fn new(device: &str) -> io::Result<Self> {
        // Protocol 0: it sends, and receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: socket.into(), index: device_index(device)? })
    }

    /// As [`RoutedSender::awaited`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn awaited(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: it owns its one descriptor, which stays open until it is dropped, with the `AsyncFd`.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// One datagram.
    ///
    /// # Errors
    /// What the kernel says: no room (try again), device down.
    pub(crate) fn send(
        &self,
        to: MacAddr,
        from: SocketAddrV4,
        at: SocketAddrV4,
        payload: &[u8],
    ) -> io::Result<()> {
        self.frame(to, libc::ETH_P_IP as u16, &udp_packet(from, at, payload))
    }

    /// One datagram by IPv6, from a link-local address of ours.
    ///
    /// # Errors
    /// As [`DirectSender::send`].
    pub(crate) fn send6(
        &self,
        to: MacAddr,
        from: SocketAddrV6,
        at: SocketAddrV6,
        payload: &[u8],
    ) -> io::Result<()> {
        self.frame(to, libc::ETH_P_IPV6 as u16, &udp6_packet(from, at, payload))
    }

    fn frame(&self, to: MacAddr, protocol: u16, packet: &[u8]) -> io::Result<()> {
        let mut address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        address.sll_addr[..6].copy_from_slice(&to.0);
        // SAFETY: packet and address are live, initialised values of the lengths given; the call keeps neither.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// An IPv4 packet with a UDP datagram; `payload` is far below 64 KiB.
fn udp_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut ip = Vec::with_capacity(28 + payload.len());
    ip.extend_from_slice(&[0x45, 0x10]);
    ip.extend_from_slice(&(20 + udp_len).to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend_from_slice(&from.ip().octets());
    ip.extend_from_slice(&to.ip().octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = ip[12..20].to_vec();
    with_udp(ip, pseudo, [from.port(), to.port(), udp_len], payload)
}

/// The same by IPv6.
fn udp6_packet(from: SocketAddrV6, to: SocketAddrV6, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut ip = Vec::with_capacity(48 + payload.len());
    ip.extend_from_slice(&[0x60, 0, 0, 0]);
    ip.extend_from_slice(&udp_len.to_be_bytes());
    ip.extend_from_slice(&[17, 64]);
    ip.extend_from_slice(&from.ip().octets());
    ip.extend_from_slice(&to.ip().octets());
    let pseudo = ip[8..40].to_vec();
    with_udp(ip, pseudo, [from.port(), to.port(), udp_len], payload)
}

/// An IP header with its UDP datagram: both ports and the length, and the addresses that the checksum covers too.
fn with_udp(mut ip: Vec<u8>, mut pseudo: Vec<u8>, head: [u16; 3], payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::with_capacity(8);
    for word in head.into_iter().chain([0]) {
        udp.extend_from_slice(&word.to_be_bytes());
    }
    pseudo.extend_from_slice(&[0, 17]);
    pseudo.extend_from_slice(&head[2].to_be_bytes());
    let sum = match checksum(&[&pseudo, &udp, payload]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    ip.extend_from_slice(&udp);
    ip.extend_from_slice(payload);
    ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_add_up_to_nothing() {
        let from = "10.77.0.2:67".parse().unwrap();
        let to = "10.77.0.11:68".parse().unwrap();
        for payload in [&b"odd"[..], b"even", b""] {
            let packet = udp_packet(from, to, payload);
            assert_eq!(checksum(&[&packet[..20]]), 0);
            let pseudo = [&packet[12..20], &[0, 17], &packet[24..26]].concat();
            assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0, "{payload:?}");
            assert_eq!(&packet[28..], payload);
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        }
        let from = "[fe80::2]:547".parse().unwrap();
        let to = "[fe80::5054:ff:fe77:1]:546".parse().unwrap();
        for payload in [&b"odd"[..], b"even", b""] {
            let packet = udp6_packet(from, to, payload);
            let pseudo = [&packet[8..40], &[0, 17], &packet[44..46]].concat();
            assert_eq!(checksum(&[&pseudo, &packet[40..]]), 0, "{payload:?}");
            assert_eq!((&packet[40..44], &packet[48..]), (&[2, 35, 2, 34][..], payload));
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40, packet.len());
        }
    }
}
