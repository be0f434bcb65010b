//! The sockets of one interface's DHCP server.
//!
//! Invariants: what has arrived is handled as one batch, its lease changes are committed together, and only then are
//! its answers sent; if the store fails, the answers that depend on it are not sent. Events are told before the answer goes
//! out, so that what it leads to is told after it.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dayzero_model::Timestamp;
use dayzero_model::event::What;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::core::{Destination, DhcpCore, Handled};
use super::lease::LeaseStore;
use super::wire::{MAX_DATAGRAM, Request};
use crate::director::BootDirector;
use crate::net::{DirectSender, udp_on};

/// Most datagrams of one batch.
const BATCH: usize = 256;
const CLIENT_PORT: u16 = 68;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The server's sockets.
pub(crate) struct DhcpServer {
    socket: UdpSocket,
    direct: DirectSender,
    device: String,
    server: SocketAddrV4,
    core: DhcpCore,
    leases: Arc<dyn LeaseStore>,
    director: Arc<dyn BootDirector>,
}

impl DhcpServer {
    pub(crate) fn bind(
        device: &str,
        server: SocketAddrV4,
        core: DhcpCore,
        leases: Arc<dyn LeaseStore>,
        director: Arc<dyn BootDirector>,
    ) -> io::Result<Self> {
        let socket = udp_on(device, server.port())?;
        let direct = DirectSender::new(device)?;
        Ok(Self { socket, direct, device: device.to_owned(), server, core, leases, director })
    }

    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                ready = self.socket.readable() => if let Err(error) = ready {
                    tracing::warn!(%error, device = %self.device, "DHCP socket");
                    return;
                },
            }
            let batch = self.batch(&mut buffer);
            self.settle(batch).await;
        }
    }

    fn batch(&mut self, buffer: &mut [u8]) -> Vec<Handled> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => match Request::parse(&buffer[..length]) {
                    Ok(request) => batch.push(self.core.handle(&request, now())),
                    Err(error) => {
                        tracing::debug!(%error, %from, device = %self.device, "DHCP datagram ignored");
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, device = %self.device, "DHCP receive");
                    break;
                }
            }
        }
        batch
    }

    async fn settle(&self, batch: Vec<Handled>) {
        let changes: Vec<_> = batch.iter().filter_map(|handled| handled.change.clone()).collect();
        let durable = if changes.is_empty() {
            true
        } else {
            match self.leases.commit(changes).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(%error, device = %self.device, "leases not stored: their clients get no answer");
                    false
                }
            }
        };
        for mut handled in batch {
            if handled.change.is_some() && !durable {
                handled.reply = None;
                for event in &mut handled.events {
                    if matches!(event.what, What::DhcpOut { .. }) {
                        let reason = "the lease could not be stored: see the appliance's log".to_owned();
                        event.what = What::DhcpIgnored { reason };
                    }
                }
            }
            for event in handled.events {
                self.director.event(event);
            }
            if let Some((bytes, to)) = &handled.reply {
                self.send(bytes, *to).await;
            }
        }
    }

    async fn send(&self, bytes: &[u8], to: Destination) {
        let result = match to {
            Destination::Unicast(address) => self.routed(bytes, address).await,
            Destination::Broadcast => self.routed(bytes, Ipv4Addr::BROADCAST).await,
            Destination::Direct(mac, address) => {
                let at = SocketAddrV4::new(address, CLIENT_PORT);
                match self.direct.send(mac, self.server, at, bytes) {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        tracing::debug!(%error, %mac, "frame not sent to its MAC: broadcasting");
                        self.routed(bytes, Ipv4Addr::BROADCAST).await
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, ?to, device = %self.device, "DHCP answer not sent");
        }
    }

    /// By the kernel's routing, from the address that is our server identifier.
    async fn routed(&self, bytes: &[u8], to: Ipv4Addr) -> io::Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(to, CLIENT_PORT));
        let source = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(*self.server.ip()).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        self.socket
            .async_io(Interest::WRITABLE, || {
                let control = [ControlMessage::Ipv4PacketInfo(&source)];
                let flags = MsgFlags::MSG_DONTWAIT;
                sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, flags, Some(&to))?;
                Ok(())
            })
            .await
    }
}
