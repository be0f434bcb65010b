//! What is kept when a host's boot failed: the links that its BMC sees, for `why`, and its datagrams, in the store.

use crate::control::{Control, HostRecord};
use crate::show::boot_macs;
use dayzero_model::condition::{Condition, ConditionRecord, State};
use dayzero_model::event::What;
use dayzero_model::ids::HostName;
use dayzero_model::site::Host;
use dayzero_timeline::Failure;
use std::sync::Arc;
use std::time::Duration;

/// A BMC that does not answer for so long has nothing to say.
const PATIENCE: Duration = Duration::from_secs(30);

/// A condition that a boot by network, or a BMC's lease, is part of has just failed.
pub(crate) fn is_failed_boot(change: &ConditionRecord) -> bool {
    matches!(change.state, State::Failed(_))
        && matches!(change.condition, Condition::Found | Condition::Vouched | Condition::Imaged)
}

impl Control {
    /// Keeps what is known of a host's failed boot.
    pub(crate) async fn keep_failed_boot(
        self: Arc<Self>,
        host: &HostName,
        planned: &Host,
        record: HostRecord,
    ) {
        let window = record.facts.window.as_ref();
        let Some(State::Failed(cause)) = record.conditions.phase().map(|phase| &phase.state) else { return };
        let silent = window.is_some_and(|window| window.powered.is_some() && window.ipxe_served.is_none());
        if silent && tokio::time::timeout(PATIENCE, self.note_links(host)).await.is_err() {
            tracing::debug!(%host, "its BMC does not tell its links");
        }
        let failure = Failure {
            host: host.clone(),
            boot: window.map(|window| window.window.boot),
            at: self.now(),
            cause: format!("{}: {}", cause.code, cause.sentence),
        };
        match self.timeline.keep_boot(failure, &boot_macs(planned)).await {
            Ok(0) => {}
            Ok(datagrams) => tracing::info!(%host, datagrams, "the datagrams of its failed boot are stored"),
            Err(error) => {
                tracing::error!(%error, %host, "the datagrams of its failed boot could not be stored")
            }
        }
    }

    async fn note_links(self: &Arc<Self>, host: &HostName) {
        let Ok(_permit) = self.bmc_limit.acquire().await else { return };
        let Ok(bmc) = self.bmc(host).await else { return };
        match bmc.nic_links().await {
            Ok(links) => {
                for (nic, up) in links {
                    self.tell(host, What::Link { nic, up, told_by: "the BMC".to_owned() });
                }
            }
            Err(error) => tracing::debug!(%error, %host, "its BMC does not tell its links"),
        }
    }
}
