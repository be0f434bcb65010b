//! What both listeners share: the service, the users, the clock and what is known of this process.

use dayzero_control::Service;
use dayzero_model::units::Timestamp;
use dayzero_store::Store;
use dayzero_trust::Users;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Everything that a handler needs. Built once, shared by both listeners.
pub struct Api {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) store: Store,
    pub(crate) users: Users,
    pub(crate) clock: fn() -> Timestamp,
    pub(crate) started: Timestamp,
    /// Ends event streams, so that a shutdown need not wait for those who watch.
    pub(crate) cancel: CancellationToken,
    /// Places for open pages.
    pub(crate) pages: Arc<Semaphore>,
}

/// Answer of `GET /v1/health`. Without an identity only `status` is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the appliance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Since when this process serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreHealth>,
    /// Most memory that this process ever had resident (VmHWM), bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// How the store was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreHealth {
    /// It was closed in order the last time.
    pub clean: bool,
    /// Writes that were applied again from the log.
    pub replayed: usize,
    /// How long opening took, ms.
    pub open_ms: u64,
    /// Number of the last commit.
    pub revision: u64,
}

impl Api {
    /// Over a service and the store that holds users and sessions. `cancel` ends event streams.
    pub fn new(
        service: Arc<dyn Service>,
        store: Store,
        users: Users,
        clock: fn() -> Timestamp,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let pages = Arc::new(Semaphore::new(crate::web::MOST_PAGES));
        Arc::new(Self { service, store, users, clock, started: clock(), cancel, pages })
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn health(&self, known: bool) -> Health {
        let report = self.store.open_report();
        let store = StoreHealth {
            clean: report.clean,
            replayed: report.replayed,
            open_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
            revision: self.store.revision().0,
        };
        Health {
            status: "ok".to_owned(),
            version: known.then(|| env!("CARGO_PKG_VERSION").to_owned()),
            started: known.then_some(self.started),
            store: known.then_some(store),
            peak_memory: known.then(peak_memory).flatten(),
        }
    }
}

/// `VmHWM` of this process (proc(5)), bytes.
fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}
