//! Starts the services of every interface, and ends them together.
//!
//! Invariants: what is opened is what [`Opened`] says; no service ends alone: the first that ends before it was told to ends
//! the others, and [`PxeServer::run`] names it, so that its caller can say so and begin anew.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, PxeConfig, ServedInterface};
use crate::dhcp::core::DhcpCore;
use crate::dhcp::lease::{LeaseStore, LeaseStoreError};
use crate::dhcp::networks::Networks;
use crate::dhcp::serve::{DhcpServer, Parts};
use crate::dhcp6;
use crate::director::BootDirector;
use crate::dns::serve::NameServer;
use crate::dns::zone::{LiveZone, Zone};
use crate::http::HttpBoot;
use crate::http::workers::Workers;
use crate::live::Live;
use crate::net::device_mac;
use crate::opened::{Opened, listens_at, opened, six};
use crate::ra::RouterAdvertiser;
use crate::session::Sessions;
use crate::tftp::Tftp;

/// Why the services did not start, or cannot follow a plan.
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
    /// Services that run were told of a plan that needs other sockets.
    #[error("the plan needs other sockets: the boot services must begin anew")]
    Sockets,
}

/// A service ended before it was told to; the others have ended too.
#[derive(Debug, thiserror::Error)]
#[error("{service} ended")]
pub struct RunError {
    /// Which, and where.
    service: String,
    /// Why, if it said so.
    #[source]
    source: Option<io::Error>,
}

/// How a service begins.
type Start = Box<dyn FnOnce(Workers, CancellationToken) -> BoxFuture<'static, io::Result<()>> + Send>;

/// The boot services, bound to their sockets; [`PxeServer::run`] serves.
pub struct PxeServer {
    /// By name.
    services: Vec<(String, Start)>,
    live: Live,
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
        let zone = Zone::new(&config.names).map(LiveZone::new);
        let opened: Arc<[Opened]> = opened(&config).into();
        let (listed, shared, names) = (Arc::clone(&opened), Arc::clone(&networks), zone.clone());
        let live = Live { opened: listed, networks: shared, zone: names, leases: Arc::clone(&leases) };
        let mut server = Self { services: Vec::new(), live };
        // One for all interfaces (RFC 8415 section 11): a relay may bring the same client to any of them.
        let mut server_duid: Option<Vec<u8>> = None;
        let mut links = BTreeMap::new();
        for (interface, open) in config.interfaces.iter().zip(&*opened) {
            let failed = |service| failure(service, interface);
            let on = |service: &str| format!("{service} on {}", interface.device);
            if open.dhcp {
                let (networks, told) = (Arc::clone(&networks), Arc::clone(&director));
                let core = DhcpCore::new(interface, &config, networks, told, sessions.clone());
                let address = SocketAddrV4::new(interface.address, config.ports.dhcp);
                let parts = Parts { core, leases: Arc::clone(&leases), director: Arc::clone(&director) };
                let dhcp = DhcpServer::bind(&interface.device, address, open.boot_server, parts);
                let dhcp = dhcp.map_err(failed("DHCP"))?;
                server.add(on("DHCP"), |_, end| dhcp.run(end));
            }
            if open.dhcp6 {
                let duid = match &server_duid {
                    Some(duid) => duid.clone(),
                    None => leases.duid(made_duid(interface).map_err(failed("DHCPv6"))?).await?,
                };
                let (networks, told) = (Arc::clone(&networks), Arc::clone(&director));
                let own = dhcp6::Told::on(interface, &config, &six);
                let core =
                    dhcp6::Core::new(interface, &config, networks, duid.clone(), own, told, sessions.clone());
                server_duid = Some(duid);
                let bound = dhcp6::serve::Server::bind(&interface.device, core, Arc::clone(&director));
                let bound = bound.map_err(failed("DHCPv6"))?;
                server.add(on("DHCPv6"), |_, end| bound.run(end).map(Ok));
            }
            if let Some(zone) = zone.as_ref().filter(|_| open.names) {
                let ours: Arc<[IpAddr]> = listens_at(interface, &six).collect();
                for address in &*ours {
                    let at = SocketAddr::new(*address, config.ports.dns);
                    let names = NameServer::bind(&interface.device, at, Arc::clone(&ours), zone.clone());
                    let names = names.map_err(failure("DNS", interface))?;
                    server.add(format!("DNS at {address} on {}", interface.device), |_, end| {
                        names.run(end).map(Ok)
                    });
                }
            }
            if let Some(advertised) = open.advertised {
                match RouterAdvertiser::bind(&interface.device, advertised) {
                    Ok(advertiser) => {
                        server.add(on("router advertisement"), |_, end| advertiser.run(end).map(Ok));
                    }
                    // Only seconds are lost without it, and a kernel without IPv6 is no fault.
                    Err(error) => tracing::warn!(%error, device = %interface.device,
                        "no router advertisement: each iPXE waits 13 seconds longer"),
                }
            }
            if interface.boots() {
                let http = HttpBoot::bind(interface, &config, &six, Arc::clone(&director), sessions.clone());
                let http = http.map_err(failed("HTTP boot"))?;
                links.insert(interface.device.clone(), http.link());
                server.add(on("HTTP boot"), |workers, end| http.run(workers, end).map(Ok));
            }
        }
        if config.interfaces.iter().any(ServedInterface::boots) {
            let tftp = Tftp::bind(&config, &six, director, sessions, links)?;
            server.add("TFTP".to_owned(), |_, end| tftp.run(end));
        }
        Ok(server)
    }

    fn add<F: Future<Output = io::Result<()>> + Send + 'static>(
        &mut self,
        name: String,
        start: impl FnOnce(Workers, CancellationToken) -> F + Send + 'static,
    ) {
        self.services.push((name, Box::new(|workers, end| start(workers, end).boxed())));
    }

    /// The way to tell these services of another plan while they run.
    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// Serves until `cancel`, then ends every connection and returns.
    ///
    /// # Errors
    /// [`RunError`]: a service ended by itself.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), RunError> {
        let end = cancel.child_token();
        // Threads are told even if this is dropped before its end.
        let _ends = end.clone().drop_guard();
        let mut running = Running::default();
        // They live as long as somebody may give them work.
        let workers = Workers::start(&mut running.threads, &end);
        let workers = workers.map_err(|error| RunError::of(THREADS, Some(error)))?;
        for (name, start) in self.services {
            running.add(name, start(workers.clone(), end.clone()));
        }
        let ended = running.until_end(&end).await;
        drop(workers);
        ended
    }
}

