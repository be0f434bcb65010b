//! Looks before anything is served: what would be in the way of network boot here, and what to do about it.
//!
//! Invariants: it answers nobody and keeps nothing; what it sends is DHCP's first question in the name of a made-up client
//! (DISCOVER as plain clients and firmware send it, SOLICIT) and a router solicitation, to hear who else answers, an ARP probe
//! for the gateway and a question to each name server of a network; nothing at all where it shall only listen. It runs in the network namespace of its thread.

mod around;
mod beneath;
mod clock;

pub(crate) mod routers;
mod servers;
mod six;
pub(crate) mod switch;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{PxeConfig, ServedInterface};
use crate::dhcp6::serve::SERVER_PORT as DHCP6;
use crate::net::device_has;
use crate::opened::missing6;
use dayzero_model::site::{DhcpMode, NetworkRole};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Good,
    /// It works, but something is lost.
    Warning,
    /// It will not work.
    Fault,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Fault => "fault",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, such as `port` or `other-dhcp`.
    pub check: &'static str,
    /// Interface, where it is about one.
    pub interface: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub found: String,
    /// What a person can do; empty where nothing is to be done.
    pub action: String,
}

impl Finding {
    fn new(
        check: &'static str,
        severity: Severity,
        found: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self { check, interface: None, severity, found: found.into(), action: action.into() }
    }

    fn on(mut self, interface: &ServedInterface) -> Self {
        self.interface = Some(interface.device.clone());
        self
    }
}

/// How the examination is done.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Directories that need free space, with bytes.
    pub space: Vec<(PathBuf, u64)>,
    /// Whether ports are tried: not while we serve on them ourselves.
    pub ports: bool,
    /// TCP listeners that are to be on this machine beside those of network boot, with what each is: tried as ports are.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Directories that the appliance has written to: what it wrote last is no later than now.
    pub written: Vec<PathBuf>,
    /// How long to listen for other DHCP servers and routers; zero: not at all.
    pub listen: Duration,
    /// How long to listen for the switches' LLDP, which they send each 30 s; zero: not at all. It ends as soon as each
    /// port heard one.
    pub lldp: Duration,
    /// Whether to ask them, too; else nothing is sent.
    pub ask: bool,
}

impl Default for Examination {
    fn default() -> Self {
        Self {
            space: Vec::new(),
            ports: true,
            listeners: Vec::new(),
            written: Vec::new(),
            listen: Duration::from_secs(3),
            lldp: Duration::from_secs(31),
            ask: true,
        }
    }
}

