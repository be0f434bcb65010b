//! The control plane at work: its loops, and the listeners of the plan's networks.
//!
//! Invariants: no listener before there is a plan; each is bound to the one address that the plan gives the appliance on
//! that network; when another plan needs other sockets, all of them begin anew, and else they go on and tell their clients
//! what it says; what cannot be bound, or ends by itself, is on the to-do list until it serves again.

use crate::agents::{self, ConnectedAgents};
use crate::boot::{Director, INITRD, KERNEL};
use crate::config::{ControlConfig, Listener, Puller};
use crate::control::{Control, OpenError, Plan};
use crate::leases::StoredLeases;
use crate::pinger::IcmpPings;
use crate::puller::{LabPuller, PersonPuller};
use crate::standing::{Standing, relayed, standings};
use crate::view::Todo;
use crate::world::{Agents, PathPuller, Profiles, RealBmcs, World, system_clock};
use crate::{enrol, media};
use dayzero_model::ids::Name;
use dayzero_model::inventory::Inventory;
use dayzero_model::site::{Network, Placed};
use dayzero_pxe::{BootFiles, Live, Loaders, NameZone, PxeConfig, PxeServer, ServedInterface, ServedNetwork};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pause before listeners that failed are tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// What ails a network begins so.
const NETWORK: &str = "network/";
/// What ails the boot services goes by this name.
pub(crate) const NETWORK_BOOT: &str = "network boot services";

/// Profiles as they come with Dayzero.
pub struct BuiltInProfiles;

impl Profiles for BuiltInProfiles {
    fn drift(&self, profile: &Name, placed: &Placed<'_>, inventory: &Inventory) -> Option<Vec<String>> {
        let profile = dayzero_profiles::by_name(profile).ok()?;
        let mut drift = dayzero_profiles::match_host(&profile, inventory);
        drift.extend(dayzero_profiles::match_plan(&profile, inventory, placed.host));
        Some(drift.iter().map(ToString::to_string).collect())
    }
}

/// A control plane that acts on the real world. `run` serves it.
pub struct Served {
    /// The control plane.
    pub control: Arc<Control>,
    agents: Arc<ConnectedAgents>,
}

/// Opens a control plane that acts on the real world. Blocks for the store.
///
/// # Errors
/// [`OpenError`].
pub fn open(config: ControlConfig) -> Result<Served, OpenError> {
    let agents = Arc::new(ConnectedAgents::default());
    let puller: Arc<dyn PathPuller> = match &config.puller {
        Puller::Person => Arc::new(PersonPuller::default()),
        Puller::Lab(socket) => Arc::new(LabPuller::new(socket.clone())),
    };
    let known: Arc<dyn Agents> = agents.clone();
    let world = World {
        bmcs: Arc::new(RealBmcs),
        agents: known,
        profiles: Arc::new(BuiltInProfiles),
        puller,
        pings: Arc::new(IcmpPings),
        clock: system_clock,
    };
    Ok(Served { control: Control::open(config, world)?, agents })
}

impl Control {
    /// Starts the loops that carry lives on. They end with [`Control::stop`].
    pub(crate) fn start(self: &Arc<Self>) {
        self.busy().started = true;
        let timeline = self.timeline.clone();
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move { timeline.run(cancel.cancelled_owned()).await });
        let first = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = first.look_at_all().await {
                tracing::error!(%error, "hosts could not be looked at");
            }
        });
        self.tasks.spawn(self.clone().tick_loop());
        self.tasks.spawn(self.clone().vms_loop());
        self.tasks.spawn(self.clone().paths_loop());
        self.tasks.spawn(self.clone().power_loop());
        self.tasks.spawn(self.clone().pending_loop());
    }

    /// Ends everything in order: no action begins, those under way are given up (they are derived again), events are
    /// stored, the store is closed.
    pub async fn stop(&self) {
        self.cancel.cancel();
        let flights: Vec<_> = self.busy().flights.drain().map(|(_, flight)| flight).collect();
        for flight in flights {
            flight.abort.abort();
        }
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = self.store_pending().await {
            tracing::error!(%error, "pending clients could not be stored");
        }
        self.timeline.flush().await;
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store could not be closed in order");
        }
    }

    pub(crate) fn ail(&self, key: &str, problem: Option<Todo>) {
        let mut mirror = self.mirror_mut();
        match problem {
            None => {
                mirror.ails.remove(key);
            }
            Some(todo) => {
                let since = mirror.ails.get(key).map(|old| old.since);
                let todo = Todo { since: since.unwrap_or(todo.since), ..todo };
                mirror.ails.insert(key.to_owned(), todo);
            }
        }
    }
}

