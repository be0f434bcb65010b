//! What the network boot services ask: who a MAC is, what it boots; and what their events say about a host's boot.
//!
//! Invariants: answers come from memory, without waiting; a client that is not in the plan is recorded as pending, and
//! whoever invents MACs drives out only other pending ones; what is seen of others than hosts comes to the store within
//! limits, and is in memory all the same.

use crate::control::Control;
use crate::records::{CURRENT, DUID, LEASES, PENDING, VMS};
use crate::view::Pending;
use dayzero_lifecycle::boot::{self, Asked};
use dayzero_model::boot::{BootAction, Client};
use dayzero_model::datagram::Datagram;
use dayzero_model::event::{Event, What};
use dayzero_model::facts::{HostFacts, WindowFacts};
use dayzero_model::ids::{HostName, MacAddr};
use dayzero_model::units::Timestamp;
use dayzero_pxe::{
    BootDirector, Lease, LeaseChange, LeaseStore, LeaseStoreError, Limit, PxeEvent, ScriptQuery, SeenClient,
};
use dayzero_store::{Pair, StoreError};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Name of the discovery kernel in boot URLs.
pub(crate) const KERNEL: &str = "vmlinuz";
/// Name of its initramfs; once it is served, the kernel runs.
pub(crate) const INITRD: &str = "initrd.img";
/// How the names of loaders for UEFI end.
const LOADER: &str = ".efi";
/// Observations that wait to become facts.
const QUEUE: usize = 4096;
/// Pending clients kept.
const MAX_PENDING: usize = 256;
/// How often pending clients are stored: who powers on a hall of them costs one transaction.
const PENDING_EVERY: Duration = Duration::from_secs(5);

enum Note {
    Event(Box<PxeEvent>),
    Unknown(Box<SeenClient>),
}

/// The director: control, as the boot services see it.
pub(crate) struct Director {
    control: Arc<Control>,
    notes: mpsc::Sender<Note>,
    /// Notes that found no place.
    lost: AtomicU64,
    /// Events of others than hosts that come to the store.
    stored: Limit<MacAddr>,
}

/// One line of the log for so many notes that are lost: whoever floods the boot network does not flood the log.
const LOST_A_LINE: u64 = 1000;

impl Director {
    /// A director, with the task that turns observations into facts.
    pub(crate) fn start(control: &Arc<Control>) -> Arc<Self> {
        let (notes, mut queue) = mpsc::channel(QUEUE);
        let keeper = control.clone();
        control.tasks.spawn(async move {
            loop {
                let note = tokio::select! {
                    () = keeper.cancel.cancelled() => return,
                    note = queue.recv() => note,
                };
                let Some(note) = note else { return };
                let kept = match note {
                    Note::Event(event) => keeper.note_event(*event).await,
                    Note::Unknown(seen) => {
                        keeper.note_unknown(&seen);
                        Ok(())
                    }
                };
                if let Err(error) = kept {
                    tracing::error!(%error, "an observation of the boot network could not be stored");
                }
            }
        });
        let stored = Limit::new("events of clients that are no hosts, for the store");
        Arc::new(Self { control: control.clone(), notes, lost: AtomicU64::new(0), stored })
    }

    fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed);
            if lost.is_multiple_of(LOST_A_LINE) {
                tracing::warn!(lost = lost + 1, "more boot events than can be kept: some are lost");
            }
        }
    }
}

impl BootDirector for Director {
    fn client(&self, seen: &SeenClient) -> Client {
        let circuit = seen.circuit.as_ref().map(|port| (&*port.id, port.remote.as_deref()));
        let client = self.control.client(&Asked {
            mac: seen.mac,
            network: &seen.network,
            client_id: seen.client_id.as_deref(),
            duid: seen.duid.as_deref(),
            circuit,
        });
        if client == Client::Unknown && seen.wants_boot {
            self.note(Note::Unknown(Box::new(seen.clone())));
        }
        client
    }

    fn boot_script(&self, query: &ScriptQuery) -> BootAction {
        let asked = Asked::mac(query.mac, &query.network);
        let Client::Host { host, .. } = self.control.client(&asked) else { return BootAction::Refuse };
        let (Some(plan), Some(facts)) = (self.control.plan(), self.control.facts(&host)) else {
            return BootAction::LocalDisk;
        };
        match plan.site.host(&host) {
            None => BootAction::Refuse,
            Some(placed) => {
                let around = self.control.around(&plan, &placed, &facts);
                boot::script(&plan.site, &placed, &facts, &around, query.mac)
            }
        }
    }

