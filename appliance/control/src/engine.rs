//! The engine: a change of facts and all that follows from it, in one transaction; then the action that it asks for.

use crate::actions;
use crate::control::{Control, Flight, HostRecord, Plan};
use crate::failed_boot::is_failed_boot;
use crate::records::{self, ClusterRecord};
use crate::view::state_text;
use dayzero_lifecycle::conditions::wired;
use dayzero_lifecycle::{Action, ActionKind, Snapshot, Surroundings, advance, desired};
use dayzero_model::condition::{Cause, Condition, Conditions, State};
use dayzero_model::event::What;
use dayzero_model::facts::{Failure, HostFacts};
use dayzero_model::ids::{HostName, Name};
use dayzero_model::site::Placed;
use dayzero_model::units::Timestamp;
use dayzero_store::{Revision, StoreError, Transaction};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What an action leaves in the facts.
pub(crate) type Delta = Box<dyn FnOnce(&mut HostFacts) + Send>;

/// What a step needs beside a change of facts: more writes in the same transaction.
pub(crate) type Writes = Box<dyn FnOnce(&mut Transaction) -> Result<(), StoreError> + Send>;

/// How often the engine looks at deadlines.
const TICK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// What a step decided, before it is committed.
struct Decided {
    facts: HostFacts,
    conditions: Conditions,
    changes: Vec<dayzero_model::condition::ConditionRecord>,
    action: Option<Action>,
    failed: Option<Condition>,
    cluster: Option<(Name, ClusterRecord)>,
}

impl Control {
    /// Changes a host's facts, and decides what follows. Returns once it is durable. A host that is not in the plan is
    /// left alone.
    pub(crate) async fn step(
        self: &Arc<Self>,
        host: &HostName,
        change: impl FnOnce(&mut HostFacts) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.step_with(host, change, None).await
    }

