//! The proof: each path pulled in turn, by cable and by dead switch, while pings and writes run; judged by our clock.
//!
//! Invariants: it does not start on a degraded host; what is pulled is recorded before it is pulled, and plugged in
//! again whatever happens, also after a crash; the next path is pulled only when the last one is active again.

use super::orders::order as give;
use super::{agent_cause, stopping, store_cause};
use crate::control::{Control, Plan};
use crate::engine::Delta;
use crate::world::{AgentFault, Path, PingRun, WriterWatch};
use dayzero_lifecycle::cause::cause;
use dayzero_lifecycle::conditions::proven::trial_text;
use dayzero_lifecycle::conditions::wired::{leg_faults, storage_faults};
use dayzero_lifecycle::desired::{self, Bound};
use dayzero_lifecycle::{ProofOrder, ProofPath};
use dayzero_model::condition::Cause;
use dayzero_model::event::What;
use dayzero_model::ids::{HostName, MacAddr, Name};
use dayzero_model::network::{HostNetwork, NetworkReport};
use dayzero_model::proof::{Break, Probe, ProofReport, Trial, WriterProgress};
use dayzero_model::storage::{LunReport, LunSpec, VolumeSpec, VolumeWarrant};
use dayzero_model::units::{Bytes, Millis};
use dayzero_model::wire::{Order, Report};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(40);
/// Reading all blocks back, at most.
const VERIFY: Duration = Duration::from_secs(120);
/// Traffic must flow for so long before a path counts as failed over.
const FLOWS: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// Time beyond the bound in which a broken path must be seen as broken.
const MARGIN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 8000 });
/// A healed path must be active again within this.
const RECOVERY: Duration = Duration::from_secs(90);
/// How often the host is asked.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 500 });
/// How often the writer's frames are read.
const GRAIN: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 20 });
/// Pings of a calm network before the first trial.
const CALM: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1500 });
/// Size of the volume that belongs to a host's proof alone.
const VOLUME: Bytes = Bytes(64 << 20);

/// One proof under way.
struct Run<'a> {
    control: &'a Arc<Control>,
    host: HostName,
    order: ProofOrder,
    network: HostNetwork,
    luns: Vec<LunSpec>,
    plan: Plan,
    pings: Box<dyn PingRun>,
    writer: WriterWatch,
    volume: Option<VolumeSpec>,
}

/// The action: the report becomes a fact, whether it held or not.
pub(super) async fn action(
    control: &Arc<Control>,
    host: &HostName,
    order: ProofOrder,
) -> Result<Delta, Cause> {
    let basis = order.basis;
    let report = prove(control, host, order, None).await?;
    Ok(Box::new(move |facts| {
        facts.proof = Some(report);
        facts.proof_basis = Some(basis);
        facts.pulled.clear();
    }))
}

/// Proves a host. With `leg_missing`, that leg is pulled first and left out: the control trial, which must fail.
///
/// # Errors
/// The proof could not be carried out at all; bounds that break are in the report.
pub(crate) async fn prove(
    control: &Arc<Control>,
    host: &HostName,
    order: ProofOrder,
    leg_missing: Option<Name>,
) -> Result<ProofReport, Cause> {
    let started = control.now();
    restore_all(control, host).await?;
    let mut run = Run::start(control, host, order).await?;
    let result = match leg_missing {
        None => run.trials().await,
        Some(leg) => run.control_trial(&leg).await,
    };
    run.stop_writer().await;
    restore_all(control, host).await?;
    let (trials, refused) = result?;
    let held = refused.is_none() && !trials.is_empty() && trials.iter().all(|trial| trial.held);
    Ok(ProofReport { started, ended: control.now(), trials, refused, held })
}

/// All paths of a host, as a puller wants them.
pub(crate) fn paths(plan: &Plan, host: &HostName) -> Vec<Path> {
    let Some(placed) = plan.site.host(host) else { return Vec::new() };
    let path = |(nic, (role, _, port)): (usize, (&Name, _, &dayzero_model::site::SwitchPort))| Path {
        host: host.clone(),
        role: role.clone(),
        nic,
        port: port.clone(),
    };
    placed.host.nics().enumerate().map(path).collect()
}

/// Plugs in whatever a proof has pulled.
pub(crate) async fn restore_all(control: &Arc<Control>, host: &HostName) -> Result<(), Cause> {
    let pulled = control.facts(host).map(|facts| facts.pulled.clone()).unwrap_or_default();
    let Some(plan) = control.plan().filter(|_| !pulled.is_empty()) else { return Ok(()) };
    for path in paths(&plan, host).into_iter().filter(|path| pulled.contains(&path.role)) {
        restore(control, &path).await?;
    }
    Ok(())
}