    fn trusts(&self, mac: MacAddr) -> bool {
        let mirror = self.control.mirror();
        let facts = |host: &HostName| mirror.hosts.get(host).map(|record| &*record.facts);
        mirror.plan.as_ref().is_some_and(|plan| plan.clients.boot_by_https(facts, mac))
    }

    fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.control.mirror().vms.has_address(address)
    }

    fn event(&self, event: PxeEvent) {
        let at = self.control.now();
        if telling(&event) {
            self.note(Note::Event(Box::new(event.clone())));
        }
        let PxeEvent { mac, host, boot, what, .. } = event;
        // VMs and strangers come by the thousand: what went well with them is not worth a write each, and of the rest not
        // more than a person reads.
        let fleeting = host.is_none()
            && (matches!(what, What::DhcpIn { .. } | What::DhcpOut { .. })
                || !mac.is_some_and(|mac| self.stored.allows(mac, false, Instant::now())));
        let event = Event { at, host, mac, boot, what };
        if fleeting {
            self.control.timeline.observe(event);
        } else {
            self.control.timeline.record(event);
        }
    }

    fn datagram(&self, datagram: &Datagram<'_>) {
        self.control.timeline.capture(datagram);
    }
}

/// Events that say how far a host's boot is, or that a BMC has its address.
fn telling(event: &PxeEvent) -> bool {
    event.host.is_some()
        && match &event.what {
            What::DhcpOut { kind, .. } | What::DhcpUnsent { kind, .. } => kind == "ACK",
            // Of an operating system's client, or of a BMC's, nothing is learned of the boot.
            What::DhcpIn { .. } => event.boot.is_some() && event.what.asks_to_boot(),
            What::TftpEnd { error: None, .. } | What::Script { .. } => true,
            What::HttpFile { path, status: 200..=299, .. } => {
                path.ends_with(INITRD) || path.ends_with(LOADER)
            }
            What::HttpFile { path, status: 503, .. } => path.starts_with("/boot/file/"),
            _ => false,
        }
}

/// Notes in a window what an event says.
fn mark(window: &mut WindowFacts, what: &What, now: Timestamp) {
    if let What::HttpFile { status: 503, .. } = what {
        window.told_to_wait = Some(now);
        return;
    }
    let place = match what {
        // What firmware asked before its power was switched is of another boot.
        What::DhcpIn { .. } if window.powered.is_some() => &mut window.dhcp_seen,
        What::TftpEnd { file, .. } if file.ends_with(INITRD) => &mut window.kernel_served,
        What::TftpEnd { .. } => &mut window.ipxe_served,
        What::Script { action: BootAction::Discovery { .. }, .. } => &mut window.script_served,
        What::HttpFile { path, .. } if path.ends_with(LOADER) => &mut window.ipxe_served,
        What::HttpFile { .. } => &mut window.kernel_served,
        _ => return,
    };
    place.get_or_insert(now);
}

impl Control {
    /// Who a client is.
    pub(crate) fn client(&self, asked: &Asked<'_>) -> Client {
        let mirror = self.mirror();
        let Some(plan) = &mirror.plan else { return Client::Unknown };
        let facts = |host: &HostName| mirror.hosts.get(host).map(|record| &*record.facts);
        plan.clients.find(facts, |mac| mirror.vms.by_mac(mac), asked)
    }

    pub(crate) async fn note_event(self: &Arc<Self>, event: PxeEvent) -> Result<(), StoreError> {
        let (Some(host), now) = (event.host.clone(), self.now()) else { return Ok(()) };
        // One that could not leave gave no address.
        let lease = match event.what {
            What::DhcpOut { .. } => Some(Some(now)),
            What::DhcpUnsent { .. } => Some(None),
            _ => None,
        };
        if let Some(lease) = lease {
            let Ok((_, planned)) = self.planned(&host) else { return Ok(()) };
            if event.mac != Some(planned.bmc.mac) {
                return Ok(());
            }
            return self.step(&host, move |facts| facts.bmc_lease = lease).await;
        }
        // It asks again and again, and the first time says it all.
        let first = || {
            let facts = self.facts(&host);
            let window = facts.as_ref().and_then(|facts| facts.window.as_ref());
            window.is_some_and(|window| window.powered.is_some() && window.dhcp_seen.is_none())
        };
        if matches!(event.what, What::DhcpIn { .. }) && !first() {
            return Ok(());
        }
        let change = move |facts: &mut HostFacts| {
            if let Some(window) = facts
                .window
                .as_mut()
                .filter(|window| event.boot.is_none_or(|boot| boot == window.window.boot))
            {
                mark(window, &event.what, now);
            }
        };
        self.step(&host, change).await
    }