/// Examines; the worst findings come first.
pub async fn examine(config: &PxeConfig, how: &Examination) -> Vec<Finding> {
    let mut findings = vec![clock::clock(&how.written)];
    if let Err(error) = config.check() {
        findings.push(Finding::new("configuration", Severity::Fault, error.to_string(), "correct the plan"));
    }
    findings.extend(files(config));
    findings.extend(how.space.iter().map(|(path, need)| space(path, *need)));
    if how.ports {
        findings.extend(how.listeners.iter().map(|(name, address)| listener(name, *address)));
    }
    let addresses: Vec<InterfaceAddress> = getifaddrs().map(Iterator::collect).unwrap_or_default();
    let mut linked = Vec::new();
    for interface in &config.interfaces {
        let link = link(interface, &addresses);
        if link.severity != Severity::Fault {
            linked.push(interface);
        }
        findings.push(link);
        findings.extend(beneath::links(Path::new(beneath::SYS), interface));
    }
    let switches =
        async { if how.lldp.is_zero() { Vec::new() } else { switch::switches(&linked, how.lldp).await } };
    let (of_switches, of_networks) = tokio::join!(switches, networks(config, how, &linked, &addresses));
    findings.extend(of_switches);
    findings.extend(of_networks);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// What is on each interface with a link.
async fn networks(
    config: &PxeConfig,
    how: &Examination,
    linked: &[&ServedInterface],
    addresses: &[InterfaceAddress],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in linked {
        if interface.network.role == NetworkRole::Storage {
            continue;
        }
        if how.ports {
            findings.extend(ports(config, interface));
        }
        if interface.boots() {
            findings.extend(link_local(interface, addresses));
        }
        if interface.listens6() {
            findings.extend(own_ipv6(interface));
        }
        findings.extend(around::around(interface, how.ask).await);
        if !how.listen.is_zero() {
            let (four, six) =
                tokio::join!(servers::others(config, interface, how), six::others(interface, addresses, how));
            findings.extend(four);
            findings.extend(six);
        }
    }
    findings
}

fn files(config: &PxeConfig) -> Vec<Finding> {
    if !config.interfaces.iter().any(ServedInterface::boots) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (name, path) in &config.boot.files {
        if let Err(error) = std::fs::File::open(path) {
            let found = format!("boot file {name}: {} cannot be read: {error}", path.display());
            findings.push(Finding::new(
                "boot-files",
                Severity::Fault,
                found,
                "build the images: `cargo xtask images`",
            ));
        }
    }
    if findings.is_empty() {
        let found = format!("{} boot files are readable", config.boot.files.len());
        findings.push(Finding::new("boot-files", Severity::Good, found, ""));
    }
    findings
}

fn space(path: &Path, need: u64) -> Finding {
    let mib = |bytes: u64| bytes >> 20;
    match nix::sys::statvfs::statvfs(path) {
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            Finding::new("disk", Severity::Fault, found, "create the directory, or name another one")
        }
        Ok(about) => {
            let free = about.blocks_available().saturating_mul(about.fragment_size());
            let found = format!("{}: {} MiB free, {} MiB needed", path.display(), mib(free), mib(need));
            if free >= need {
                Finding::new("disk", Severity::Good, found, "")
            } else {
                Finding::new(
                    "disk",
                    Severity::Fault,
                    found,
                    "free space, or put the data directory elsewhere",
                )
            }
        }
    }
}

