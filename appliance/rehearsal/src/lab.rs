//! The lab daemon: builds the rack of a plan, serves its control socket, and takes everything down again.
//!
//! Invariants: what a former lab left is cleared first; everything made is recorded before it is used; a failure
//! half-way takes down what was made so far. It judges nothing: it is the rack, not the product.

mod bmcs;
mod build;
mod extras;
mod orders;
mod serve;

pub use extras::Extra;

use crate::blueprint::{Blueprint, BlueprintError, HostPlan};
use crate::bmc::{BmcEmulatorError, BmcHandle, Ledger};
use crate::cleanup::{self, CleanupError};
use crate::machine::{DirectBoot, Machine, MachineError, MachineEvent};
use crate::netns::{Netns, NetnsError};
use crate::process::{Child, ProcessError, Processes};
use crate::san::SanError;
use crate::state::StateFile;
use crate::switch::fabric::{EndpointId, Fabric, PortRef, SwitchId};
use dayzero_model::site::Site;
use dayzero_model::{Name, Secret};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How a lab is built.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Directory of sockets, disks, logs and the state file. Short: socket paths end at 107 bytes.
    pub dir: PathBuf,
    /// Memory of each host, MiB.
    pub memory_mib: u64,
    /// Size of each OS disk, bytes (sparse).
    pub disk_bytes: u64,
    /// Directory that secondary storage serves.
    pub store_dir: PathBuf,
    /// The appliance's disk: then the control plane is a machine of the rack, which starts from it, switched off at first
    /// and named `appliance`. None = a process in the control plane's namespace, which is started by somebody else.
    pub appliance: Option<PathBuf>,
    /// Where operators' connections are taken in the root namespace and carried to the same port of the control plane;
    /// none = not at all.
    pub console: Option<SocketAddr>,
    /// Factory accounts of the BMCs, by the plan's credential name. A host whose credential is missing has no BMC.
    pub factory: BTreeMap<Name, FactoryAccount>,
    /// Keep disks, LUN, firmware variables and BMC accounts of the last run; else every machine is as delivered.
    pub keep: bool,
    /// What the namespaces' names begin with; `dz` gives `dz-ctl`. Another prefix lets a test run beside a demo.
    pub prefix: String,
    /// Hosts that start a kernel directly instead of what their firmware finds, by name (tests of the rack itself).
    pub direct: BTreeMap<String, DirectBoot>,
}

/// A BMC's account as its vendor ships it.
#[derive(Clone, Debug)]
pub struct FactoryAccount {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret<String>,
}

impl LabOptions {
    /// The usual lab in `dir`, with `store_dir` as secondary storage.
    pub fn new(dir: impl Into<PathBuf>, store_dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory_mib: 1536,
            disk_bytes: 8 << 30,
            store_dir: store_dir.into(),
            appliance: None,
            console: Some(SocketAddr::from(([127, 0, 0, 1], 8443))),
            factory: BTreeMap::new(),
            keep: false,
            prefix: "dz".into(),
            direct: BTreeMap::new(),
        }
    }
}