async fn restore(control: &Arc<Control>, path: &Path) -> Result<(), Cause> {
    let host = &path.host;
    control.world.puller.restore(path).await.map_err(|error| puller_cause(host, &error))?;
    control.tell(host, What::Rack { message: format!("path {} at {} restored", path.role, path.port) });
    let role = path.role.clone();
    let forget =
        move |facts: &mut dayzero_model::facts::HostFacts| facts.pulled.retain(|pulled| *pulled != role);
    control.step(host, forget).await.map_err(store_cause(host, "recording a restored path"))
}

async fn pull(control: &Arc<Control>, path: &Path, how: Break) -> Result<(), Cause> {
    let (host, role) = (&path.host, path.role.clone());
    let note = move |facts: &mut dayzero_model::facts::HostFacts| facts.pulled.push(role);
    control.step(host, note).await.map_err(store_cause(host, "recording a pulled path"))?;
    control.world.puller.pull(path, how).await.map_err(|error| puller_cause(host, &error))?;
    let what = match how {
        Break::Cable => "cable pulled",
        Break::DeadSwitch => "switch port dead",
    };
    control.tell(host, What::Rack { message: format!("path {} at {}: {what}", path.role, path.port) });
    Ok(())
}

fn puller_cause(host: &HostName, error: &str) -> Cause {
    let next = format!("check the rack's puller, then `dayzero host retry {host}`");
    cause("puller-failed", "a path could not be pulled or restored", "a path that obeys", error, next)
}

type Trials = (Vec<Trial>, Option<String>);

/// Which trial comes next: with one active leg, the one that breaks it, since pulling a backup proves nothing.
fn next_trial(left: &[(ProofPath, Break, Bound)], active: Option<MacAddr>) -> usize {
    let breaks_active = |(path, ..): &(ProofPath, Break, Bound)| Some(path.mac) == active;
    match left.first() {
        Some((first, ..)) if first.probe == Probe::Ping => left.iter().position(breaks_active).unwrap_or(0),
        _ => 0,
    }
}

