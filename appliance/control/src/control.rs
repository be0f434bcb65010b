//! The control plane's body: store, trust, timeline, the mirror of all states in memory, and who works on what.
//!
//! Invariants: only [`Control::step`] and its siblings in `engine` change a state, one at a time, each in one
//! transaction; the mirror shows only what is durable; a task that dies loses nothing, since what it did not finish is
//! derived again from the facts.

use crate::config::ControlConfig;
use crate::known_vms::KnownVms;
use crate::media::MediaShelf;
use crate::pending::PendingClients;
use crate::records::{self, ClusterRecord};
use crate::world::World;
use dayzero_lifecycle::ActionKind;
use dayzero_lifecycle::boot::Clients;
use dayzero_model::condition::Conditions;
use dayzero_model::event::{Event, What};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::{HostName, Name, Sha256};
use dayzero_model::site::Site;
use dayzero_model::storage::VolumeWarrant;
use dayzero_model::units::Timestamp;
use dayzero_store::Store;
use dayzero_timeline::Timeline;
use dayzero_trust::{BmcPins, Enrolment, SiteCa, TrustError, Vault};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Actions on BMCs at once.
const BMC_LIMIT: usize = 16;
/// Installations at once.
const INSTALL_LIMIT: usize = 8;

/// Why control could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error("the store cannot be used")]
    Store(#[from] dayzero_store::StoreError),
    /// Secrets, CA.
    #[error("the appliance's secrets cannot be used")]
    Trust(#[from] TrustError),
}

/// A plan with its hash.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) site: Arc<Site>,
    pub(crate) hash: Sha256,
    /// Who DHCP's clients are.
    pub(crate) clients: Arc<Clients>,
}

impl Plan {
    /// What lets a volume of this primary storage be overwritten; none = the storage has no WWN in the plan.
    pub(crate) fn warrant(&self, storage: &Name) -> Option<VolumeWarrant> {
        let wwn = self.site.storage(storage)?.wwn.clone()?;
        Some(VolumeWarrant { plan_hash: self.hash, wwn })
    }

    pub(crate) fn new(site: Site, hash: Sha256) -> Self {
        let clients = Arc::new(Clients::of(&site));
        Self { site: Arc::new(site), hash, clients }
    }
}

/// One host in memory, as the store has it.
#[derive(Clone, Debug)]
pub(crate) struct HostRecord {
    pub(crate) facts: Arc<HostFacts>,
    pub(crate) conditions: Arc<Conditions>,
}

/// All states in memory.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) plan: Option<Plan>,
    pub(crate) hosts: BTreeMap<HostName, HostRecord>,
    pub(crate) clusters: BTreeMap<Name, ClusterRecord>,
    pub(crate) vms: KnownVms,
    pub(crate) pending: PendingClients,
    /// SHA-256 of the host image's manifest.
    pub(crate) manifest: Option<Sha256>,
    /// Things of the machine itself that a person must mend, by a stable key.
    pub(crate) ails: BTreeMap<String, crate::view::Todo>,
}

/// An action under way.
pub(crate) struct Flight {
    pub(crate) kind: ActionKind,
    pub(crate) number: u64,
    pub(crate) abort: AbortHandle,
}

/// What is under way; nothing in here is needed after a restart.
#[derive(Default)]
pub(crate) struct Busy {
    /// Set by [`Control::start`]: before it, states change and no action begins.
    pub(crate) started: bool,
    pub(crate) flights: HashMap<HostName, Flight>,
    pub(crate) next: u64,
    /// Serial-over-LAN readers.
    pub(crate) consoles: HashMap<HostName, (dayzero_model::BootId, AbortHandle)>,
    /// VMs that are being driven.
    pub(crate) vms: HashSet<Name>,
    /// Live sessions with BMCs.
    pub(crate) sessions: HashMap<HostName, crate::sessions::Cached>,
}

/// The control plane.
pub struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) ca: SiteCa,
    pub(crate) enrolment: Enrolment,
    pub(crate) pins: BmcPins,
    pub(crate) timeline: Timeline,
    pub(crate) world: World,
    pub(crate) mirror: RwLock<Mirror>,
    /// Whose turn it is to change states.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Held by the examination that is under way.
    pub(crate) doctor: tokio::sync::Mutex<()>,
    pub(crate) busy: Mutex<Busy>,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
    pub(crate) bmc_limit: Arc<Semaphore>,
    pub(crate) install_limit: Arc<Semaphore>,
    /// Rung when the plan changed.
    pub(crate) replanned: Notify,
    pub(crate) media: MediaShelf,
    pub(crate) secure: crate::secure::SecureBoot,
    pub(crate) loaders: crate::https_boot::Loaders,
    pub(crate) recorded: crate::handshake::Recorded,
    #[cfg(test)]
    pub(crate) commits_left: std::sync::atomic::AtomicI64,
}