const THREADS: &str = "the threads of HTTP boot";

impl RunError {
    fn of(service: &str, source: Option<io::Error>) -> Self {
        Self { service: service.to_owned(), source }
    }
}

/// Services at work.
#[derive(Default)]
struct Running {
    tasks: JoinSet<io::Result<()>>,
    names: HashMap<Id, String>,
    threads: JoinSet<()>,
}

impl Running {
    fn add(&mut self, name: String, task: impl Future<Output = io::Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Until all have ended; the first one that ends before `end` ends the others.
    async fn until_end(mut self, end: &CancellationToken) -> Result<(), RunError> {
        let mut first = None;
        loop {
            let (id, ended) = tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((id, ended)) => (Some(id), ended),
                    Err(error) => (Some(error.id()), Err(io::Error::other(error))),
                },
                Some(ended) = self.threads.join_next() => (None, ended.map_err(io::Error::other)),
                else => break,
            };
            let service = id.and_then(|id| self.names.get(&id)).map_or(THREADS, String::as_str);
            if !end.is_cancelled() {
                end.cancel();
                first = Some(RunError::of(service, ended.err()));
            } else if let Err(error) = ended {
                tracing::error!(%error, service, "a boot service failed at its end");
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// An identifier for DHCPv6, where none is kept: DUID-LL (RFC 8415 section 11.4) of this interface.
fn made_duid(interface: &ServedInterface) -> io::Result<Vec<u8>> {
    let mac = device_mac(&interface.device)?;
    Ok([&[0, 3, 0, 1], &mac.0[..]].concat())
}

fn failure(service: &'static str, interface: &ServedInterface) -> impl FnOnce(io::Error) -> StartError {
    let device = interface.device.clone();
    move |source| StartError::Socket { service, device, source }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