impl<'a> Run<'a> {
    async fn start(control: &'a Arc<Control>, host: &HostName, order: ProofOrder) -> Result<Run<'a>, Cause> {
        let (plan, planned) = control.planned(host)?;
        let placed = plan.site.host(host).ok_or_else(stopping)?;
        let network = desired::network(&plan.site, &placed)?;
        let luns = desired::luns(&plan.site, &placed)?;
        let pings = control.world.pings.start(planned.address).map_err(|error| {
            let next = format!("run the appliance as root, then `dayzero host retry {host}`");
            cause("no-ping", "the appliance cannot send pings", "an ICMP socket", error, next)
        })?;
        let writer = control.world.agents.writer(host);
        let host = host.clone();
        let mut run = Run { control, host, order, network, luns, plan, pings, writer, volume: None };
        run.volume = run.make_volume().await?;
        // A writer of a proof that died with its appliance.
        run.stop_writer().await;
        Ok(run)
    }

    /// The writer's volume: made by the cluster's elected host.
    async fn make_volume(&self) -> Result<Option<VolumeSpec>, Cause> {
        let Some(storage) = self.order.storage.clone() else { return Ok(None) };
        let text = format!("proof-{}", self.host).chars().take(60).collect::<String>();
        let name = text.trim_end_matches('-').parse().map_err(|_| stopping())?;
        let volume = VolumeSpec { name, storage, size: VOLUME };
        let warrant = self.warrant(&volume)?;
        let elected = self.control.elected(&self.plan, &self.host).ok_or_else(|| {
            let next = format!("see `dayzero status`, then `dayzero host retry {}`", self.host);
            cause("no-elected-host", "no host may make volumes", "an elected host", "none", next)
        })?;
        give(self.control, &elected, Order::VolumeCreate { volume: volume.clone(), warrant }, SHORT)
            .await
            .map_err(|fault| agent_cause(&self.host, "making the proof's volume", fault))?;
        Ok(Some(volume))
    }

    /// What lets the proof's volume be overwritten: the plan and the LUN that this proof is about.
    fn warrant(&self, volume: &VolumeSpec) -> Result<VolumeWarrant, Cause> {
        self.plan.warrant(&volume.storage).ok_or_else(|| {
            let sentence = format!("primary storage {} has no WWN in the plan", volume.storage);
            let next = format!("correct the plan and apply it, then `dayzero host retry {}`", self.host);
            cause("plan-gap", sentence, "a WWN", "none", next)
        })
    }

    async fn ask_network(&self) -> Result<NetworkReport, AgentFault> {
        match give(self.control, &self.host, Order::NetworkReport, SHORT).await? {
            Report::Network(report) => Ok(*report),
            other => Err(AgentFault::Unexpected(format!("{other:?}").chars().take(100).collect())),
        }
    }

    async fn ask_storage(&self) -> Result<Vec<LunReport>, AgentFault> {
        if self.luns.is_empty() {
            return Ok(Vec::new());
        }
        match give(self.control, &self.host, Order::StorageReport, SHORT).await? {
            Report::Storage(reports) => Ok(reports),
            other => Err(AgentFault::Unexpected(format!("{other:?}").chars().take(100).collect())),
        }
    }

    /// What is not usable now, as sentences.
    async fn faults(&self) -> Result<Vec<String>, Cause> {
        let doing = "looking at its paths";
        let network = self.ask_network().await.map_err(|fault| agent_cause(&self.host, doing, fault))?;
        let storage = self.ask_storage().await.map_err(|fault| agent_cause(&self.host, doing, fault))?;
        let mut faults = leg_faults(&network, &self.network);
        faults.extend(storage_faults(&storage, &self.luns));
        Ok(faults)
    }

    /// Whether this one path is usable.
    async fn usable(&self, path: &ProofPath) -> Result<bool, AgentFault> {
        match path.probe {
            Probe::Ping => {
                let report = self.ask_network().await?;
                let legs = report.bond.map(|bond| bond.legs).unwrap_or_default();
                Ok(legs.iter().any(|leg| leg.mac == path.mac && leg.up && leg.usable))
            }
            Probe::Writer => {
                let reports = self.ask_storage().await?;
                let portals = self
                    .luns
                    .iter()
                    .flat_map(|lun| &lun.paths)
                    .filter(|p| p.nic == path.mac)
                    .map(|p| p.portal);
                let portals: Vec<_> = portals.collect();
                let states = reports.iter().flat_map(|report| &report.paths);
                let mut ours = states.filter(|state| portals.contains(&state.portal)).peekable();
                Ok(ours.peek().is_some() && ours.all(|state| state.active))
            }
        }
    }

    async fn trials(&mut self) -> Result<Trials, Cause> {
        let faults = self.faults().await?;
        if !faults.is_empty() {
            return Ok((Vec::new(), Some(format!("the host is degraded: {}", faults.join("; ")))));
        }
        tokio::time::sleep(CALM).await;
        if self.pings.stats().back == 0 {
            return Ok((Vec::new(), Some("the host does not answer pings at all".to_owned())));
        }
        let mut trials = Vec::new();
        let pair = |path: &ProofPath| {
            path.bounds.iter().map(|(how, bound)| (path.clone(), *how, bound.clone())).collect::<Vec<_>>()
        };
        let mut left: Vec<(ProofPath, Break, Bound)> = self.order.paths.iter().flat_map(pair).collect();
        while !left.is_empty() {
            let active = self.ask_network().await.ok().and_then(|report| report.bond?.active);
            let (path, how, bound) = left.remove(next_trial(&left, active));
            let trial = self.trial(&path, how, &bound).await?;
            self.control.tell(&self.host, What::Rack { message: format!("trial {}", shown(&trial)) });
            let back = trial.recovered.is_some();
            trials.push(trial);
            if !back {
                let refused = format!("{} did not come back within {} s", path.role, RECOVERY.as_secs());
                return Ok((trials, Some(refused)));
            }
        }
        Ok((trials, None))
    }

    /// One leg is missing; pulling the other one must break the bound, or the proof sees nothing.
    async fn control_trial(&mut self, leg: &Name) -> Result<Trials, Cause> {
        let legs = |path: &&ProofPath| path.probe == Probe::Ping;
        let missing = self.order.paths.iter().find(|path| path.role == *leg).cloned();
        let other = self.order.paths.iter().filter(legs).find(|path| path.role != *leg).cloned();
        let (Some(missing), Some(other)) = (missing.filter(|path| path.probe == Probe::Ping), other) else {
            let known =
                self.order.paths.iter().filter(legs).map(|path| path.role.to_string()).collect::<Vec<_>>();
            return Ok((
                Vec::new(),
                Some(format!("{leg} is no leg of the bond; legs are {}", known.join(", "))),
            ));
        };
        let out = self.path(&missing)?;
        pull(self.control, &out, Break::Cable).await?;
        tokio::time::sleep(CALM).await;
        let bound = other.bounds.first().cloned().ok_or_else(stopping)?;
        let trial = self.broken(&other, bound.0, &bound.1).await?;
        self.control.tell(
            &self.host,
            What::Rack { message: format!("control trial without {leg}: {}", shown(&trial)) },
        );
        Ok((vec![trial], None))
    }

    fn path(&self, path: &ProofPath) -> Result<Path, Cause> {
        paths(&self.plan, &self.host).into_iter().find(|p| p.role == path.role).ok_or_else(stopping)
    }

    async fn trial(&mut self, path: &ProofPath, how: Break, bound: &Bound) -> Result<Trial, Cause> {
        if path.probe == Probe::Writer {
            self.start_writer().await?;
        }
        let trial = self.broken(path, how, bound).await;
        if path.probe == Probe::Writer {
            self.stop_writer().await;
        }
        trial
    }

    /// Pull, wait until traffic flows beside the broken path, read back, heal, wait until it is active again.
    async fn broken(&mut self, path: &ProofPath, how: Break, bound: &Bound) -> Result<Trial, Cause> {
        let cable = self.path(path)?;
        // Pings measure legs alone: a stall of writes is not to be longer for their load.
        self.pings.rest(path.probe == Probe::Writer);
        self.pings.reset();
        let mut stall = Stall::begin(&self.writer);
        pull(self.control, &cable, how).await?;
        let limit = Duration::from_millis(bound.limit.0) + MARGIN;
        let pulled = Instant::now();
        while pulled.elapsed() < limit {
            self.pass(&mut stall, LOOK).await;
            let silent = match path.probe {
                Probe::Ping => self.pings.stats().silent,
                Probe::Writer => stall.silent(),
            };
            // The host is asked only while it answers: through the path that is left.
            let flows = silent < Duration::from_millis(200) && pulled.elapsed() >= FLOWS;
            if flows && matches!(self.watched(path, &mut stall).await, Ok(false)) {
                self.pass(&mut stall, FLOWS).await;
                break;
            }
        }
        let mut verified = None;
        if path.probe == Probe::Writer {
            // Judged before the read-back, which slows the writer down.
            stall.freeze();
            verified = Some(self.verify().await);
        }
        // A bond is judged over the whole trial, its healing included.
        restore(self.control, &cable).await?;
        let recovered = self.recover(path, &mut stall).await;
        Ok(self.judge(path, how, bound, &stall, verified, recovered))
    }

    /// Lets time pass, and reads the writer's frames meanwhile.
    async fn pass(&self, stall: &mut Stall, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            tokio::time::sleep(GRAIN).await;
            stall.look(&self.writer);
        }
    }

