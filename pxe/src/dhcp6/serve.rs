//! The socket of one interface's DHCPv6 server.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use dayzero_model::MacAddr;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::wire::{MAX_DATAGRAM, Message};
use crate::dhcp::serve::{micros, now};
use crate::director::BootDirector;
use crate::net::device_index;
use dayzero_model::datagram::{Datagram, Wire};

const SERVER_PORT: u16 = 547;
const ALL_AGENTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
const RECEIVE_BUFFER: usize = 4 << 20;

/// DHCPv6 on one interface.
pub(crate) struct Server {
    socket: UdpSocket,
    core: Core,
    device: String,
    director: Arc<dyn BootDirector>,
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
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0).into())?;
        socket.join_multicast_v6(&ALL_AGENTS, index)?;
        socket.join_multicast_v6(&ALL_SERVERS, index)?;
        socket.set_multicast_if_v6(index)?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, core, device: device.to_owned(), director })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            let got = tokio::select! {
                () = cancel.cancelled() => return,
                got = self.socket.recv_from(&mut buffer) => got,
            };
            let (length, from) = match got {
                Ok((length, SocketAddr::V6(from))) => (length, from),
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(%error, device = %self.device, "DHCPv6 receive");
                    continue;
                }
            };
            match Message::parse(&buffer[..length]) {
                Ok(message) => {
                    let handled = self.core.handle(&message, *from.ip(), now());
                    let first = handled.events.first();
                    let client = first.map(|event| (event.mac, event.host.is_some())).unwrap_or_default();
                    self.tap(client, from, false, &buffer[..length]);
                    for event in handled.events {
                        self.director.event(event);
                    }
                    let Some(reply) = handled.reply else { continue };
                    self.tap(client, from, true, &reply);
                    // To where it came from: a client's port 546, a relay's 547.
                    if let Err(error) = self.socket.send_to(&reply, from).await {
                        tracing::warn!(%error, %from, device = %self.device, "DHCPv6 answer not sent");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, %from, device = %self.device, "DHCPv6 datagram ignored")
                }
            }
        }
    }

    /// Which of our addresses it came to is not asked of the kernel: a client's own is ALL_AGENTS.
    fn tap(&self, (mac, of_host): (Option<MacAddr>, bool), peer: SocketAddrV6, sent: bool, bytes: &[u8]) {
        let peer = SocketAddr::V6(peer);
        let all = SocketAddr::V6(SocketAddrV6::new(ALL_AGENTS, SERVER_PORT, 0, 0));
        let ours = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0));
        let wire = if sent { Wire::Udp { from: ours, to: peer } } else { Wire::Udp { from: peer, to: all } };
        let (at, interface, length) = (micros(), self.device.as_str(), bytes.len());
        self.director.datagram(&Datagram { at, interface, mac, of_host, sent, wire, bytes, length });
    }
}
