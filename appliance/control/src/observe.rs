//! Looking again at what was made: paths of installed hosts, and the power that their BMCs show.

use crate::control::{Control, HostRecord};
use crate::sessions::bmc_cause;
use dayzero_bmc::{BmcError, PowerState};
use dayzero_model::condition::Condition;
use dayzero_model::facts::{CredentialPhase, Failure, HostFacts};
use dayzero_model::ids::HostName;
use dayzero_model::network::NetworkReport;
use dayzero_model::wire::{Order, Report};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often paths and power are looked at.
const EVERY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });
const SHORT: Duration = Duration::from_secs(30);
/// Hosts that are looked at at once.
const AT_ONCE: usize = 32;

/// A report without what only tells of one pass.
fn stable(mut report: NetworkReport) -> NetworkReport {
    report.changes.clear();
    report.neighbours.sort_by_key(|neighbour| neighbour.nic_mac);
    report
}

impl Control {
    /// Looks at hosts that `wanted` accepts, every few seconds.
    async fn look_loop<F: Future<Output = ()> + Send + 'static>(
        self: Arc<Self>,
        wanted: impl Fn(&HostRecord) -> bool,
        look: impl Fn(Arc<Self>, HostName) -> F,
    ) {
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = beat.tick() => {}
            }
            let hosts: Vec<_> = self
                .mirror()
                .hosts
                .iter()
                .filter(|(_, record)| wanted(record))
                .map(|(name, _)| name.clone())
                .collect();
            let mut looks = JoinSet::new();
            for host in hosts {
                if looks.len() >= AT_ONCE {
                    looks.join_next().await;
                }
                looks.spawn(look(self.clone(), host));
            }
            while looks.join_next().await.is_some() {}
        }
    }

    /// Paths of installed hosts.
    pub(crate) async fn paths_loop(self: Arc<Self>) {
        let wanted = |record: &HostRecord| {
            let facts = &record.facts;
            facts.network_basis.is_some()
                && facts.agent.as_ref().is_some_and(|agent| agent.connected && agent.installed)
        };
        self.look_loop(wanted, |control, host| async move { control.look_at_paths(&host).await }).await;
    }

    /// Nobody works on the host, and none of its paths is pulled on purpose.
    fn at_rest(&self, host: &HostName) -> bool {
        let pulled = self.facts(host).is_none_or(|facts| !facts.pulled.is_empty());
        !pulled && !self.busy().flights.contains_key(host)
    }

    async fn look_at_paths(self: &Arc<Self>, host: &HostName) {
        if !self.at_rest(host) {
            return;
        }
        let agents = &self.world.agents;
        let network = match agents.order(host, Order::NetworkReport, SHORT).await {
            Ok(Report::Network(report)) => Some(stable(*report)),
            other => {
                tracing::debug!(?other, %host, "no network report");
                None
            }
        };
        let connected = self.facts(host).is_some_and(|facts| facts.luns_basis.is_some());
        let luns = if connected { agents.order(host, Order::StorageReport, SHORT).await.ok() } else { None };
        let luns = match luns {
            Some(Report::Storage(reports)) => Some(reports),
            _ => None,
        };
        if !self.at_rest(host) {
            return;
        }
        let known = self.facts(host);
        let same_network = network.as_ref().is_none_or(|new| {
            known.as_ref().and_then(|facts| facts.network.clone()).map(stable).as_ref() == Some(new)
        });
        let same_luns =
            luns.as_ref().is_none_or(|new| known.as_ref().is_some_and(|facts| facts.luns == *new));
        if same_network && same_luns {
            return;
        }
        let seen = move |facts: &mut HostFacts| {
            if let Some(network) = network {
                facts.network = Some(network);
            }
            if let Some(luns) = luns {
                facts.luns = luns;
            }
        };
        if let Err(error) = self.step(host, seen).await {
            tracing::error!(%error, %host, "an observation could not be stored");
        }
    }

    /// Power of installed hosts, as their BMCs show it.
    pub(crate) async fn power_loop(self: Arc<Self>) {
        let wanted = |record: &HostRecord| {
            let facts = &record.facts;
            // Whatever else failed, its VMs run or they do not. A BMC that refused our login is not asked again: it counts.
            let refused = facts.failure.as_ref().is_some_and(|failure| refuses(&failure.cause.code));
            facts.credential == CredentialPhase::FactoryDisabled && facts.boot_order_at.is_some() && !refused
        };
        self.look_loop(wanted, |control, host| async move { control.look_at_power(&host).await }).await;
    }

    async fn look_at_power(self: &Arc<Self>, host: &HostName) {
        let Ok((_, planned)) = self.planned(host) else { return };
        let bmc = match self.bmc(host).await {
            Ok(bmc) => bmc,
            Err(cause) if refuses(&cause.code) => return self.found_fails(host, cause).await,
            Err(cause) => {
                tracing::debug!(%host, observed = %cause.observed, "the BMC does not answer");
                return;
            }
        };
        let power = tokio::time::timeout(SHORT, bmc.power()).await;
        let power = match power {
            Ok(Ok(power)) => power,
            Ok(Err(error)) => {
                self.forget_bmc(host).await;
                if matches!(error, BmcError::WrongCredential { .. } | BmcError::CertificateChanged { .. }) {
                    self.found_fails(host, bmc_cause(&planned, "reading its power", &error)).await;
                }
                return;
            }
            Err(_) => return self.forget_bmc(host).await,
        };
        self.seen_power(host, power).await;
    }

    async fn found_fails(self: &Arc<Self>, host: &HostName, cause: dayzero_model::condition::Cause) {
        let at = self.now();
        let failed = move |facts: &mut HostFacts| {
            facts.failure = Some(Failure { condition: Condition::Found, cause, at });
        };
        if let Err(error) = self.step(host, failed).await {
            tracing::error!(%error, %host, "a BMC's failure could not be stored");
        }
    }

    async fn seen_power(self: &Arc<Self>, host: &HostName, power: PowerState) {
        let (off, now) = (power == PowerState::Off, self.now());
        let Some(known) = self.facts(host) else { return };
        let on = !off;
        let same = known.bmc.as_ref().is_some_and(|bmc| bmc.power_on == on);
        if same && (on || known.lost.is_some()) {
            if off {
                // We may have died after the commit that says that it is off, and before those of its VMs.
                self.lose_vms(host).await;
            }
            return;
        }
        let seen = move |facts: &mut HostFacts| {
            if let Some(bmc) = &mut facts.bmc {
                bmc.power_on = on;
            }
            if off {
                facts.lost.get_or_insert(now);
            }
        };
        if off {
            self.world.agents.disconnect(host);
        }
        if let Err(error) = self.step(host, seen).await {
            tracing::error!(%error, %host, "a host's power could not be stored");
        }
        if off {
            self.lose_vms(host).await;
        }
    }
}

/// What a BMC says that will say so again, and may lock our account if it is asked too often.
fn refuses(code: &str) -> bool {
    matches!(code, "wrong-credential" | "pin-mismatch")
}
