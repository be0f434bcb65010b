//! A DHCP client (RFC 2131) for one NIC: the appliance's, where no file says its address.
//!
//! Invariants: an address is on the link only while its lease runs; a lease that is renewed with another address
//! replaces the first one. It takes address, prefix, router and times from an answer and nothing else. It does not probe
//! an address before it takes it, knows no IPv6, and keeps no lease over a restart.

mod message;

use crate::apply::apply;
use crate::error::NetError;
use crate::observe::observe;
use crate::op::{Op, RouteSpec};
use crate::packet;
use crate::plan::{MAIN, Plan, default};
use dayzero_model::ids::MacAddr;
use ipnet::Ipv4Net;
use message::{Answer, Ask, Kind};
use socket2::{Domain, Protocol, Socket, Type};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const ETHERTYPE_IPV4: u16 = 0x0800;
/// The first wait for an answer; it doubles with each try.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Longest answer that is read.
const LONGEST: usize = 1500;
/// Metric of a default route from a lease; a static one has 0 and wins.
const METRIC: u32 = 1024;

/// How the NIC fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No server has answered yet; how often it was asked.
    Asking {
        /// DISCOVERs sent since the NIC last had an address.
        tries: u32,
    },
    /// It has an address. Said again at each renewal.
    Bound(Lease),
    /// Not begun.
    #[default]
    Idle,
}

/// What a server gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Address with prefix length.
    pub address: Ipv4Net,
    /// Router.
    pub gateway: Option<Ipv4Addr>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// How long it is valid.
    pub time: Duration,
    /// After how long to ask the server again.
    pub renew: Duration,
    /// After how long to ask any server.
    pub rebind: Duration,
}

/// Brings the NIC up and keeps an address on it, for as long as this is polled. Says on `state` how it fares.
///
/// # Errors
/// [`NetError::NoSuchNic`]; no socket; the kernel refuses the address. Servers that do not answer are no error.
pub async fn keep(mac: MacAddr, hostname: &str, state: watch::Sender<State>) -> Result<Infallible, NetError> {
    crate::discovery::all_up(&[mac]).await?;
    let observed = observe().await?;
    let nic = observed.nic(mac).ok_or_else(|| NetError::NoSuchNic { mac, present: observed.macs() })?;
    let client = Client::open(nic.name.clone(), nic.index, mac, hostname.to_owned())?;
    loop {
        state.send_replace(State::Asking { tries: 0 });
        let (mut lease, mut since) = client.acquire(&state).await?;
        client.set(lease, true).await?;
        state.send_replace(State::Bound(lease));
        while let Some((next, at)) = client.renewed(&lease, since).await? {
            if next.address != lease.address || next.gateway != lease.gateway {
                client.set(lease, false).await?;
            }
            client.set(next, true).await?;
            state.send_replace(State::Bound(next));
            (lease, since) = (next, at);
        }
        tracing::warn!(link = client.link, address = %lease.address, "the DHCP lease ran out");
        client.set(lease, false).await?;
    }
}

/// Asks for an address on one NIC for at most `patience`; while it has one, does `with` it, and takes it away again.
/// None where no server answered in time.
///
/// # Errors
/// As [`keep`].
pub async fn borrow<T>(
    mac: MacAddr,
    hostname: &str,
    patience: Duration,
    with: impl AsyncFnOnce(Lease) -> T,
) -> Result<Option<T>, NetError> {
    let observed = observe().await?;
    let nic = observed.nic(mac).ok_or_else(|| NetError::NoSuchNic { mac, present: observed.macs() })?;
    let client = Client::open(nic.name.clone(), nic.index, mac, hostname.to_owned())?;
    let state = watch::Sender::new(State::Idle);
    let Ok(acquired) = tokio::time::timeout(patience, client.acquire(&state)).await else { return Ok(None) };
    let (lease, _) = acquired?;
    client.set(lease, true).await?;
    let done = with(lease).await;
    client.set(lease, false).await?;
    Ok(Some(done))
}

struct Client {
    link: String,
    index: u32,
    mac: MacAddr,
    hostname: String,
    /// Answers, and what is sent from an address that we have.
    udp: tokio::net::UdpSocket,
    /// What is sent from no address.
    packets: Socket,
}

