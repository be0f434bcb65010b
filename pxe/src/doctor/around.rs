//! What others run on an interface's network, and what its clients are told of: its MTU, gateway and name servers.
//!
//! Invariants: a look sends at most three ARP probes and one question to each name server, and nothing where nothing shall
//! be sent; each answer is waited for for a bounded time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dayzero_model::Timestamp;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UdpSocket;

use super::{Finding, Severity, bound};
use crate::config::ServedInterface;
use crate::dhcp::arp::Arp;

/// A name server's answer comes within this.
const PATIENCE: Duration = Duration::from_millis(3500);
/// ARP is asked so often, with this pause.
const ASKED: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);
const DNS_PORT: u16 = 53;
/// Discard (RFC 863): a port for a route's sake; nothing is sent there.
const DISCARD: u16 = 9;
/// The id of our question, and the question: the name servers of the root.
const QUESTION: [u8; 17] = [0xd0, 0x0c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Looks around; `ask`: questions may be sent.
pub(super) async fn around(interface: &ServedInterface, ask: bool) -> Vec<Finding> {
    let network = &interface.network;
    let mut findings: Vec<Finding> = mtu(interface).into_iter().collect();
    if !ask {
        return findings;
    }
    if let Some(gateway) = network.gateway.filter(|gateway| *gateway != interface.address) {
        findings.push(self::gateway(interface, gateway).await);
    }
    for server in network.dns.iter().filter(|server| **server != interface.address) {
        findings.push(name_server(interface, SocketAddr::new(IpAddr::V4(*server), DNS_PORT)).await);
    }
    findings
}

/// What the device carries against what its clients are told.
fn mtu(interface: &ServedInterface) -> Option<Finding> {
    let told = i32::from(interface.network.mtu.unwrap_or(1500));
    let socket = bound(interface, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, false).ok()?;
    // Nothing is sent: the kernel looks up the route, and that has the device's MTU.
    let other = Ipv4Addr::from(u32::from(interface.network.prefix.address) | 1);
    socket.connect(&SocketAddr::new(IpAddr::V4(other), DISCARD).into()).ok()?;
    let has = getsockopt(&socket, sockopt::IpMtu).ok()?;
    Some(judge_mtu(has, told, &interface.device).on(interface))
}

fn judge_mtu(has: i32, told: i32, device: &str) -> Finding {
    if has >= told {
        return Finding::new(
            "mtu",
            Severity::Good,
            format!("packets of {has} bytes; clients are told {told}"),
            "",
        );
    }
    let found =
        format!("packets of {has} bytes, and clients are told {told}: their larger ones are lost here");
    let action = format!("ip link set {device} mtu {told}, or correct `mtu` in the plan");
    Finding::new("mtu", Severity::Fault, found, action)
}

/// Whether the gateway that clients are told answers ARP.
async fn gateway(interface: &ServedInterface, gateway: Ipv4Addr) -> Finding {
    let fault = |found: String| {
        let action =
            "correct the gateway in the plan, or switch it on: clients reach nothing beyond their network";
        Finding::new("gateway", Severity::Warning, found, action).on(interface)
    };
    let start = Instant::now();
    let now = || Timestamp(start.elapsed().as_millis() as u64);
    for _ in 0..ASKED {
        // A new one each time: it does not ask for the same address twice in a short time.
        let mut arp = match Arp::bind(&interface.device) {
            Ok(arp) => arp,
            Err(error) => return fault(format!("{gateway} cannot be asked: {error}")),
        };
        // Whoever answers is not us.
        arp.probe(gateway, arp.own(), now());
        if tokio::time::timeout(PAUSE, arp.conflict(now)).await.is_ok() {
            let found = format!("{gateway} answers ARP");
            return Finding::new("gateway", Severity::Good, found, "").on(interface);
        }
    }
    fault(format!("{gateway} does not answer ARP"))
}

/// Whether a name server that clients are told answers at all.
async fn name_server(interface: &ServedInterface, server: SocketAddr) -> Finding {
    let address = server.ip();
    match tokio::time::timeout(PATIENCE, answered(interface, server)).await {
        Ok(Ok(())) => Finding::new("dns", Severity::Good, format!("{address} answers"), "").on(interface),
        other => {
            let why = match other {
                Ok(Err(error)) => error.to_string(),
                _ => "no answer".to_owned(),
            };
            let action = "correct `dns` of this network in the plan, or start that name server";
            Finding::new("dns", Severity::Warning, format!("name server {address}: {why}"), action)
                .on(interface)
        }
    }
}

async fn answered(interface: &ServedInterface, server: SocketAddr) -> io::Result<()> {
    let socket = bound(interface, IpAddr::V4(interface.address), 0, false)?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect(server).await?;
    socket.send(&QUESTION).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Our id, and the bit that says that it is an answer.
        if length >= 12 && answer[..2] == QUESTION[..2] && answer[2] & 0x80 != 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Ipv4Prefix, ServedNetwork};
    use dayzero_model::site::NetworkRole;

    fn lo() -> ServedInterface {
        let prefix = Ipv4Prefix { address: Ipv4Addr::new(127, 0, 0, 0), len: 8 };
        let network = ServedNetwork::new("mgmt".parse().unwrap(), NetworkRole::Management, prefix);
        ServedInterface { device: "lo".into(), address: Ipv4Addr::LOCALHOST, network }
    }

    #[test]
    fn a_device_must_carry_what_clients_are_told() {
        for (has, told, severity) in
            [(1500, 1500, Severity::Good), (9000, 1500, Severity::Good), (1500, 9000, Severity::Fault)]
        {
            assert_eq!(judge_mtu(has, told, "mgmt0").severity, severity, "{has} {told}");
        }
    }

    /// Whatever it answers: it is there. An echo of the question is no answer.
    #[tokio::test]
    async fn a_name_server_that_answers_is_told_from_one_that_does_not() {
        for (flags, severity) in [(0x81, Severity::Good), (0x01, Severity::Warning)] {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let at = server.local_addr().unwrap();
            let serving = tokio::spawn(async move {
                let mut question = [0; 512];
                let (length, from) = server.recv_from(&mut question).await.unwrap();
                question[2] = flags;
                server.send_to(&question[..length], from).await.unwrap();
                server
            });
            let finding = name_server(&lo(), at).await;
            assert_eq!(finding.severity, severity, "{finding:?}");
            drop(serving.await.unwrap());
        }
    }
}