    /// As [`Control::step`], with more writes in the same transaction. A caller that is dropped meanwhile does not leave
    /// store and mirror apart: the step goes on in a task of its own.
    pub(crate) async fn step_with(
        self: &Arc<Self>,
        host: &HostName,
        change: impl FnOnce(&mut HostFacts) + Send + 'static,
        writes: Option<Writes>,
    ) -> Result<(), StoreError> {
        let (control, host) = (self.clone(), host.clone());
        let step = self.tasks.spawn(async move {
            let _turn = control.turn.lock().await;
            match control.step_in_turn(&host, change, writes, None).await? {
                Some(cluster) => control.look_again(&cluster, &host).await,
                None => Ok(()),
            }
        });
        step.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Hosts of a cluster look again after something of the cluster changed.
    async fn look_again(self: &Arc<Self>, cluster: &Name, but: &HostName) -> Result<(), StoreError> {
        let Some(plan) = self.plan() else { return Ok(()) };
        let others =
            plan.site.hosts().filter(|placed| placed.cluster.name == *cluster && placed.host.name != *but);
        for other in others {
            self.step_in_turn(&other.host.name, |_| {}, None, None).await?;
        }
        Ok(())
    }

    /// The end of an action: its result becomes facts, and the next action may begin.
    async fn landed(
        self: Arc<Self>,
        host: HostName,
        kind: ActionKind,
        number: u64,
        result: Result<Delta, Cause>,
    ) {
        let _turn = self.turn.lock().await;
        {
            let mut busy = self.busy();
            if busy.flights.get(&host).is_none_or(|flight| flight.number != number) {
                return;
            }
            busy.flights.remove(&host);
        }
        let at = self.now();
        let change: Delta = match result {
            Ok(delta) => delta,
            Err(cause) => Box::new(move |facts| {
                facts.failure = Some(Failure { condition: kind.condition(), cause, at });
            }),
        };
        match self.step_in_turn(&host, change, None, None).await {
            Ok(Some(cluster)) => {
                if let Err(error) = self.look_again(&cluster, &host).await {
                    tracing::error!(%error, %cluster, "hosts could not look again");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, %host, "a result could not be stored; the action is begun again")
            }
        }
    }

    /// Records something of a cluster, then all its hosts look again.
    pub(crate) async fn change_cluster(
        self: &Arc<Self>,
        name: &Name,
        change: impl FnOnce(&mut ClusterRecord) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (control, name) = (self.clone(), name.clone());
        let changed = self.tasks.spawn(async move { control.change_cluster_in_turn(&name, change).await });
        changed.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn change_cluster_in_turn(
        self: &Arc<Self>,
        name: &Name,
        change: impl FnOnce(&mut ClusterRecord) + Send,
    ) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let mut record = self.mirror().clusters.get(name).cloned().unwrap_or_default();
        change(&mut record);
        let mut tx = self.store.tx();
        tx.put(&records::CLUSTERS, name, &record)?;
        self.commit(tx).await?;
        self.mirror_mut().clusters.insert(name.clone(), record);
        let Some(plan) = self.plan() else { return Ok(()) };
        for placed in plan.site.hosts().filter(|placed| placed.cluster.name == *name) {
            self.step_in_turn(&placed.host.name, |_| {}, None, None).await?;
        }
        Ok(())
    }

    /// One step; the caller holds the turn. Answers the cluster if a host was elected in it.
    pub(crate) async fn step_in_turn(
        self: &Arc<Self>,
        host: &HostName,
        change: impl FnOnce(&mut HostFacts) + Send,
        writes: Option<Writes>,
        plan: Option<&Plan>,
    ) -> Result<Option<Name>, StoreError> {
        let Some(plan) = plan.cloned().or_else(|| self.plan()) else { return Ok(None) };
        let Some(placed) = plan.site.host(host) else { return Ok(None) };
        let now = self.now();
        let before = self.mirror().hosts.get(host).cloned();
        let stored = before.clone().unwrap_or_else(|| HostRecord {
            facts: Arc::new(HostFacts::default()),
            conditions: Arc::new(Conditions(Vec::new())),
        });
        let mut facts = (*stored.facts).clone();
        change(&mut facts);
        let decided = self.decide(&plan, &placed, facts, &stored.conditions, now);
        let same =
            before.is_some() && *stored.facts == decided.facts && *stored.conditions == decided.conditions;
        if !same || writes.is_some() || decided.cluster.is_some() {
            let mut tx = self.store.tx();
            records::put_facts(&self.store, &mut tx, host, &stored.facts, &decided.facts)?;
            tx.put(&records::CONDITIONS, host, &decided.conditions)?;
            if let Some((name, record)) = &decided.cluster {
                tx.put(&records::CLUSTERS, name, record)?;
            }
            if let Some(writes) = writes {
                writes(&mut tx)?;
            }
            self.commit(tx).await?;
        }
        let elected = decided.cluster.as_ref().map(|(name, _)| name.clone());
        self.publish(host, &decided);
        if decided.changes.iter().any(is_failed_boot) {
            let (control, host, record) = (self.clone(), host.clone(), self.record(host));
            let placed = placed.host.clone();
            self.tasks.spawn(async move { control.keep_failed_boot(&host, &placed, record).await });
        }
        if let Some(condition) = decided.failed {
            self.abort(host, condition);
        }
        if let Some(action) = decided.action {
            self.take_off(host, action);
        }
        Ok(elected)
    }

    fn decide(
        &self,
        plan: &Plan,
        placed: &Placed<'_>,
        mut facts: HostFacts,
        conditions: &Conditions,
        now: Timestamp,
    ) -> Decided {
        let host = &placed.host.name;
        let busy = self.busy().flights.get(host).map(|flight| flight.kind);
        let mut around = self.around(plan, placed, &facts);
        fn snapshot<'a>(
            (plan, placed, conditions, busy): (&'a Plan, Placed<'a>, &'a Conditions, Option<ActionKind>),
            facts: &'a HostFacts,
            around: &'a Surroundings,
        ) -> Snapshot<'a> {
            Snapshot { site: &plan.site, placed, facts, conditions, plan_hash: plan.hash, around, busy }
        }
        let base = (plan, *placed, conditions, busy);
        let mut cluster = None;
        if around.elected.is_none() && wired::paths_ready(&snapshot(base, &facts, &around)) {
            let name = placed.cluster.name.clone();
            let mut record = self.mirror().clusters.get(&name).cloned().unwrap_or_default();
            record.elected = Some(host.clone());
            around.elected = Some(host.clone());
            cluster = Some((name, record));
        }
        let next = advance(&snapshot(base, &facts, &around), now);
        let failed = next.failure.as_ref().map(|failure| failure.condition);
        if next.failure.is_some() {
            facts.failure = next.failure;
        }
        Decided {
            facts,
            conditions: next.conditions,
            changes: next.changes,
            action: next.action,
            failed,
            cluster,
        }
    }

    /// What is around a host.
    pub(crate) fn around(&self, plan: &Plan, placed: &Placed<'_>, facts: &HostFacts) -> Surroundings {
        let management = desired::management(&plan.site, placed).ok();
        let ip =
            management.and_then(|network| plan.site.appliance_for(network)).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let at = |port| SocketAddr::new(IpAddr::V4(ip), port);
        let ports = &self.config.ports;
        let mirror = self.mirror();
        let cluster = mirror.clusters.get(&placed.cluster.name);
        let storage = desired::luns(&plan.site, placed)
            .ok()
            .and_then(|luns| luns.first().map(|lun| lun.storage.clone()));
        let has_group = |name: &Name| cluster.is_some_and(|cluster| cluster.volume_groups.contains(name));
        let profile = &placed.cluster.profile;
        let drift =
            facts.inventory.as_ref().map(|inventory| self.world.profiles.drift(profile, placed, inventory));
        Surroundings {
            agent_server: at(ports.agents),
            enrol_server: at(ports.enrol),
            manifest_url: format!("https://{ip}:{}/images/manifest.json", ports.https),
            chunks_url: format!("https://{ip}:{}/images", ports.https),
            manifest_sha256: mirror.manifest,
            elected: cluster.and_then(|cluster| cluster.elected.clone()),
            volume_group: storage.as_ref().is_some_and(has_group),
            drift: drift.unwrap_or_else(|| Some(Vec::new())),
        }
    }