    /// A client that is not in the plan wants to boot. In memory at once, in the store with the others, by
    /// [`Control::store_pending`].
    pub(crate) fn note_unknown(&self, seen: &SeenClient) {
        let now = self.now();
        let mut mirror = self.mirror_mut();
        if !mirror.pending.contains_key(&seen.mac) && mirror.pending.len() >= MAX_PENDING {
            let oldest =
                mirror.pending.values().min_by_key(|pending| pending.last).map(|pending| pending.mac);
            if let Some(oldest) = oldest {
                mirror.pending.remove(&oldest);
                mirror.pending_changed.insert(oldest);
            }
        }
        let pending = mirror.pending.entry(seen.mac).or_insert_with(|| {
            let said = format!(
                "on network {}{}{}",
                seen.network,
                seen.vendor_class.as_ref().map_or_else(String::new, |class| format!(", class {class}")),
                seen.uuid.as_ref().map_or_else(String::new, |uuid| format!(", UUID {uuid}")),
            );
            Pending { mac: seen.mac, first: now, last: now, count: 0, said: said.chars().take(300).collect() }
        });
        pending.count += 1;
        pending.last = now;
        mirror.pending_changed.insert(seen.mac);
    }

    /// Stores what changed of the pending clients, in one transaction.
    pub(crate) async fn store_pending(&self) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut self.mirror_mut().pending_changed);
        if changed.is_empty() {
            return Ok(());
        }
        let stored = async {
            let mut tx = self.store.tx();
            for mac in &changed {
                match self.mirror().pending.get(mac) {
                    Some(pending) => tx.put(&PENDING, mac, pending)?,
                    None => tx.delete(&PENDING, mac)?,
                };
            }
            self.commit(tx).await.map(drop)
        };
        let stored = stored.await;
        if stored.is_err() {
            self.mirror_mut().pending_changed.extend(changed);
        }
        stored
    }

    /// Stores pending clients now and then, until the end.
    pub(crate) async fn pending_loop(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(PENDING_EVERY) => {}
            }
            if let Err(error) = self.store_pending().await {
                tracing::error!(%error, "pending clients could not be stored; it is tried again");
            }
        }
    }
}

/// DHCP leases in the store; a VM's lease is its address.
pub(crate) struct StoredLeases(pub(crate) Arc<Control>);

#[async_trait::async_trait]
impl LeaseStore for StoredLeases {
    async fn load(&self) -> Result<Vec<Lease>, LeaseStoreError> {
        let leases = self.0.store.scan(&LEASES, "").map_err(|error| LeaseStoreError(error.to_string()))?;
        Ok(leases.into_iter().map(|entry| entry.value).collect())
    }

    async fn commit(&self, changes: Vec<LeaseChange>) -> Result<(), LeaseStoreError> {
        self.0.store_leases(changes).await.map_err(|error| LeaseStoreError(error.to_string()))
    }

    async fn duid(&self, made: Vec<u8>) -> Result<Vec<u8>, LeaseStoreError> {
        self.0.store_duid(made).await.map_err(|error| LeaseStoreError(error.to_string()))
    }
}

impl Control {
    /// The identifier that is kept; the one that was made, if none is.
    async fn store_duid(&self, made: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let _turn = self.turn.lock().await;
        if let Some(kept) = self.store.get(&DUID, &CURRENT.to_owned())? {
            return Ok(kept);
        }
        let mut tx = self.store.tx();
        tx.put(&DUID, &CURRENT.to_owned(), &made)?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn store_leases(self: &Arc<Self>, changes: Vec<LeaseChange>) -> Result<(), StoreError> {
        let control = self.clone();
        let stored = self.tasks.spawn(async move {
            let _turn = control.turn.lock().await;
            let mut tx = control.store.tx();
            let mut vms = Vec::new();
            for change in &changes {
                match change {
                    LeaseChange::Put(lease) => {
                        tx.put(&LEASES, &Pair(lease.network.clone(), lease.address), lease)?;
                        let vm = control.mirror().vms.by_mac(lease.mac).filter(|_| !lease.declined).cloned();
                        if let Some(mut vm) = vm.filter(|vm| vm.address != Some(lease.address)) {
                            vm.address = Some(lease.address);
                            tx.put(&VMS, &vm.name, &vm)?;
                            vms.push(vm);
                        }
                    }
                    LeaseChange::Remove { network, address } => {
                        tx.delete(&LEASES, &Pair(network.clone(), *address))?;
                    }
                }
            }
            control.commit(tx).await?;
            let mut mirror = control.mirror_mut();
            vms.into_iter().for_each(|vm| mirror.vms.put(vm));
            Ok(())
        });
        stored.await.unwrap_or(Err(StoreError::Closed))
    }
}