    /// Asks whether a path is usable, and reads the writer's frames while the answer comes.
    async fn watched(&self, path: &ProofPath, stall: &mut Stall) -> Result<bool, AgentFault> {
        let asked = tokio::time::timeout(Duration::from_secs(8), self.usable(path));
        tokio::pin!(asked);
        loop {
            tokio::select! {
                answer = &mut asked => return answer.unwrap_or(Err(AgentFault::Timeout(Duration::from_secs(8)))),
                () = tokio::time::sleep(GRAIN) => stall.look(&self.writer),
            }
        }
    }

    async fn recover(&self, path: &ProofPath, stall: &mut Stall) -> Option<Millis> {
        let healed = Instant::now();
        while healed.elapsed() < RECOVERY {
            if matches!(self.watched(path, stall).await, Ok(true)) {
                return Some(millis(healed.elapsed()));
            }
            self.pass(stall, LOOK).await;
        }
        None
    }

    fn judge(
        &self,
        path: &ProofPath,
        how: Break,
        bound: &Bound,
        stall: &Stall,
        verified: Option<Result<WriterProgress, AgentFault>>,
        recovered: Option<Millis>,
    ) -> Trial {
        let pings = self.pings.stats();
        let (mut lost, mut wrong_blocks, mut read_back) = (pings.sent.saturating_sub(pings.back), 0, 0);
        let (mut gap, mut sent) = (millis(pings.longest), pings.sent);
        let mut sound = true;
        if path.probe == Probe::Writer {
            (gap, sent, lost) = (millis(stall.longest), stall.blocks, stall.errors);
            match &verified {
                Some(Ok(progress)) => {
                    (read_back, wrong_blocks) = (progress.read_back, progress.wrong);
                    lost = lost.max(progress.errors);
                }
                // What could not be read back was not proven.
                _ => sound = false,
            }
            sound &= lost == 0 && wrong_blocks == 0 && read_back > 0;
        }
        let held = sound && sent > 0 && gap <= bound.limit && recovered.is_some();
        Trial {
            path: path.role.clone(),
            how,
            probe: path.probe,
            gap,
            bound: bound.limit,
            bound_is: bound.is.clone(),
            sent,
            lost,
            wrong_blocks,
            read_back,
            recovered,
            held,
        }
    }

