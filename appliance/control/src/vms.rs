//! VMs: accepted and placed in one step, then made, filled, started and watched.
//!
//! Invariants: a VM that is listed was placed against capacity that was free in the same step; each stage is repeatable,
//! so that a restart carries on where the record stands; what is shown as running was seen running by its host.

use crate::actions::prove::restore_all;
use crate::control::{Control, Plan};
use crate::records::VMS;
use crate::service::ServiceError;
use crate::show::planned_mac;
use crate::view::VmRequest;
use crate::world::AgentFault;
use dayzero_lifecycle::desired::bridge_name;
use dayzero_model::condition::Condition;
use dayzero_model::ids::{HostName, MacAddr, Name, Sha256};
use dayzero_model::site::{Cluster, Offering};
use dayzero_model::storage::VolumeSpec;
use dayzero_model::vm::{TemplateSource, Vm, VmReport, VmSpec, VmState};
use dayzero_model::wire::{Order, Report};
use dayzero_scheduler::{ClusterView, HostView, Policy, Request, StorageView, Usage, place};
use dayzero_store::StoreError;
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(60);
/// Filling a volume from its template.
const FILL: Duration = Duration::from_secs(900);
/// Start of a domain.
const START: Duration = Duration::from_secs(120);
/// How often running VMs are looked at.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2000 });
/// Pause of a VM whose host or storage is not there for the moment.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 3000 });
/// Console lines kept of a VM, and their length.
const CONSOLE: (usize, usize) = (50, 300);

fn missing(kind: &'static str, name: &Name, known: Vec<String>) -> ServiceError {
    let remedy = if known.is_empty() {
        "the plan has none".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    };
    ServiceError::NotFound { kind, name: name.to_string(), remedy }
}

/// Why a VM cannot go on now.
enum Stop {
    /// Try again: something is away for the moment.
    Later(String),
    /// It failed.
    Failed(String),
}

fn stop(doing: &str, fault: AgentFault) -> Stop {
    match fault {
        AgentFault::Gone | AgentFault::Timeout(_) => Stop::Later(format!("{doing}: {fault}")),
        AgentFault::Agent(error) => Stop::Failed(format!(
            "{doing}: {} (expected {}, observed {})",
            error.sentence, error.expected, error.observed
        )),
        AgentFault::Unexpected(_) => Stop::Failed(format!("{doing}: {fault}")),
    }
}

impl Control {
    /// Host that alone changes volume metadata, for a host's cluster.
    pub(crate) fn elected(&self, plan: &Plan, host: &HostName) -> Option<HostName> {
        let cluster = &plan.site.host(host)?.cluster.name;
        self.mirror().clusters.get(cluster)?.elected.clone()
    }

    /// The cluster as the scheduler sees it now.
    pub(crate) fn cluster_view(&self, plan: &Plan, cluster: &Cluster) -> ClusterView {
        let mirror = self.mirror();
        let offering = |name: &Name| plan.site.offerings.iter().find(|offering| offering.name == *name);
        let hosts = cluster.hosts.iter().map(|host| {
            let record = mirror.hosts.get(&host.name);
            let joined = record.is_some_and(|record| {
                record.conditions.is_met(Condition::Joined) && record.conditions.phase().is_none()
            });
            let capacity = record.and_then(|record| record.facts.capacity).filter(|_| joined);
            let mut used = Usage::default();
            for vm in mirror
                .vms
                .values()
                .filter(|vm| vm.host.as_ref() == Some(&host.name) && vm.state != VmState::Failed)
            {
                let Some(offering) = offering(&vm.offering) else { continue };
                let request = Request::of(offering);
                used.cpu.0 += request.cpu().0;
                used.memory.0 += request.memory.0;
                used.vms += 1;
            }
            HostView {
                name: host.name.clone(),
                cpu: capacity.map(|capacity| capacity.cpu).unwrap_or_default(),
                memory: capacity.map(|capacity| capacity.memory).unwrap_or_default(),
                used,
                closed: (!joined).then(|| "not joined".to_owned()),
            }
        });
        let storage = cluster.primary_storage.iter().filter_map(|name| {
            let storage = plan.site.storage(name)?;
            let volumes = mirror
                .vms
                .values()
                .filter_map(|vm| vm.volume.as_ref())
                .filter(|volume| volume.storage == *name);
            let used = dayzero_model::Bytes(volumes.map(|volume| volume.size.0).sum());
            Some(StorageView { name: name.clone(), size: storage.size, used })
        });
        ClusterView::new(cluster.name.clone(), Policy::of(cluster), hosts, storage.collect())
    }

