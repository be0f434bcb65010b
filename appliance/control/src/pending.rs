//! Clients that want to boot and are in no plan: who they are, until somebody plans them or they are driven out.
//!
//! Invariants: at most [`MOST`] are kept, and whoever invents MACs drives out only others of these; what the store is to be
//! told is of them, or of those that it has, and of no other: so it fits one transaction, however many came and went
//! meanwhile; each that the store has and that went is told until the store has let it go.

use crate::control::Control;
use crate::records::PENDING;
use crate::view::Pending;
use dayzero_model::ids::MacAddr;
use dayzero_model::units::Timestamp;
use dayzero_pxe::SeenClient;
use dayzero_store::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

const MOST: usize = 256;
/// Characters that are kept of what a client says of itself.
const SAID: usize = 300;
/// How often they are stored: who powers on a hall of them costs one transaction.
const EVERY: Duration = Duration::from_secs(5);

/// They, by MAC, and what the store knows of them.
#[derive(Debug, Default)]
pub(crate) struct PendingClients {
    clients: BTreeMap<MacAddr, Pending>,
    stored: BTreeSet<MacAddr>,
    /// Those of which the store does not have what is here.
    changed: BTreeSet<MacAddr>,
}

/// What the store shall have of a MAC; none = nothing.
type Change = (MacAddr, Option<Pending>);

impl PendingClients {
    /// As the store has them.
    pub(crate) fn of(clients: BTreeMap<MacAddr, Pending>) -> Self {
        Self { stored: clients.keys().copied().collect(), clients, changed: BTreeSet::new() }
    }

    /// One of them asked.
    pub(crate) fn note(&mut self, seen: &SeenClient, now: Timestamp) {
        if !self.clients.contains_key(&seen.mac) && self.clients.len() >= MOST {
            self.drive_out();
        }
        let pending = self.clients.entry(seen.mac).or_insert_with(|| {
            let said = format!(
                "on network {}{}{}",
                seen.network,
                seen.vendor_class.as_ref().map_or_else(String::new, |class| format!(", class {class}")),
                seen.uuid.as_ref().map_or_else(String::new, |uuid| format!(", UUID {uuid}")),
            );
            Pending {
                mac: seen.mac,
                first: now,
                last: now,
                count: 0,
                said: said.chars().take(SAID).collect(),
            }
        });
        pending.count += 1;
        pending.last = now;
        self.changed.insert(seen.mac);
    }

    /// The one that was silent for longest.
    fn drive_out(&mut self) {
        let oldest = self.clients.values().min_by_key(|pending| pending.last).map(|pending| pending.mac);
        if let Some(oldest) = oldest {
            self.forget(oldest);
        }
    }

    /// It is no longer one of them.
    pub(crate) fn forget(&mut self, mac: MacAddr) {
        self.clients.remove(&mac);
        if self.stored.contains(&mac) {
            self.changed.insert(mac);
        } else {
            self.changed.remove(&mac);
        }
    }

    /// What the store is to be told; [`settle`](Self::settle) says how that went.
    fn changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|mac| (mac, self.clients.get(&mac).cloned())).collect()
    }

    fn settle(&mut self, changes: &[Change], stored: bool) {
        for (mac, pending) in changes {
            if !stored {
                if self.clients.contains_key(mac) || self.stored.contains(mac) {
                    self.changed.insert(*mac);
                }
            } else if pending.is_none() {
                self.stored.remove(mac);
            } else {
                self.stored.insert(*mac);
                if !self.clients.contains_key(mac) {
                    self.changed.insert(*mac);
                }
            }
        }
    }
}

impl Deref for PendingClients {
    type Target = BTreeMap<MacAddr, Pending>;

    fn deref(&self) -> &Self::Target {
        &self.clients
    }
}

impl Control {
    /// A client that is not in the plan wants to boot. In memory at once, in the store with the others, by
    /// [`Control::store_pending`].
    pub(crate) fn note_unknown(&self, seen: &SeenClient) {
        let now = self.now();
        self.mirror_mut().pending.note(seen, now);
    }

    /// Stores what changed of the pending clients, in one transaction.
    pub(crate) async fn store_pending(&self) -> Result<(), StoreError> {
        let changes = self.mirror_mut().pending.changes();
        if changes.is_empty() {
            return Ok(());
        }
        let stored = async {
            let mut tx = self.store.tx();
            for (mac, pending) in &changes {
                match pending {
                    Some(pending) => tx.put(&PENDING, mac, pending)?,
                    None => tx.delete(&PENDING, mac)?,
                };
            }
            self.commit(tx).await.map(drop)
        };
        let stored = stored.await;
        self.mirror_mut().pending.settle(&changes, stored.is_ok());
        stored
    }

    /// Stores pending clients now and then, until the end.
    pub(crate) async fn pending_loop(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.store_pending().await {
                tracing::error!(%error, "pending clients could not be stored; it is tried again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u32) -> SeenClient {
        let [_, a, b, c] = number.to_be_bytes();
        SeenClient {
            mac: MacAddr([2, 0, 0, a, b, c]),
            network: "mgmt".parse().unwrap(),
            wants_boot: true,
            arch: None,
            uuid: None,
            vendor_class: Some("PXEClient".into()),
            client_id: None,
            duid: None,
            circuit: None,
        }
    }

    /// What a store would have after these changes.
    fn take(store: &mut BTreeMap<MacAddr, Pending>, changes: &[Change]) {
        for (mac, pending) in changes {
            match pending {
                Some(pending) => drop(store.insert(*mac, pending.clone())),
                None => drop(store.remove(mac)),
            }
        }
    }

    #[test]
    fn what_the_store_is_told_is_bounded_and_true_also_where_it_fails_or_is_slow() {
        let (mut pending, mut store) = (PendingClients::default(), BTreeMap::new());
        let mut next = 0..;
        let mut crowd = |pending: &mut PendingClients, many: usize| {
            (&mut next).take(many).for_each(|n| pending.note(&seen(n), Timestamp(u64::from(n))));
        };
        for (before, meanwhile, fails) in [
            (10, 0, false),
            (100_000, 0, false),
            (300, 0, true),
            (300, 700, true),
            (20, 400, false),
            (1, 100, false),
        ] {
            crowd(&mut pending, before);
            let changes = pending.changes();
            assert!(changes.len() <= 2 * MOST, "{} changes", changes.len());
            crowd(&mut pending, meanwhile);
            if !fails {
                take(&mut store, &changes);
            }
            pending.settle(&changes, !fails);
            assert!(store.len() <= 2 * MOST, "{} in the store", store.len());
        }
        let changes = pending.changes();
        take(&mut store, &changes);
        pending.settle(&changes, true);
        assert_eq!(store, pending.clients);
        assert_eq!(store.len(), MOST);
        assert!(pending.changes().is_empty());
    }
}
