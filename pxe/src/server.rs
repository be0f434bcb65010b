//! Starts the services of every interface, and ends them together.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;

use dayzero_model::site::{DhcpMode, NetworkRole};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, PxeConfig, ServedInterface};
use crate::dhcp::core::DhcpCore;
use crate::dhcp::lease::{LeaseStore, LeaseStoreError};
use crate::dhcp::networks::Networks;
use crate::dhcp::serve::{DhcpServer, Parts};
use crate::dhcp6;
use crate::director::BootDirector;
use crate::dns::serve::NameServer;
use crate::dns::zone::Zone;
use crate::http::HttpBoot;
use crate::http::workers::Workers;
use crate::net::{device_has, device_mac};
use crate::ra::RouterAdvertiser;
use crate::session::Sessions;
use crate::tftp::Tftp;

/// Why the services did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error("the boot services' configuration is wrong")]
    Config(#[from] ConfigError),
    /// A socket could not be opened.
    #[error("{service} cannot start on {device}; `dayzero doctor` says what is in the way")]
    Socket {
        /// Which service.
        service: &'static str,
        /// On which device.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TFTP could not listen.
    #[error("TFTP cannot start; `dayzero doctor` says what is in the way")]
    Tftp(#[from] dayzero_tftp_server::BindError),
    /// The leases could not be read.
    #[error("the DHCP leases cannot be read")]
    Leases(#[from] LeaseStoreError),
}

/// The boot services, bound to their sockets; [`PxeServer::run`] serves.
pub struct PxeServer {
    dhcp: Vec<DhcpServer>,
    dhcp6: Vec<dhcp6::serve::Server>,
    advertisers: Vec<RouterAdvertiser>,
    http: Vec<HttpBoot>,
    names: Vec<NameServer>,
    tftp: Option<Tftp>,
}

impl PxeServer {
    /// Checks the configuration, reads the leases and opens every socket, in the network namespace of this thread.
    ///
    /// # Errors
    /// The first [`StartError`]; nothing is served then.
    pub async fn bind(
        config: PxeConfig,
        director: Arc<dyn BootDirector>,
        leases: Arc<dyn LeaseStore>,
    ) -> Result<Self, StartError> {
        config.check()?;
        let known = leases.load().await?;
        let (sessions, six) = (Sessions::default(), six(&config));
        let networks = Arc::new(Networks::new(&config, &known));
        let (dhcp, dhcp6, advertisers) = (Vec::new(), Vec::new(), Vec::new());
        let (http, names) = (Vec::new(), Vec::new());
        let mut server = Self { dhcp, dhcp6, advertisers, http, names, tftp: None };
        let zone = Zone::new(&config.names).map(Arc::new);
        // One for all interfaces (RFC 8415 section 11): a relay may bring the same client to any of them.
        let mut server_duid: Option<Vec<u8>> = None;
        let mut links = BTreeMap::new();
        for interface in config.interfaces.iter().filter(|i| i.network.role != NetworkRole::Storage) {
            let failed = |service| failure(service, interface);
            if serves_dhcp(&config, interface) {
                let (networks, told) = (Arc::clone(&networks), Arc::clone(&director));
                let core = DhcpCore::new(interface, &config, networks, told, sessions.clone());
                let address = SocketAddrV4::new(interface.address, config.ports.dhcp);
                let boot_server = config.boot_server(interface);
                let parts = Parts { core, leases: Arc::clone(&leases), director: Arc::clone(&director) };
                let dhcp = DhcpServer::bind(&interface.device, address, boot_server, parts);
                server.dhcp.push(dhcp.map_err(failed("DHCP"))?);
            }
            if serves_dhcp6(&config, interface) {
                let duid = match &server_duid {
                    Some(duid) => duid.clone(),
                    None => leases.duid(made_duid(interface).map_err(failed("DHCPv6"))?).await?,
                };
                let (told, sessions) = (Arc::clone(&director), sessions.clone());
                let at6 = six.get(&interface.device).copied();
                let core = dhcp6::Core::new(interface, &config, duid.clone(), at6, told, sessions);
                server_duid = Some(duid);
                let bound = dhcp6::serve::Server::bind(&interface.device, core, Arc::clone(&director));
                server.dhcp6.push(bound.map_err(failed("DHCPv6"))?);
            }
            if let Some(zone) = zone.as_ref().filter(|_| interface.names()) {
                let address = SocketAddrV4::new(interface.address, config.ports.dns);
                let names = NameServer::bind(&interface.device, address, Arc::clone(zone));
                server.names.push(names.map_err(failed("DNS"))?);
            }
            if !interface.boots() {
                continue;
            }
            let http = HttpBoot::bind(interface, &config, &six, Arc::clone(&director), sessions.clone());
            let http = http.map_err(failed("HTTP boot"))?;
            links.insert(interface.device.clone(), http.link());
            server.http.push(http);
            match RouterAdvertiser::bind(&interface.device, interface.network.prefix6) {
                Ok(advertiser) => server.advertisers.push(advertiser),
                // Only seconds are lost without it, and a kernel without IPv6 is no fault.
                Err(error) => tracing::warn!(%error, device = %interface.device,
                    "no router advertisement: each iPXE waits 13 seconds longer"),
            }
        }
        if config.interfaces.iter().any(ServedInterface::boots) {
            server.tftp = Some(Tftp::bind(&config, &six, director, sessions, links)?);
        }
        Ok(server)
    }

    /// Serves until `cancel`, then ends every connection and returns.
    pub async fn run(self, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        let workers = match Workers::start(&mut tasks, &cancel) {
            Ok(workers) => workers,
            Err(error) => return tracing::error!(%error, "the boot services cannot start their threads"),
        };
        for dhcp in self.dhcp {
            tasks.spawn(dhcp.run(cancel.clone()));
        }
        for dhcp in self.dhcp6 {
            tasks.spawn(dhcp.run(cancel.clone()));
        }
        for advertiser in self.advertisers {
            tasks.spawn(advertiser.run(cancel.clone()));
        }
        for http in self.http {
            tasks.spawn(http.run(workers.clone(), cancel.clone()));
        }
        for names in self.names {
            tasks.spawn(names.run(cancel.clone()));
        }
        if let Some(tftp) = self.tftp {
            tasks.spawn(tftp.run(cancel.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a boot service ended");
            }
        }
    }
}

/// Where our DHCP is off, relays may still bring clients of other networks.
fn serves_dhcp(config: &PxeConfig, interface: &ServedInterface) -> bool {
    interface.network.mode != DhcpMode::Off || !config.relayed.is_empty()
}

/// Where the plan has an IPv6 prefix, or relays of networks that have one.
fn serves_dhcp6(config: &PxeConfig, interface: &ServedInterface) -> bool {
    let own = interface.network.prefix6.is_some() && interface.network.mode == DhcpMode::Serve;
    own || config.relayed.iter().any(|network| network.prefix6.is_some())
}

/// An identifier for DHCPv6, where none is kept: DUID-LL (RFC 8415 section 11.4) of this interface.
fn made_duid(interface: &ServedInterface) -> io::Result<Vec<u8>> {
    let mac = device_mac(&interface.device)?;
    Ok([&[0, 3, 0, 1], &mac.0[..]].concat())
}

/// Our IPv6 addresses that boot services listen on, by device.
pub(crate) type Six = BTreeMap<String, Ipv6Addr>;

/// Those that the plan gives us and the devices have. A device without its own loses IPv6 alone.
fn six(config: &PxeConfig) -> Six {
    let mut six = Six::new();
    for interface in config.interfaces.iter().filter(|interface| interface.boots()) {
        let Some(address) = interface.address6() else { continue };
        let device = &interface.device;
        if device_has(device, IpAddr::V6(address)) {
            six.insert(device.clone(), address);
        } else {
            tracing::warn!(%device, %address, "the device does not have our IPv6 address: nothing boots by IPv6 there. \
                {}, then restart", missing6(interface, address));
        }
    }
    six
}

/// What to do about it.
pub(crate) fn missing6(interface: &ServedInterface, address: Ipv6Addr) -> String {
    let len = interface.network.prefix6.map_or(64, |prefix| prefix.len);
    format!("ip addr add {address}/{len} dev {}", interface.device)
}

/// The addresses that an interface's boot services listen on.
pub(crate) fn boots_at(interface: &ServedInterface, six: &Six) -> impl Iterator<Item = IpAddr> + use<> {
    let v6 = six.get(&interface.device).copied().map(IpAddr::V6);
    std::iter::once(IpAddr::V4(interface.address)).chain(v6)
}

fn failure(service: &'static str, interface: &ServedInterface) -> impl FnOnce(io::Error) -> StartError {
    let device = interface.device.clone();
    move |source| StartError::Socket { service, device, source }
}