impl Control {
    /// Opens store, secrets and timeline in `config.data`, and reads all states. Blocks; nothing is started yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: ControlConfig, world: World) -> Result<Arc<Self>, OpenError> {
        let store = Store::open(&config.data.join("store"), dayzero_store::Options::default())?;
        let vault = Vault::open(&store, &config.master_key)?;
        let ca = SiteCa::open(&vault)?;
        let timeline = Timeline::open(&store)?;
        let mut mirror = Mirror {
            clusters: records::all(&store, &records::CLUSTERS)?,
            vms: records::all(&store, &records::VMS)?.into_values().collect(),
            pending: PendingClients::of(records::all(&store, &records::PENDING)?),
            ..Mirror::default()
        };
        for (host, conditions) in records::all(&store, &records::CONDITIONS)? {
            let mut facts = records::get_facts(&store, &host)?;
            // Nobody is connected yet; the first step that changes something stores this too.
            if let Some(agent) = &mut facts.agent {
                agent.connected = false;
            }
            let record = HostRecord { facts: Arc::new(facts), conditions: Arc::new(conditions) };
            mirror.hosts.insert(host, record);
        }
        let plan = records::get_plan(&store)?;
        mirror.plan = plan.map(|(site, hash)| Plan::new(site, hash));
        let control = Self {
            enrolment: Enrolment::new(&vault, &ca),
            pins: BmcPins::new(&store),
            media: MediaShelf::default(),
            secure: Default::default(),
            loaders: Default::default(),
            recorded: Default::default(),
            config,
            store,
            vault,
            ca,
            timeline,
            world,
            mirror: RwLock::new(mirror),
            turn: tokio::sync::Mutex::new(()),
            doctor: tokio::sync::Mutex::new(()),
            busy: Mutex::new(Busy::default()),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            bmc_limit: Arc::new(Semaphore::new(BMC_LIMIT)),
            install_limit: Arc::new(Semaphore::new(INSTALL_LIMIT)),
            replanned: Notify::new(),
            #[cfg(test)]
            commits_left: std::sync::atomic::AtomicI64::new(i64::MAX),
        };
        control.read_manifest();
        Ok(Arc::new(control))
    }

    /// The store, for what other rooms keep in it (users and sessions).
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The site's CA: certificates of the operators' listener.
    pub fn ca(&self) -> &SiteCa {
        &self.ca
    }

    /// The timeline.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.world.clock)()
    }

    pub(crate) fn mirror(&self) -> RwLockReadGuard<'_, Mirror> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mirror_mut(&self) -> RwLockWriteGuard<'_, Mirror> {
        self.mirror.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plan(&self) -> Option<Plan> {
        self.mirror().plan.clone()
    }

    pub(crate) fn facts(&self, host: &HostName) -> Option<Arc<HostFacts>> {
        self.mirror().hosts.get(host).map(|record| record.facts.clone())
    }

    /// Records an event of a host.
    pub(crate) fn tell(&self, host: &HostName, what: What) {
        let boot = self.facts(host).and_then(|facts| facts.window.as_ref().map(|window| window.window.boot));
        self.timeline.record(Event { at: self.now(), host: Some(host.clone()), mac: None, boot, what });
    }

    /// Records what a person did.
    pub(crate) fn tell_person(&self, host: Option<&HostName>, who: &str, did: impl Into<String>) {
        let what = What::Person { who: who.to_owned(), did: did.into() };
        self.timeline.record(Event { at: self.now(), host: host.cloned(), mac: None, boot: None, what });
    }

    /// Reads the hash of the host image's manifest; without an image hosts stop at `Imaged` with that cause.
    pub(crate) fn read_manifest(&self) {
        let path = self.config.images.host.join("manifest.json");
        let hash = match std::fs::read(&path) {
            Ok(bytes) => Some(Sha256::of(&bytes)),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "there is no host image");
                None
            }
        };
        self.mirror_mut().manifest = hash;
    }
}