fn link(interface: &ServedInterface, addresses: &[InterfaceAddress]) -> Finding {
    let own: Vec<&InterfaceAddress> =
        addresses.iter().filter(|a| a.interface_name == interface.device).collect();
    let fault =
        |found: String, action: String| Finding::new("link", Severity::Fault, found, action).on(interface);
    let Some(any) = own.first() else {
        let names: BTreeSet<&str> = addresses.iter().map(|a| a.interface_name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        return fault(
            format!("no such interface; there are {}", names.join(", ")),
            "correct its name".to_owned(),
        );
    };
    if !any.flags.contains(InterfaceFlags::IFF_UP) {
        return fault("the interface is down".to_owned(), format!("ip link set {} up", interface.device));
    }
    if !any.flags.contains(InterfaceFlags::IFF_RUNNING) {
        return fault("no carrier".to_owned(), "plug in its cable, or enable the switch port".to_owned());
    }
    let has = |a: &InterfaceAddress| {
        a.address.as_ref().and_then(|a| a.as_sockaddr_in()).is_some_and(|a| a.ip() == interface.address)
    };
    if !own.into_iter().any(has) {
        let action = format!(
            "ip addr add {}/{} dev {}",
            interface.address, interface.network.prefix.len, interface.device
        );
        return fault(format!("it does not have the address {}", interface.address), action);
    }
    Finding::new("link", Severity::Good, format!("up, with {}", interface.address), "").on(interface)
}

fn link_local(interface: &ServedInterface, addresses: &[InterfaceAddress]) -> Option<Finding> {
    let has = addresses.iter().filter(|a| a.interface_name == interface.device).any(|a| {
        let v6 = a.address.as_ref().and_then(|a| a.as_sockaddr_in6());
        v6.is_some_and(|a| a.ip().is_unicast_link_local())
    });
    let found = "no IPv6 link-local address, so no router advertisement: each iPXE waits 13 seconds longer";
    let action = format!("sysctl net.ipv6.conf.{}.disable_ipv6=0", interface.device);
    (!has).then(|| Finding::new("ipv6", Severity::Warning, found, action).on(interface))
}

/// Where the plan has an IPv6 prefix, hosts boot and ask our DNS by IPv6 as well, if we have our address there.
fn own_ipv6(interface: &ServedInterface) -> Option<Finding> {
    let address = interface.address6()?;
    if device_has(&interface.device, IpAddr::V6(address)) {
        let what = if interface.boots() { "hosts boot" } else { "our DNS answers" };
        let found = format!("has {address}: {what} by IPv6 too");
        return Some(Finding::new("ipv6", Severity::Good, found, "").on(interface));
    }
    let what = if interface.boots() { "nothing boots" } else { "our DNS does not answer" };
    let found =
        format!("it does not have {address}, our address by the plan's `cidr6`: {what} by IPv6 there");
    Some(Finding::new("ipv6", Severity::Warning, found, missing6(interface, address)).on(interface))
}

fn ports(config: &PxeConfig, interface: &ServedInterface) -> Vec<Finding> {
    let mut tries: Vec<(&str, u16, io::Result<()>)> = vec![(
        "DHCP, UDP",
        config.ports.dhcp,
        udp(interface, Ipv4Addr::UNSPECIFIED.into(), config.ports.dhcp),
    )];
    let six = interface.address6().map(IpAddr::V6).filter(|six| device_has(&interface.device, *six));
    let ours = || [IpAddr::V4(interface.address)].into_iter().chain(six);
    for address in ours().filter(|_| interface.boots()) {
        tries.push(("TFTP, UDP", config.ports.tftp, udp(interface, address, config.ports.tftp)));
        let tcp = TcpListener::bind(SocketAddr::new(address, config.ports.http));
        tries.push(("HTTP boot, TCP", config.ports.http, tcp.map(drop)));
        let tcp = TcpListener::bind(SocketAddr::new(address, config.ports.https));
        tries.push(("HTTPS boot, TCP", config.ports.https, tcp.map(drop)));
    }
    let own = IpAddr::V4(interface.address);
    if let Some(port) = config.boot_server(interface) {
        tries.push(("proxyDHCP's boot server, UDP", port, udp(interface, own, port)));
    }
    for address in ours().filter(|_| interface.names()) {
        let port = config.ports.dns;
        tries.push(("DNS, UDP", port, udp(interface, address, port)));
        tries.push(("DNS, TCP", port, TcpListener::bind(SocketAddr::new(address, port)).map(drop)));
    }
    if interface.network.prefix6.is_some() && interface.network.mode == DhcpMode::Serve {
        tries.push(("DHCPv6, UDP", DHCP6, udp(interface, Ipv6Addr::UNSPECIFIED.into(), DHCP6)));
    }
    let judge =
        |(service, port, tried)| port_finding(&format!("{service} port {port}"), port, tried).on(interface);
    tries.into_iter().map(judge).collect()
}

/// Whether a listener that is not of network boot can be opened.
fn listener(name: &str, address: SocketAddr) -> Finding {
    port_finding(&format!("{name}, TCP {address}"), address.port(), TcpListener::bind(address).map(drop))
}

fn port_finding(service: &str, port: u16, tried: io::Result<()>) -> Finding {
    let fault = |found: String, action: String| Finding::new("port", Severity::Fault, found, action);
    match tried {
        Ok(()) => Finding::new("port", Severity::Good, format!("{service} is free"), ""),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => fault(
            format!("{service} is taken by another program"),
            format!("`ss -lnp 'sport = {port}'` names it: stop it"),
        ),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => fault(
            format!("{service} cannot be opened: this machine does not have the address"),
            "set the address on an interface, or correct it in the plan or in serve.toml".to_owned(),
        ),
        Err(error) => fault(
            format!("{service} cannot be opened: {error}"),
            "run as root, or with CAP_NET_BIND_SERVICE and CAP_NET_RAW".to_owned(),
        ),
    }
}

fn bound(interface: &ServedInterface, address: IpAddr, port: u16, share: bool) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(share)?;
    socket.bind_device(Some(interface.device.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn udp(interface: &ServedInterface, address: IpAddr, port: u16) -> io::Result<()> {
    bound(interface, address, port, false).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{Ipv4Prefix, Ipv6Prefix, ServedNetwork};

    #[test]
    fn each_fault_says_what_to_do() {
        let missing = link(&ServedInterface { device: "nope0".into(), ..interface(NetworkRole::Bmc) }, &[]);
        assert_eq!((missing.severity, missing.interface.as_deref()), (Severity::Fault, Some("nope0")));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(space(dir.path(), 1).severity, Severity::Good);
        let full = space(dir.path(), u64::MAX);
        let findings = [missing, full, files(&config()).remove(0)];
        for finding in findings {
            assert_eq!(finding.severity, Severity::Fault, "{finding:?}");
            assert!(!finding.action.is_empty() && !finding.found.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn our_ipv6_address_is_there_or_how_it_gets_there_is_said() {
        let mut lo = ServedInterface { device: "lo".into(), ..interface(NetworkRole::Management) };
        assert!(own_ipv6(&lo).is_none(), "the plan has no prefix");
        lo.network.prefix6 = Some(Ipv6Prefix { address: "fd77::".parse().unwrap(), len: 64 });
        let finding = own_ipv6(&lo).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.action, "ip addr add fd77::a4d:2/64 dev lo");
        lo.network.prefix6 = Some(Ipv6Prefix { address: "::".parse().unwrap(), len: 96 });
        lo.address = Ipv4Addr::new(0, 0, 0, 1);
        assert_eq!(own_ipv6(&lo).unwrap().severity, Severity::Good);
    }

    #[tokio::test]
    async fn listeners_beside_network_boots_are_tried_too() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (held, free) = (bind(), bind().local_addr().unwrap());
        let nowhere: SocketAddr = "192.0.2.1:7443".parse().unwrap();
        let listeners = vec![
            ("console".to_owned(), held.local_addr().unwrap()),
            ("enrolment".to_owned(), free),
            ("agents".to_owned(), nowhere),
        ];
        let quiet = Examination { listen: Duration::ZERO, lldp: Duration::ZERO, ..Examination::default() };
        let config = PxeConfig { interfaces: Vec::new(), ..config() };
        let ports = |findings: Vec<Finding>| -> Vec<(Severity, String)> {
            findings.into_iter().filter(|f| f.check == "port").map(|f| (f.severity, f.found)).collect()
        };
        let found =
            ports(examine(&config, &Examination { listeners: listeners.clone(), ..quiet.clone() }).await);
        let of = |name: &str| found.iter().find(|(_, found)| found.starts_with(name)).unwrap();
        assert!(of("console").0 == Severity::Fault && of("console").1.contains("taken"), "{found:?}");
        assert_eq!(of("enrolment").0, Severity::Good, "{found:?}");
        assert!(of("agents").0 == Severity::Fault && of("agents").1.contains("does not have"), "{found:?}");
        let ours = Examination { listeners, ports: false, ..quiet };
        assert_eq!(ports(examine(&config, &ours).await), [], "while we serve, they are ours");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let lo = ServedInterface {
            device: "lo".into(),
            address: Ipv4Addr::LOCALHOST,
            network: ServedNetwork {
                prefix: Ipv4Prefix { address: Ipv4Addr::LOCALHOST, len: 8 },
                ..interface(NetworkRole::Bmc).network
            },
        };
        let taken = bound(&lo, Ipv4Addr::UNSPECIFIED.into(), 0, false).unwrap();
        let port = taken.local_addr().unwrap().as_socket_ipv4().unwrap().port();
        let mut config = config();
        config.ports.dhcp = port;
        config.interfaces = vec![lo];
        let how = Examination { listen: Duration::ZERO, lldp: Duration::ZERO, ..Examination::default() };
        let findings = examine(&config, &how).await;
        let port_finding = findings.iter().find(|f| f.check == "port").unwrap();
        assert_eq!(port_finding.severity, Severity::Fault, "{findings:?}");
        assert!(port_finding.found.contains("taken"), "{port_finding:?}");
    }
}