    /// What is durable becomes visible: the mirror, then the timeline.
    fn publish(&self, host: &HostName, decided: &Decided) {
        {
            let mut mirror = self.mirror_mut();
            let facts = Arc::new(decided.facts.clone());
            let conditions = Arc::new(decided.conditions.clone());
            mirror.hosts.insert(host.clone(), HostRecord { facts, conditions });
            if let Some((name, record)) = &decided.cluster {
                mirror.clusters.insert(name.clone(), record.clone());
            }
        }
        for record in &decided.changes {
            if matches!(record.state, State::Unmet) && record.began.is_none() {
                // A condition that is not begun is no news.
                continue;
            }
            let (state, detail) = state_text(&record.state);
            let what = What::Condition { condition: record.condition, state: state.to_owned(), detail };
            self.tell(host, what);
        }
    }

    /// Commits; in tests this is where the process may die.
    pub(crate) async fn commit(&self, tx: Transaction) -> Result<Revision, StoreError> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering;
            if self.commits_left.load(Ordering::SeqCst) <= 0 {
                std::future::pending::<()>().await;
            }
            let revision = tx.commit().await?;
            if self.commits_left.fetch_sub(1, Ordering::SeqCst) <= 1 {
                self.cancel.cancel();
                std::future::pending::<()>().await;
            }
            Ok(revision)
        }
        #[cfg(not(test))]
        tx.commit().await
    }

    /// An action whose condition ran out of time is given up.
    pub(crate) fn abort(&self, host: &HostName, condition: Condition) {
        let mut busy = self.busy();
        if busy.flights.get(host).is_some_and(|flight| flight.kind.condition() == condition)
            && let Some(flight) = busy.flights.remove(host)
        {
            flight.abort.abort();
        }
    }

    /// Whatever is under way for a host is given up.
    pub(crate) fn abort_all(&self, host: &HostName) {
        let mut busy = self.busy();
        if let Some(flight) = busy.flights.remove(host) {
            flight.abort.abort();
        }
        if let Some((_, console)) = busy.consoles.remove(host) {
            console.abort();
        }
        busy.sessions.remove(host);
    }

    /// Begins an action.
    fn take_off(self: &Arc<Self>, host: &HostName, action: Action) {
        if self.cancel.is_cancelled() {
            return;
        }
        let kind = action.kind();
        let mut busy = self.busy();
        if !busy.started || busy.flights.contains_key(host) {
            return;
        }
        busy.next += 1;
        let number = busy.next;
        let (control, name) = (self.clone(), host.clone());
        let task = self.tasks.spawn(async move {
            let limit = Duration::from_millis(kind.timeout().0);
            let run = tokio::time::timeout(limit, actions::run(&control, &name, action));
            let result = match run.await {
                Ok(result) => result,
                Err(_) => Err(actions::timed_out(&name, kind)),
            };
            // From here on nobody aborts it: the flight is landing.
            let landing = control.clone().landed(name, kind, number, result);
            control.tasks.spawn(landing);
        });
        let flight = Flight { kind, number, abort: task.abort_handle() };
        busy.flights.insert(host.clone(), flight);
    }

    /// Looks at each host once, as after a start or a new plan.
    pub(crate) async fn look_at_all(self: &Arc<Self>) -> Result<(), StoreError> {
        let Some(plan) = self.plan() else { return Ok(()) };
        for placed in plan.site.hosts() {
            self.step(&placed.host.name, |_| {}).await?;
        }
        Ok(())
    }

    /// Deadlines: hosts whose time is up are looked at again.
    pub(crate) async fn tick_loop(self: Arc<Self>) {
        let mut beat = tokio::time::interval(TICK);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = beat.tick() => {}
            }
            let now = self.now();
            let due = |record: &HostRecord| {
                record
                    .conditions
                    .0
                    .iter()
                    .any(|c| matches!(c.state, State::Working { deadline, .. } if deadline <= now))
            };
            let hosts: Vec<_> = self
                .mirror()
                .hosts
                .iter()
                .filter(|(_, record)| due(record))
                .map(|(name, _)| name.clone())
                .collect();
            for host in hosts {
                if let Err(error) = self.step(&host, |_| {}).await {
                    tracing::error!(%error, %host, "a deadline could not be recorded");
                }
            }
            self.clone().tend_consoles();
            self.clone().tend_vms();
            self.clone().tend_pulled();
        }
    }
}