impl Served {
    /// Runs until `cancel`, then stops in order.
    pub async fn run(self, cancel: CancellationToken) {
        let control = self.control.clone();
        control.start();
        while !cancel.is_cancelled() {
            self.round(&cancel).await;
        }
        control.stop().await;
    }

    /// Serves until `cancel`, or until a plan needs other sockets.
    async fn round(&self, cancel: &CancellationToken) {
        let control = &self.control;
        let changed = control.replanned.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let Some(config) = planned(control) else {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = &mut changed => {}
            }
            return;
        };
        let end = cancel.child_token();
        let plans = watch::Sender::new(config);
        let mut listeners = self.listen(&plans, &end);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(ended) = listeners.join_next() => {
                    tracing::error!(?ended, "a listener broke off: all begin anew");
                    pause(cancel).await;
                    break;
                }
                () = &mut changed => {
                    changed.set(control.replanned.notified());
                    changed.as_mut().enable();
                    match planned(control) {
                        Some(config) if config.opens_as(&plans.borrow()) => drop(plans.send_replace(config)),
                        _ => break,
                    }
                }
            }
        }
        end.cancel();
        let over = async { while listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), over).await.is_err() {
            tracing::warn!("some listeners did not end in time");
        }
    }

    /// Starts the listeners of all networks; they end with the token.
    fn listen(&self, plans: &watch::Sender<PxeConfig>, cancel: &CancellationToken) -> JoinSet<()> {
        let control = &self.control;
        let mut tasks = JoinSet::new();
        let ports = control.config.ports;
        for ServedInterface { network, address, .. } in &plans.borrow().interfaces {
            for (listener, port) in ports.listeners(network.role) {
                let (at, agents) = (SocketAddr::new(IpAddr::V4(*address), port), self.agents.clone());
                let (ours, end) = (control.clone(), cancel.clone());
                let again = move || {
                    let (ours, agents, end) = (ours.clone(), agents.clone(), end.clone());
                    async move {
                        match listener {
                            Listener::Agents => agents::serve(ours, agents, at, end).await,
                            Listener::Enrol => enrol::serve(ours, at, end).await,
                            Listener::Media => media::serve(ours, at, end).await,
                        }
                    }
                };
                let what = listener_at(listener.name(), at);
                tasks.spawn(keep(control.clone(), what, cancel.clone(), again));
            }
        }
        let director = Director::start(control);
        let (ours, end, plans) = (control.clone(), cancel.clone(), plans.subscribe());
        let again = move || pxe(ours.clone(), director.clone(), plans.clone(), end.clone());
        tasks.spawn(keep(control.clone(), NETWORK_BOOT.to_owned(), cancel.clone(), again));
        tasks
    }
}

/// What ails a listener goes by this name.
pub(crate) fn listener_at(name: &str, at: SocketAddr) -> String {
    format!("{name} {at}")
}

/// Serves again and again; a failure is on the to-do list meanwhile, and so is an end that nobody asked for.
pub(crate) async fn keep<F: Future<Output = std::io::Result<()>>>(
    control: Arc<Control>,
    what: String,
    cancel: CancellationToken,
    serve: impl Fn() -> F,
) {
    while !cancel.is_cancelled() {
        let serving = serve();
        tokio::pin!(serving);
        // Alive for a moment: what ailed is mended.
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = tokio::time::sleep(Duration::from_secs(1)) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                control.ail(&what, None);
                serving.await
            }
        };
        let error = match ended {
            _ if cancel.is_cancelled() => break,
            Ok(()) => std::io::Error::other("it ended by itself"),
            Err(error) => error,
        };
        tracing::error!(%error, "{what} failed");
        let todo = Todo {
            host: None,
            code: "listener-failed".to_owned(),
            sentence: format!("{what} cannot run: {error}"),
            evidence: Vec::new(),
            next_action:
                "where another program has its address and port, free them (`dayzero doctor` says who it is); it is tried again by itself"
                    .to_owned(),
            since: control.now(),
        };
        control.ail(&what, Some(todo));
        pause(&cancel).await;
    }
    // Whoever serves there next says anew what ails.
    control.ail(&what, None);
}

/// Before what failed is tried again.
async fn pause(cancel: &CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = tokio::time::sleep(AGAIN) => {}
    }
}

fn no_address(control: &Control, network: &Network) -> Todo {
    let address = network.appliance.map(|address| address.to_string()).unwrap_or_default();
    Todo {
        host: None,
        code: "no-address".to_owned(),
        sentence: format!(
            "no interface of the appliance has {address}, its address on network {}",
            network.name
        ),
        evidence: Vec::new(),
        next_action: format!(
            "set {address}/{} on the interface that is on {}, then restart",
            network.cidr.prefix_len(),
            network.name
        ),
        since: control.now(),
    }
}