    async fn verify(&self) -> Result<WriterProgress, AgentFault> {
        match give(self.control, &self.host, Order::WriterVerify, VERIFY).await? {
            Report::Writer(progress) => Ok(progress),
            other => Err(AgentFault::Unexpected(format!("{other:?}").chars().take(100).collect())),
        }
    }

    async fn start_writer(&mut self) -> Result<(), Cause> {
        let Some(volume) = self.volume.clone() else { return Ok(()) };
        let warrant = self.warrant(&volume)?;
        give(self.control, &self.host, Order::WriterStart { volume, warrant }, SHORT)
            .await
            .map_err(|fault| agent_cause(&self.host, "starting the writer", fault))?;
        // Writes flow before a path is pulled.
        let mut stall = Stall::begin(&self.writer);
        let begun = Instant::now();
        while stall.blocks == 0 && begun.elapsed() < Duration::from_secs(20) {
            self.pass(&mut stall, Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn stop_writer(&self) {
        if self.volume.is_some()
            && let Err(fault) = self.control.world.agents.order(&self.host, Order::WriterStop, SHORT).await
        {
            tracing::debug!(%fault, host = %self.host, "no writer to stop");
        }
    }
}

fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn shown(trial: &Trial) -> String {
    let held = if trial.held { "held" } else { "BROKEN" };
    format!("{} {held}", trial_text(trial))
}

/// The longest time without a completed write, by our clock: the time between frames that show progress.
struct Stall {
    base: Option<WriterProgress>,
    last: u64,
    since: Instant,
    longest: Duration,
    blocks: u64,
    errors: u64,
    frozen: bool,
}

impl Stall {
    fn begin(writer: &WriterWatch) -> Self {
        let base = writer.borrow().map(|(_, progress)| progress);
        let last = base.map_or(0, |progress| progress.blocks);
        Self {
            base,
            last,
            since: Instant::now(),
            longest: Duration::ZERO,
            blocks: 0,
            errors: 0,
            frozen: false,
        }
    }

    fn look(&mut self, writer: &WriterWatch) {
        let Some((at, progress)) = *writer.borrow() else { return };
        if self.frozen {
            return;
        }
        if progress.blocks < self.last {
            // A new writer counts from zero.
            (self.base, self.last) = (None, 0);
        }
        if progress.blocks > self.last {
            self.longest = self.longest.max(at.saturating_duration_since(self.since));
            (self.last, self.since) = (progress.blocks, at);
        }
        let base = self.base.unwrap_or_default();
        self.blocks = progress.blocks.saturating_sub(base.blocks);
        self.errors = progress.errors.saturating_sub(base.errors);
    }

    fn silent(&self) -> Duration {
        self.since.elapsed()
    }

    /// Ends the measurement; a stall that still lasts counts.
    fn freeze(&mut self) {
        self.longest = self.longest.max(self.since.elapsed());
        self.frozen = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trial_of_an_active_backup_bond_breaks_the_active_leg() {
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let bound = Bound { limit: Millis(1000), is: String::new() };
        let path = |mac, probe| ProofPath { role: "p".parse().unwrap(), mac, probe, bounds: Vec::new() };
        let mut left: Vec<_> = [a, b]
            .into_iter()
            .flat_map(|mac| {
                [Break::Cable, Break::DeadSwitch].map(|how| (path(mac, Probe::Ping), how, bound.clone()))
            })
            .collect();
        left.push((path(MacAddr([2; 6]), Probe::Writer), Break::Cable, bound.clone()));
        let mut active = b;
        for _ in 0..4 {
            let (path, ..) = left.remove(next_trial(&left, Some(active)));
            assert_eq!(path.mac, active);
            active = if active == a { b } else { a };
        }
        assert_eq!(next_trial(&left, Some(active)), 0);
        assert_eq!(next_trial(&left, None), 0);
    }
}