    /// Accepts and places a VM in one step.
    pub(crate) async fn create_vm(
        self: &Arc<Self>,
        request: VmRequest,
        who: &str,
    ) -> Result<Vm, ServiceError> {
        let (control, asked) = (self.clone(), request.clone());
        let created = self.tasks.spawn(async move { control.create_vm_in_turn(asked).await });
        let vm = created.await.unwrap_or(Err(ServiceError::Store(StoreError::Closed)))?;
        self.tell_person(
            vm.host.as_ref(),
            who,
            format!("created VM {} (offering {}, template {})", vm.name, vm.offering, vm.template),
        );
        self.clone().tend_vms();
        Ok(vm)
    }

    async fn create_vm_in_turn(self: &Arc<Self>, request: VmRequest) -> Result<Vm, ServiceError> {
        let _turn = self.turn.lock().await;
        let plan = self.plan().ok_or_else(|| ServiceError::Refused {
            sentence: "there is no plan yet".to_owned(),
            next_action: "apply one".to_owned(),
        })?;
        if self.mirror().vms.contains_key(&request.name) {
            return Err(ServiceError::Conflict(format!("there is a VM '{}' already", request.name)));
        }
        let known = |names: Vec<&Name>| names.into_iter().map(ToString::to_string).collect::<Vec<_>>();
        let offerings = &plan.site.offerings;
        let offering = offerings.iter().find(|offering| offering.name == request.offering);
        let offering = offering.ok_or_else(|| {
            missing("offering", &request.offering, known(offerings.iter().map(|o| &o.name).collect()))
        })?;
        let templates = &plan.site.templates;
        if !templates.iter().any(|template| template.name == request.template) {
            return Err(missing(
                "template",
                &request.template,
                known(templates.iter().map(|t| &t.name).collect()),
            ));
        }
        let (cluster, placement) = self.place(&plan, &request, offering)?;
        let name = format!("vol-{}", request.name).chars().take(63).collect::<String>();
        let name: Name =
            name.trim_end_matches('-').parse().map_err(|e| ServiceError::System(format!("{e}")))?;
        let volume = placement.storage.map(|storage| VolumeSpec { name, storage, size: offering.disk });
        let vm = Vm {
            name: request.name,
            offering: request.offering,
            template: request.template,
            cluster,
            host: Some(placement.host),
            why: placement.why,
            mac: self.new_mac(&plan),
            address: None,
            volume,
            state: VmState::Preparing,
            detail: "its volume is to be made".to_owned(),
            since: self.now(),
            console: Vec::new(),
        };
        let mut tx = self.store.tx();
        tx.put(&VMS, &vm.name, &vm)?;
        self.commit(tx).await?;
        self.mirror_mut().vms.put(vm.clone());
        Ok(vm)
    }

    fn place(
        &self,
        plan: &Plan,
        request: &VmRequest,
        offering: &Offering,
    ) -> Result<(Name, dayzero_scheduler::Placement), ServiceError> {
        let clusters: Vec<_> =
            plan.site.zones.iter().flat_map(|z| &z.pods).flat_map(|pod| &pod.clusters).collect();
        let wanted = |cluster: &&&Cluster| request.cluster.as_ref().is_none_or(|name| *name == cluster.name);
        let mut refusals = Vec::new();
        for cluster in clusters.iter().filter(wanted) {
            match place(&self.cluster_view(plan, cluster), &Request::of(offering)) {
                Ok(placement) => return Ok((cluster.name.clone(), placement)),
                Err(refusal) => refusals.push(refusal.to_string()),
            }
        }
        if let (true, Some(name)) = (refusals.is_empty(), &request.cluster) {
            return Err(missing(
                "cluster",
                name,
                clusters.iter().map(|cluster| cluster.name.to_string()).collect(),
            ));
        }
        Err(ServiceError::Refused {
            sentence: refusals.join("; "),
            next_action: "wait for hosts to join, choose a smaller offering, or remove VMs".to_owned(),
        })
    }