/// What the plan of now has us serve, on each of its networks where we stand; one where no interface has our address goes
/// onto the to-do list. None: there is no plan.
fn planned(control: &Control) -> Option<PxeConfig> {
    let plan = control.plan()?;
    let (standings, missing) = standings(&plan.site);
    let left = |name: &str| !plan.site.networks.iter().any(|network| network.name.as_str() == name);
    control.mirror_mut().ails.retain(|key, _| !key.strip_prefix(NETWORK).is_some_and(left));
    for network in &plan.site.networks {
        let gone = missing.iter().find(|missing| missing.name == network.name);
        control.ail(&format!("{NETWORK}{}", network.name), gone.map(|_| no_address(control, network)));
    }
    Some(pxe_config(control, &plan, &standings))
}

pub(crate) fn pxe_config(control: &Control, plan: &Plan, standings: &[Standing]) -> PxeConfig {
    let images = &control.config.images;
    let served = |network: &Network| ServedNetwork::planned(network, &plan.site.domain);
    let interface = |standing: &Standing| ServedInterface {
        device: standing.device.clone(),
        address: standing.address,
        network: served(&standing.network),
    };
    let relayed = relayed(&plan.site).map(served).collect();
    let files = [(KERNEL, &images.kernel), (INITRD, &images.initrd)];
    let mut config =
        PxeConfig { interfaces: standings.iter().map(interface).collect(), relayed, ..PxeConfig::default() };
    config.ports.http = control.config.ports.http;
    config.ports.https = control.config.ports.https;
    config.names = NameZone::planned(&plan.site);
    config.boot = BootFiles {
        files: files.map(|(name, path)| (name.to_owned(), path.clone())).into(),
        kernel: KERNEL.to_owned(),
        initrd: INITRD.to_owned(),
        images: Some(images.host.clone()),
    };
    config
}

/// Network boot, by the last plan that was told.
pub(crate) async fn pxe(
    control: Arc<Control>,
    director: Arc<Director>,
    mut plans: watch::Receiver<PxeConfig>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let mut config = plans.borrow_and_update().clone();
    let ipxe = &control.config.images.ipxe;
    if ipxe.join(Loaders::ARM64).exists() {
        config.loaders.uefi_arm64 = Some(Loaders::ARM64.to_owned());
    }
    let names: Vec<String> = config.loaders.ipxe().map(str::to_owned).collect();
    for name in names {
        let path = ipxe.join(&name);
        let bytes = std::fs::read(&path)
            .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        config.tftp.insert(name, bytes.into());
    }
    crate::secure::name(&control, &mut config);
    let boots = config.interfaces.iter().filter(|interface| interface.boots());
    let six = |interface: &ServedInterface| interface.address6().map(IpAddr::V6);
    let both =
        |interface: &ServedInterface| std::iter::once(IpAddr::V4(interface.address)).chain(six(interface));
    let addresses: Vec<IpAddr> = boots.flat_map(both).collect();
    let key = control.ca.listener(&[], &addresses).map_err(std::io::Error::other)?;
    let authority = control.open_loader_ca().await?;
    let loaders = authority.listener(&addresses).map_err(std::io::Error::other)?;
    config.tls = Some(dayzero_trust::boot_server_config(key, loaders).map_err(std::io::Error::other)?);
    config.loader_trust = Some(authority.fingerprint());
    let leases = Arc::new(StoredLeases(control.clone()));
    let server = PxeServer::bind(config, director, leases).await.map_err(|error| said(&error))?;
    let live = server.live();
    control.tasks.spawn(crate::secure::begin(control.clone()));
    tokio::select! {
        ended = server.run(cancel) => ended.map_err(|error| said(&error)),
        failed = follow(live, plans) => failed,
    }
}

/// Has services that run follow each plan that is told.
///
/// # Errors
/// They cannot, and must begin anew.
async fn follow(live: Live, mut plans: watch::Receiver<PxeConfig>) -> std::io::Result<()> {
    while plans.changed().await.is_ok() {
        let config = plans.borrow_and_update().clone();
        live.follow(&config).await.map_err(|error| said(&error))?;
    }
    // No plan comes any more: they serve by the last one until they are told to end.
    std::future::pending().await
}

/// An error of the boot services and what is behind it.
fn said(error: &dyn std::error::Error) -> std::io::Error {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    std::io::Error::other(format!("{error}{source}"))
}
