//! What is kept when a host's boot failed, or is not heard of: the links that its BMC sees, for `why`; and the datagrams of
//! a failed one, in the store.

use crate::control::{Control, HostRecord};
use crate::show::boot_macs;
use dayzero_model::condition::{Condition, ConditionRecord, State};
use dayzero_model::event::What;
use dayzero_model::facts::WindowFacts;
use dayzero_model::ids::{HostName, MacAddr};
use dayzero_model::site::Host;
use dayzero_model::units::{Millis, Timestamp};
use dayzero_timeline::Failure;
use std::sync::Arc;
use std::time::Duration;

/// A BMC that does not answer for so long has nothing to say.
const PATIENCE: Duration = Duration::from_secs(30);

/// A person who asks why waits for its BMC no longer than this.
const ASKED: Duration = Duration::from_secs(10);
/// A usual POST is almost over by then, and the recorder's rules begin to miss a DHCP message.
const SILENT: Millis = Millis(115_000);
/// What a BMC said of links is asked again after this.
const FRESH: Millis = Millis(30_000);

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

    /// Somebody asks why a host does not go on: if it has power and is not heard of, its BMC is asked for its links, which
    /// nobody else knows. A condition that waits for a long POST fails much later.
    pub(crate) async fn look_at_links(self: &Arc<Self>, host: &HostName) {
        let (now, facts) = (self.now(), self.facts(host));
        let window = facts.as_ref().and_then(|facts| facts.window.as_ref());
        let unheard = |window: &&WindowFacts| window.dhcp_seen.or(window.ipxe_served).is_none();
        let Some(powered) = window.filter(unheard).and_then(|window| window.powered) else { return };
        if now.since(powered) < SILENT {
            return;
        }
        let after = Timestamp(now.0.saturating_sub(FRESH.0));
        let events = self.timeline.of_host(host, after);
        let known = events.iter().any(|event| matches!(event.what, What::Link { .. }));
        if !known && tokio::time::timeout(ASKED, self.note_links(host)).await.is_err() {
            tracing::debug!(%host, "its BMC does not tell its links");
        }
    }

    async fn note_links(self: &Arc<Self>, host: &HostName) {
        let Ok(_permit) = self.bmc_limit.acquire().await else { return };
        let (Ok((_, planned)), Ok(bmc)) = (self.planned(host), self.bmc(host).await) else { return };
        // That a storage NIC has a link says nothing of the boot.
        let boots = |nic: MacAddr| planned.bond.nics.iter().any(|planned| planned.mac == nic);
        match bmc.nic_links().await {
            Ok(links) => {
                for (nic, up) in links.into_iter().filter(|(nic, _)| boots(*nic)) {
                    self.tell(host, What::Link { nic, up, told_by: "the BMC".to_owned() });
                }
            }
            Err(error) => tracing::debug!(%error, %host, "its BMC does not tell its links"),
        }
    }
}