    fn new_mac(&self, plan: &Plan) -> MacAddr {
        loop {
            let [a, b, c]: [u8; 3] = rand::random();
            let mac = MacAddr([0x52, 0x54, 0x00, a, b, c]);
            if !planned_mac(plan, mac) && self.mirror().vms.by_mac(mac).is_none() {
                return mac;
            }
        }
    }

    /// Changes a VM's record; nothing is written if it stays the same.
    pub(crate) async fn change_vm(
        self: &Arc<Self>,
        name: &Name,
        change: impl FnOnce(&mut Vm) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (control, name) = (self.clone(), name.clone());
        let changed = self.tasks.spawn(async move {
            let _turn = control.turn.lock().await;
            let Some(before) = control.mirror().vms.get(&name).cloned() else { return Ok(()) };
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok(());
            }
            if after.state != before.state {
                after.since = control.now();
                if let Some(host) = &after.host {
                    let message = format!("VM {name}: {:?}, {}", after.state, after.detail);
                    control.tell(host, dayzero_model::event::What::Agent { message });
                }
            }
            let mut tx = control.store.tx();
            tx.put(&VMS, &name, &after)?;
            control.commit(tx).await?;
            control.mirror_mut().vms.put(after);
            Ok(())
        });
        changed.await.unwrap_or(Err(StoreError::Closed))
    }

    /// A task for each VM that is not where it should be.
    pub(crate) fn tend_vms(self: Arc<Self>) {
        let unfinished =
            |vm: &&Vm| matches!(vm.state, VmState::Requested | VmState::Preparing | VmState::Starting);
        let names: Vec<_> = self.mirror().vms.values().filter(unfinished).map(|vm| vm.name.clone()).collect();
        for name in names {
            if self.cancel.is_cancelled() || !self.busy().vms.insert(name.clone()) {
                continue;
            }
            let control = self.clone();
            self.tasks.spawn(async move {
                control.drive_vm(&name).await;
                control.busy().vms.remove(&name);
            });
        }
    }

    async fn drive_vm(self: &Arc<Self>, name: &Name) {
        loop {
            let vm = self.mirror().vms.get(name).cloned();
            let Some(vm) = vm else { return };
            let stage = async {
                match vm.state {
                    VmState::Requested | VmState::Preparing => Some(self.prepare_vm(&vm).await),
                    VmState::Starting => Some(self.start_vm(&vm).await),
                    _ => None,
                }
            };
            let result = tokio::select! {
                () = self.cancel.cancelled() => return,
                result = stage => result,
            };
            let stored = match result {
                None => return,
                Some(Ok((state, detail))) => {
                    self.change_vm(name, move |vm| (vm.state, vm.detail) = (state, detail)).await
                }
                Some(Err(Stop::Later(detail))) => {
                    let stored = self.change_vm(name, move |vm| vm.detail = detail).await;
                    tokio::time::sleep(PAUSE).await;
                    stored
                }
                Some(Err(Stop::Failed(detail))) => {
                    self.change_vm(name, move |vm| (vm.state, vm.detail) = (VmState::Failed, detail)).await
                }
            };
            if let Err(error) = stored {
                tracing::error!(%error, vm = %name, "a VM's state could not be stored");
                return;
            }
        }
    }

    async fn prepare_vm(self: &Arc<Self>, vm: &Vm) -> Result<(VmState, String), Stop> {
        let gone = |what: &str| Stop::Failed(format!("{what} is no longer in the plan"));
        let plan = self.plan().ok_or_else(|| gone("everything"))?;
        let host = vm.host.clone().ok_or_else(|| Stop::Failed("it was not placed".to_owned()))?;
        let Some(volume) = vm.volume.clone() else {
            return Err(Stop::Failed("its cluster has no primary storage".to_owned()));
        };
        let elected = self
            .elected(&plan, &host)
            .ok_or_else(|| Stop::Later("no host is elected for volumes".to_owned()))?;
        let template =
            plan.site.templates.iter().find(|t| t.name == vm.template).ok_or_else(|| gone("its template"))?;
        let store = plan.site.secondary_storage.iter().find(|s| s.name == template.store);
        let base =
            store.map(|store| store.url.trim_end_matches('/')).ok_or_else(|| gone("its template's store"))?;
        let url = format!("{base}/{}", template.file);
        let sha256 = match template.sha256 {
            Some(sha256) => sha256,
            None => checksum_beside(&url).await.map_err(Stop::Later)?,
        };
        let warrant = plan.warrant(&volume.storage).ok_or_else(|| gone("the WWN of its primary storage"))?;
        let agents = &self.world.agents;
        let create = Order::VolumeCreate { volume: volume.clone(), warrant: warrant.clone() };
        agents.order(&elected, create, SHORT).await.map_err(|f| stop("making its volume", f))?;
        let fill = Order::VolumeFill { volume, warrant, template: TemplateSource { url, sha256 } };
        match agents.order(&host, fill, FILL).await.map_err(|f| stop("filling its volume", f))? {
            Report::Filled { sha256: read } if read == sha256 => Ok((
                VmState::Starting,
                format!("its volume holds {} (sha256 {})", vm.template, &sha256.to_string()[..16]),
            )),
            Report::Filled { sha256: read } => {
                Err(Stop::Failed(format!("its volume reads back {read}, not {sha256}")))
            }
            _ => Err(Stop::Failed("filling its volume: the agent answered something else".to_owned())),
        }
    }

    async fn start_vm(self: &Arc<Self>, vm: &Vm) -> Result<(VmState, String), Stop> {
        let gone = |what: &str| Stop::Failed(format!("{what} is no longer in the plan"));
        let plan = self.plan().ok_or_else(|| gone("everything"))?;
        let host = vm.host.clone().ok_or_else(|| gone("its host"))?;
        let placed = plan.site.host(&host).ok_or_else(|| gone("its host"))?;
        let offering =
            plan.site.offerings.iter().find(|o| o.name == vm.offering).ok_or_else(|| gone("its offering"))?;
        let network = placed.cluster.guest_network.as_ref().ok_or_else(|| gone("its guest network"))?;
        let spec = VmSpec {
            name: vm.name.clone(),
            cpus: offering.cpus,
            memory: offering.memory_mib,
            mac: vm.mac,
            bridge: bridge_name(network),
            volume: vm.volume.clone().ok_or_else(|| gone("its volume"))?,
        };
        self.world
            .agents
            .order(&host, Order::VmStart(spec), START)
            .await
            .map_err(|f| stop("starting it", f))?;
        let reports = self.ask_vms(&host).await.map_err(|f| stop("looking for it", f))?;
        match reports.iter().find(|report| report.name == vm.name) {
            Some(report) if report.state == "running" => {
                Ok((VmState::Running, format!("seen running on {host}")))
            }
            Some(report) => Err(Stop::Later(format!("its host shows it as '{}'", report.state))),
            None => Err(Stop::Later("its host does not show it yet".to_owned())),
        }
    }

    async fn ask_vms(&self, host: &HostName) -> Result<Vec<VmReport>, AgentFault> {
        match self.world.agents.order(host, Order::Vms, SHORT).await? {
            Report::Vms(reports) => Ok(reports),
            _ => Err(AgentFault::Unexpected("no list of VMs".to_owned())),
        }
    }

    /// Looks at started VMs, host by host.
    pub(crate) async fn vms_loop(self: Arc<Self>) {
        let mut beat = tokio::time::interval(LOOK);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = beat.tick() => {}
            }
            let started = |vm: &&Vm| matches!(vm.state, VmState::Running | VmState::Stopped | VmState::Lost);
            let hosts: std::collections::BTreeSet<_> =
                self.mirror().vms.values().filter(started).filter_map(|vm| vm.host.clone()).collect();
            let mut looks = tokio::task::JoinSet::new();
            for host in hosts.into_iter().filter(|host| self.world.agents.connection(host).is_some()) {
                let control = self.clone();
                looks.spawn(async move {
                    match control.ask_vms(&host).await {
                        Ok(reports) => control.seen_vms(&host, reports).await,
                        Err(fault) => tracing::debug!(%fault, %host, "VMs could not be listed"),
                    }
                });
            }
            while looks.join_next().await.is_some() {}
        }
    }

    async fn seen_vms(self: &Arc<Self>, host: &HostName, reports: Vec<VmReport>) {
        let started = |vm: &&Vm| matches!(vm.state, VmState::Running | VmState::Stopped | VmState::Lost);
        let ours: Vec<_> = self
            .mirror()
            .vms
            .values()
            .filter(started)
            .filter(|vm| vm.host.as_ref() == Some(host))
            .cloned()
            .collect();
        for vm in ours {
            let report = reports.iter().find(|report| report.name == vm.name).cloned();
            let host = host.clone();
            let seen = move |vm: &mut Vm| match report {
                Some(report) => {
                    let running = report.state == "running";
                    vm.state = if running { VmState::Running } else { VmState::Stopped };
                    vm.detail = if running {
                        format!("seen running on {host}")
                    } else {
                        format!("its host shows it as '{}'", report.state)
                    };
                    let short = |line: &String| line.chars().take(CONSOLE.1).collect::<String>();
                    let from = report.console.len().saturating_sub(CONSOLE.0);
                    vm.console = report.console[from..].iter().map(short).collect();
                }
                None => {
                    vm.state = VmState::Stopped;
                    vm.detail = format!("{host} runs, and does not show it");
                }
            };
            if let Err(error) = self.change_vm(&vm.name, seen).await {
                tracing::error!(%error, vm = %vm.name, "a VM's state could not be stored");
            }
        }
    }

    /// A host went away: its VMs are not known to run.
    pub(crate) async fn lose_vms(self: &Arc<Self>, host: &HostName) {
        let lost = |vm: &&Vm| {
            vm.host.as_ref() == Some(host) && matches!(vm.state, VmState::Running | VmState::Starting)
        };
        let names: Vec<_> = self.mirror().vms.values().filter(lost).map(|vm| vm.name.clone()).collect();
        for name in names {
            let detail = format!("the power of {host} is off");
            if let Err(error) =
                self.change_vm(&name, move |vm| (vm.state, vm.detail) = (VmState::Lost, detail)).await
            {
                tracing::error!(%error, vm = %name, "a VM's state could not be stored");
            }
        }
    }

    /// Paths that a proof pulled and did not restore, since it or the whole process died.
    pub(crate) fn tend_pulled(self: Arc<Self>) {
        let hosts: Vec<_> = {
            let (mirror, busy) = (self.mirror(), self.busy());
            let left = mirror.hosts.iter().filter(|(name, record)| {
                !record.facts.pulled.is_empty() && !busy.flights.contains_key(*name)
            });
            left.map(|(name, _)| name.clone()).collect()
        };
        for host in hosts {
            let control = self.clone();
            self.tasks.spawn(async move {
                if let Err(cause) = restore_all(&control, &host).await {
                    tracing::error!(%host, cause = %cause.observed, "a pulled path could not be restored");
                }
            });
        }
    }
}

/// The digest in `<url>.sha256`, the first word.
async fn checksum_beside(url: &str) -> Result<Sha256, String> {
    let beside = format!("{url}.sha256");
    let text = crate::fetch::text(&beside, 4096).await?;
    let word = text.split_whitespace().next().unwrap_or_default();
    word.parse().map_err(|error| format!("{beside}: {error}"))
}