/// A lab that could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The plan.
    #[error(transparent)]
    Blueprint(#[from] BlueprintError),
    /// A former lab.
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
    /// A namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A BMC.
    #[error(transparent)]
    Bmc(#[from] BmcEmulatorError),
    /// The SAN.
    #[error(transparent)]
    San(#[from] SanError),
    /// A file or socket.
    #[error("cannot {doing}")]
    Io {
        /// What was tried, with its place.
        doing: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let doing = what.into();
    move |source| LabError::Io { doing, source }
}

/// A host of the lab.
#[derive(Debug)]
pub struct HostRig {
    /// What the plan says.
    pub plan: HostPlan,
    /// The machine.
    pub machine: Machine,
    /// The far end of each NIC's cable.
    pub cables: Vec<EndpointId>,
    /// Its BMC, while it runs.
    pub(crate) bmc: tokio::sync::Mutex<Option<BmcHandle>>,
    /// What its BMC was entrusted with.
    pub(crate) ledger: Ledger,
    /// Its BMC puts another nonce on media of ours.
    pub(crate) stale_media: Arc<AtomicBool>,
}

/// The appliance of the lab.
#[derive(Debug)]
pub struct ApplianceRig {
    /// The machine.
    pub machine: Machine,
    /// The far end of each NIC's cable.
    pub cables: Vec<EndpointId>,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    pub(crate) options: LabOptions,
    pub(crate) blueprint: Blueprint,
    pub(crate) state: Arc<StateFile>,
    pub(crate) processes: Processes,
    pub(crate) namespaces: BTreeMap<String, Arc<Netns>>,
    pub(crate) fabric: Fabric,
    pub(crate) switches: Vec<SwitchId>,
    pub(crate) hosts: Vec<HostRig>,
    pub(crate) appliance: Option<ApplianceRig>,
    pub(crate) extra_cables: Vec<(PortRef, EndpointId)>,
    pub(crate) extras: Mutex<Vec<Extra>>,
    pub(crate) services: Mutex<Vec<(String, Child)>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Mutex<JoinSet<()>>,
}

pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Builds the lab of a plan and runs it until SIGTERM, SIGINT or a shutdown request; then takes it down.
///
/// # Errors
/// What stopped it from being built, after what was made is gone again; or what would not go away.
pub async fn run_lab(plan: &Site, options: LabOptions) -> Result<(), LabError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(doing("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(doing("listen for SIGINT"))?;
    let starting = Lab::start(plan, options);
    let lab = tokio::select! {
        lab = starting => lab?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = lab.stop.cancelled() => {}
    }
    lab.stop().await
}

impl Lab {
    /// A host by name.
    pub fn host(&self, name: &str) -> Option<&HostRig> {
        self.hosts.iter().find(|host| host.plan.name.as_str() == name)
    }

    /// A namespace of the lab by its name in the blueprint, such as `dz-ctl`.
    pub fn namespace(&self, name: &str) -> Option<Arc<Netns>> {
        self.namespaces.get(name).cloned()
    }

    /// Takes everything down: machines, helpers, namespaces, state file. Disks and logs stay in the directory.
    pub async fn stop(self: Arc<Self>) -> Result<(), LabError> {
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *held(&self.tasks));
        tasks.shutdown().await;
        for host in &self.hosts {
            if let Some(bmc) = host.bmc.lock().await.take() {
                bmc.stop().await;
            }
            host.machine.force_off().await?;
        }
        if let Some(appliance) = &self.appliance {
            appliance.machine.force_off().await?;
        }
        let extras = std::mem::take(&mut *held(&self.extras));
        for extra in extras {
            extra.machine.force_off().await?;
        }
        let services = std::mem::take(&mut *held(&self.services));
        for (name, mut child) in services {
            if let Err(error) = child.process.kill().await {
                tracing::debug!(%name, %error, "already ended");
            }
        }
        let state = self.state.read().map_err(doing("read the lab's state"))?;
        // The taps live as long as their descriptors in the fabric, and vanish with their namespaces at the latest.
        cleanup::everything(&state)?;
        let socket = self.options.dir.join(crate::protocol::SOCKET);
        let _already_gone = std::fs::remove_file(socket);
        self.state.remove().map_err(doing("remove the lab's state file"))
    }
}

impl Drop for Lab {
    /// A lab that nobody stopped (its task was dropped, a test failed) is taken down all the same.
    fn drop(&mut self) {
        if !self.options.dir.join(crate::state::STATE_FILE).exists() {
            return;
        }
        let left = self.state.read().map_err(CleanupError::State);
        match left.and_then(|state| cleanup::everything(&state)) {
            Ok(()) => drop(self.state.remove()),
            Err(error) => {
                tracing::error!(%error, "the lab is not wholly taken down; the next start will try")
            }
        }
    }
}

/// Gives the ports at the far ends of a machine's cables carrier while it is on and they are plugged in.
pub(crate) async fn follow_power(machine: Machine, fabric: Fabric, cables: Vec<EndpointId>) {
    let mut events = machine.events();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) if machine.is_on() => MachineEvent::On,
            Err(RecvError::Lagged(_)) => MachineEvent::Off,
            Err(RecvError::Closed) => return,
        };
        for (nic, cable) in cables.iter().enumerate() {
            if matches!(event, MachineEvent::Off | MachineEvent::Reset) {
                fabric.set_carrier(*cable, false);
            }
            if matches!(event, MachineEvent::On | MachineEvent::Reset) && !machine.is_pulled(nic) {
                fabric.set_carrier(*cable, true);
            }
        }
    }
}
