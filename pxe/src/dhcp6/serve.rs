//! The socket of one interface's DHCPv6 server.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use dayzero_model::MacAddr;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::core::{ALL_AGENTS, Came, Core};
use super::wire::{MAX_DATAGRAM, Message};
use crate::dhcp::serve::{micros, now};
use crate::director::BootDirector;
use crate::limit::Limit;
use crate::net::device_index;
use dayzero_model::datagram::{Datagram, Wire};

pub(crate) const SERVER_PORT: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
const RECEIVE_BUFFER: usize = 4 << 20;

/// DHCPv6 on one interface.
pub(crate) struct Server {
    socket: UdpSocket,
    core: Core,
    device: String,
    director: Arc<dyn BootDirector>,
    /// Answers that could not be sent.
    unsent: Limit<Ipv6Addr>,
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
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0).into())?;
        socket.join_multicast_v6(&ALL_AGENTS, index)?;
        socket.join_multicast_v6(&ALL_SERVERS, index)?;
        socket.set_multicast_if_v6(index)?;
        let socket = UdpSocket::from_std(socket.into())?;
        let unsent = Limit::new("DHCPv6 answers that could not be sent");
        Ok(Self { socket, core, device: device.to_owned(), director, unsent })
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
            match Message::parse(&buffer[..length]) {
                Ok(message) => {
                    let handled = self.core.handle(&message, Came { from: *from.ip(), to }, now());
                    let first = handled.events.first();
                    let client = first.map(|event| (event.mac, event.host.is_some())).unwrap_or_default();
                    self.tap(client, from, to, false, &buffer[..length]);
                    for event in handled.events {
                        self.director.event(event);
                    }
                    let Some(reply) = handled.reply else { continue };
                    self.tap(client, from, to, true, &reply);
                    // To where it came from: a client's port 546, a relay's 547.
                    if let Err(error) = self.socket.send_to(&reply, from).await
                        && self.unsent.allows(*from.ip(), false, Instant::now())
                    {
                        tracing::warn!(%error, %from, device = %self.device, "DHCPv6 answer not sent");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, %from, device = %self.device, "DHCPv6 datagram ignored")
                }
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
