//! Router advertisements that say "no router" (RFC 4861).
//!
//! Purpose: iPXE solicits IPv6 routers before it boots, and waits 13 seconds for an answer; this is the answer.
//! Invariants: lifetime 0, so that no host ever routes by us; nobody makes an address of his own: without a planned
//! prefix there is none, with one it is only said to be on the link; nothing is said that our DHCPv6 does not keep
//! ([`Advertised`]); at most one answer each 100 ms, however many ask; it names the MAC that the device has now, since a bridge's changes with its
//! ports, and iPXE speaks to whatever MAC it was told. It is sent to all nodes, as RFC 4861 allows.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::site::DhcpMode;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{Ipv6Prefix, ServedNetwork};
use crate::net::{device_index, device_mac};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const SOLICITATION: u8 = 133;
pub(crate) const ADVERTISEMENT: u8 = 134;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
/// Seconds that the prefix stays on the link.
const LIFETIME: u32 = 86_400;
const PERIOD: Duration = Duration::from_secs(10);
const LEAST_GAP: Duration = Duration::from_millis(100);

/// What is said on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advertised {
    /// It is on the link.
    prefix: Option<Ipv6Prefix>,
    /// Addresses and the rest come by our DHCPv6 (flags M and O).
    managed: bool,
}

impl Advertised {
    /// By the network's `dhcp`. Where it is off: nothing, since we answer nobody there. Beside another server: what ends
    /// iPXE's wait, and the planned prefix, which is on the link whoever gives addresses of it; no flags, since our DHCPv6
    /// answers nobody there, and whether another does is for the site's router to say.
    pub(crate) fn on(network: &ServedNetwork) -> Option<Self> {
        let prefix = network.prefix6;
        match network.mode {
            DhcpMode::Serve => Some(Self { prefix, managed: prefix.is_some() }),
            DhcpMode::Proxy => Some(Self { prefix, managed: false }),
            DhcpMode::Off => None,
        }
    }
}

/// The message; the kernel writes its checksum.
fn advertisement(mac: MacAddr, told: Advertised) -> Vec<u8> {
    let mut out = vec![ADVERTISEMENT, 0, 0, 0];
    // Hop limit 64; flags; router lifetime 0.
    out.extend_from_slice(&[64, if told.managed { MANAGED | OTHER } else { 0 }, 0, 0]);
    // Reachable and retransmission times: unspecified.
    out.extend_from_slice(&[0; 8]);
    // Source link-layer address.
    out.extend_from_slice(&[1, 1]);
    out.extend_from_slice(&mac.0);
    if let Some(prefix) = told.prefix {
        // Prefix information: on the link, and not for addresses of one's own.
        out.extend_from_slice(&[3, 4, prefix.len, ON_LINK]);
        out.extend_from_slice(&[LIFETIME.to_be_bytes(), LIFETIME.to_be_bytes(), [0; 4]].concat());
        out.extend_from_slice(&prefix.address.octets());
    }
    out
}

/// Answers router solicitations on one device.
pub(crate) struct RouterAdvertiser {
    socket: AsyncFd<Socket>,
    index: u32,
    /// As it was at the start.
    mac: MacAddr,
    told: Advertised,
    device: String,
}

impl RouterAdvertiser {
    /// # Errors
    /// No such device, no IPv6 in the kernel, or no right to raw sockets.
    pub(crate) fn bind(device: &str, told: Advertised) -> io::Result<Self> {
        let index = u32::try_from(device_index(device)?).unwrap_or_default();
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_unicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        only_solicitations(&socket)?;
        let mac = device_mac(device)?;
        // SAFETY: a `Socket` owns its one descriptor, which stays open until it is dropped, with the `AsyncFd`.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, index, mac, told, device: device.to_owned() })
    }

    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut buffer = [MaybeUninit::uninit(); 256];
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = period.tick() => {}
                got = self.socket.async_io(tokio::io::Interest::READABLE, |s| s.recv(&mut buffer)) => {
                    if !matches!(got, Ok(length) if length >= 8) {
                        continue;
                    }
                    if last.elapsed() < LEAST_GAP {
                        // The advertisement that answers this one too is sent when the gap is over.
                        tokio::time::sleep_until(last + LEAST_GAP).await;
                        self.drain(&mut buffer);
                    }
                }
            }
            last = Instant::now();
            let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index);
            let message = advertisement(device_mac(&self.device).unwrap_or(self.mac), self.told);
            if let Err(error) = self.socket.get_ref().send_to(&message, &to.into()) {
                // A link-local address takes a second to become usable after the link comes up.
                tracing::debug!(%error, device = %self.device, "router advertisement not sent");
            }
        }
    }

    fn drain(&self, buffer: &mut [MaybeUninit<u8>]) {
        for _ in 0..1024 {
            if self.socket.get_ref().recv(buffer).is_err() {
                return;
            }
        }
    }
}

fn only_solicitations(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // struct icmp6_filter: a set bit blocks the type.
    let mut filter = [u32::MAX; 8];
    filter[usize::from(SOLICITATION / 32)] &= !(1 << (SOLICITATION % 32));
    const ICMP6_FILTER: libc::c_int = 1;
    // SAFETY: the option's value is 32 bytes that live through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_ICMPV6,
            ICMP6_FILTER,
            filter.as_ptr().cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::interface;
    use dayzero_model::site::NetworkRole;

    const PREFIX: Ipv6Prefix = Ipv6Prefix { address: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0), len: 64 };

    /// What a network of this mode is told, with the planned prefix or without.
    fn told(mode: DhcpMode, prefix6: Option<Ipv6Prefix>) -> Option<Vec<u8>> {
        let network = ServedNetwork { mode, prefix6, ..interface(NetworkRole::Management).network };
        Some(advertisement(MacAddr([2, 0, 0, 0, 0, 9]), Advertised::on(&network)?))
    }

    #[test]
    fn says_that_there_is_no_router() {
        let message = told(DhcpMode::Serve, None).unwrap();
        assert_eq!(message.len(), 24);
        assert_eq!(message[0], 134);
        assert_eq!(message[5], 0, "neither managed nor other");
        assert_eq!(message[6..8], [0, 0], "lifetime 0");
        assert_eq!(message[16..24], [1, 1, 2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn a_planned_prefix_is_on_the_link_and_dhcp_gives_the_addresses() {
        let message = told(DhcpMode::Serve, Some(PREFIX)).unwrap();
        assert_eq!(message.len(), 56);
        assert_eq!((message[5], &message[6..8]), (0xc0, &[0, 0][..]), "managed, and no router");
        assert_eq!(message[24..28], [3, 4, 64, 0x80], "on the link, no addresses of one's own");
        assert_eq!(message[40..56], PREFIX.address.octets());
    }

    #[test]
    fn where_our_dhcpv6_answers_nobody_none_is_promised() {
        let serve = told(DhcpMode::Serve, Some(PREFIX)).unwrap();
        let mut proxy = told(DhcpMode::Proxy, Some(PREFIX)).unwrap();
        assert_eq!(proxy[5], 0, "neither managed nor other");
        proxy[5] = serve[5];
        assert_eq!(proxy, serve, "the prefix is on the link all the same");
        assert_eq!(told(DhcpMode::Proxy, None), told(DhcpMode::Serve, None));
        for prefix in [None, Some(PREFIX)] {
            assert_eq!(told(DhcpMode::Off, prefix), None, "off is silent");
        }
    }
}