impl Client {
    fn open(link: String, index: u32, mac: MacAddr, hostname: String) -> Result<Self, NetError> {
        let failed = |e| NetError::io(format!("opening a DHCP client on {link}"), e);
        let make = || {
            let udp = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            udp.set_reuse_address(true)?;
            udp.set_broadcast(true)?;
            udp.bind_device(Some(link.as_bytes()))?;
            udp.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).into())?;
            udp.set_nonblocking(true)?;
            let packets = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
            Ok((tokio::net::UdpSocket::from_std(UdpSocket::from(udp))?, packets))
        };
        let (udp, packets) = make().map_err(failed)?;
        Ok(Self { link, index, mac, hostname, udp, packets })
    }

    /// DISCOVER to ACK, as often as it takes.
    async fn acquire(&self, state: &watch::Sender<State>) -> Result<(Lease, Instant), NetError> {
        let (mut wait, mut tries) = (FIRST_WAIT, 0);
        loop {
            let discover = self.ask(Kind::Discover);
            self.broadcast(&discover)?;
            tries += 1;
            state.send_replace(State::Asking { tries });
            if let Some(offer) =
                self.answer(&discover, Instant::now() + wait, |a| a.kind == Kind::Offer).await?
            {
                let request = Ask {
                    wanted: Some(offer.lease.address.addr()),
                    server: Some(offer.lease.server),
                    ..self.ask(Kind::Request)
                };
                let sent = Instant::now();
                self.broadcast(&request)?;
                let told = |a: &Answer| {
                    matches!(a.kind, Kind::Ack | Kind::Nak) && a.lease.server == offer.lease.server
                };
                if let Some(answer) = self.answer(&request, sent + FIRST_WAIT * 2, told).await?
                    && answer.kind == Kind::Ack
                {
                    return Ok((answer.lease, sent));
                }
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The lease once a server prolonged it, with the moment from which it counts; none when its time is over or a
    /// server took it back.
    async fn renewed(&self, lease: &Lease, since: Instant) -> Result<Option<(Lease, Instant)>, NetError> {
        let (rebind, end) = (since + lease.rebind, since + lease.time);
        tokio::time::sleep_until(since + lease.renew).await;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(None);
            }
            let to = if now < rebind { lease.server } else { Ipv4Addr::BROADCAST };
            let ask = Ask { client: lease.address.addr(), ..self.ask(Kind::Request) };
            let sent = self.udp.send_to(&ask.encode(), SocketAddrV4::new(to, SERVER_PORT)).await;
            if let Err(error) = sent {
                tracing::debug!(link = self.link, %error, "a lease's renewal was not sent");
            }
            // RFC 2131 4.4.5: again after half of what is left, at least a minute; sooner at the very end.
            let next = if now < rebind { rebind } else { end };
            let until = (now + ((next - now) / 2).max(Duration::from_secs(60))).min(next);
            match self.answer(&ask, until, |a| matches!(a.kind, Kind::Ack | Kind::Nak)).await? {
                Some(answer) if answer.kind == Kind::Ack => return Ok(Some((answer.lease, now))),
                Some(_) => return Ok(None),
                None => tokio::time::sleep_until(until).await,
            }
        }
    }

    fn ask(&self, kind: Kind) -> Ask {
        Ask {
            kind,
            xid: rand::random(),
            mac: self.mac,
            client: Ipv4Addr::UNSPECIFIED,
            wanted: None,
            server: None,
            hostname: self.hostname.clone(),
        }
    }

    /// From address 0.0.0.0, as RFC 2131 4.1 asks of who has none: the kernel would take another link's.
    fn broadcast(&self, ask: &Ask) -> Result<(), NetError> {
        let packet = message::from_nowhere(&ask.encode());
        let to = packet::address(self.index, ETHERTYPE_IPV4, Some([0xff; 6]));
        match to.and_then(|to| self.packets.send_to(&packet, &to)) {
            Ok(_) => Ok(()),
            // Without carrier, or down for a moment: the next try may pass.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS | libc::EAGAIN)) => {
                Ok(())
            }
            Err(e) => Err(NetError::io(format!("asking for an address on {}", self.link), e)),
        }
    }

    /// The first fitting answer to what was asked, until the time is over.
    async fn answer(
        &self,
        ask: &Ask,
        until: Instant,
        fits: impl Fn(&Answer) -> bool,
    ) -> Result<Option<Answer>, NetError> {
        let mut buffer = [0; LONGEST];
        loop {
            let received = match timeout_at(until, self.udp.recv_from(&mut buffer)).await {
                Err(_) => return Ok(None),
                Ok(Ok((count, _))) => &buffer[..count],
                // An ICMP error to what we sent, or a link that went down: no answer.
                Ok(Err(error)) => {
                    tracing::debug!(link = self.link, %error, "DHCP");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match Answer::decode(received, ask.xid, self.mac) {
                Ok(answer) if fits(&answer) => return Ok(Some(answer)),
                Ok(_) => {}
                Err(reason) => tracing::debug!(link = self.link, reason, "a DHCP answer was ignored"),
            }
        }
    }

    /// Puts a lease's address and route on the link, or takes them away.
    async fn set(&self, lease: Lease, on: bool) -> Result<(), NetError> {
        let (link, address) = (self.link.clone(), lease.address);
        let route = lease.gateway.map(|gateway| RouteSpec {
            table: MAIN,
            to: default(),
            gateway: Some(gateway),
            link: link.clone(),
            source: None,
            metric: METRIC + self.index,
        });
        let mut ops = Vec::new();
        if on {
            ops.push(Op::AddAddress { link, address });
            ops.extend(route.map(Op::AddRoute));
        } else {
            ops.extend(route.map(Op::DelRoute));
            ops.push(Op::DelAddress { link, address });
        }
        for status in apply(&Plan { ops, problems: Vec::new() }).await? {
            status.result?;
        }
        Ok(())
    }
}
