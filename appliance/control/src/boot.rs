//! What the network boot services ask: who a MAC is, what it boots; and what their events say about a host's boot.
//!
//! Invariants: answers come from memory, without waiting; a client that is not in the plan is recorded as pending, by a way
//! of its own, so that whoever invents MACs holds up and drives out only other pending ones; a client that asks in a
//! host's name again and again says no more by it than with the first times; what comes so often, and what is seen of
//! others than hosts, comes to the store within limits, and is in memory all the same.

use crate::control::Control;
use dayzero_lifecycle::boot::{self, Asked};
use dayzero_model::boot::{BootAction, Client};
use dayzero_model::datagram::Datagram;
use dayzero_model::event::{Event, What};
use dayzero_model::facts::{HostFacts, WindowFacts};
use dayzero_model::ids::{HostName, MacAddr};
use dayzero_model::units::Timestamp;
use dayzero_pxe::{BootDirector, Limit, PxeEvent, ScriptQuery, SeenClient};
use dayzero_store::StoreError;
use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

/// Name of the discovery kernel in boot URLs.
pub(crate) const KERNEL: &str = "vmlinuz";
/// Name of its initramfs; once it is served, the kernel runs.
pub(crate) const INITRD: &str = "initrd.img";
/// How the names of loaders for UEFI end.
const LOADER: &str = ".efi";
/// Observations that wait to become facts, and as many that wait to become pending clients.
const QUEUE: usize = 4096;

/// The director: control, as the boot services see it.
pub(crate) struct Director {
    control: Arc<Control>,
    events: Queue<PxeEvent>,
    unknown: Queue<SeenClient>,
    /// Events of others than hosts that come to the store.
    stored: Limit<MacAddr>,
    /// DHCP messages to and from hosts, of each type, that come to the store; those without an answer by their cause.
    messages: Limit<(MacAddr, Cow<'static, str>)>,
    /// What becomes a fact of a host, of each kind.
    facts: Limit<(MacAddr, Says)>,
}

/// A way to the task that makes something of them.
struct Queue<T> {
    waiting: mpsc::Sender<Box<T>>,
    /// That found no place.
    lost: AtomicU64,
    what: &'static str,
}

/// One line of the log for so many notes that are lost: whoever floods the boot network does not flood the log.
const LOST_A_LINE: u64 = 1000;

impl<T> Queue<T> {
    fn new(what: &'static str) -> (Self, mpsc::Receiver<Box<T>>) {
        let (waiting, receive) = mpsc::channel(QUEUE);
        (Self { waiting, lost: AtomicU64::new(0), what }, receive)
    }

    fn push(&self, one: T) {
        if self.waiting.try_send(Box::new(one)).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed);
            if lost.is_multiple_of(LOST_A_LINE) {
                tracing::warn!(lost = lost + 1, "more {} than can be kept: some are lost", self.what);
            }
        }
    }
}

impl Director {
    /// A director, with the tasks that turn observations into facts and pending clients.
    pub(crate) fn start(control: &Arc<Control>) -> Arc<Self> {
        let (events, mut seen) = Queue::<PxeEvent>::new("boot events of hosts");
        let keeper = control.clone();
        control.tasks.spawn(async move {
            while let Some(Some(event)) = keeper.cancel.run_until_cancelled(seen.recv()).await {
                if let Err(error) = keeper.note_event(*event).await {
                    tracing::error!(%error, "an observation of the boot network could not be stored");
                }
            }
        });
        let (unknown, mut strangers) = Queue::<SeenClient>::new("clients that are in no plan");
        let keeper = control.clone();
        control.tasks.spawn(async move {
            while let Some(Some(seen)) = keeper.cancel.run_until_cancelled(strangers.recv()).await {
                keeper.note_unknown(&seen);
            }
        });
        Arc::new(Self {
            control: control.clone(),
            events,
            unknown,
            stored: Limit::new("events of clients that are no hosts, for the store"),
            messages: Limit::new("DHCP messages to and from hosts, for the store"),
            facts: Limit::new("boot events of hosts, for their facts"),
        })
    }

    fn no_longer_pending(&self, mac: MacAddr) {
        let pending = self.control.mirror().pending.contains_key(&mac);
        if pending {
            self.control.mirror_mut().pending.forget(mac);
        }
    }

    /// Whether so much of it has come that memory will do.
    fn is_fleeting(&self, event: &PxeEvent) -> bool {
        let PxeEvent { mac, host, what, .. } = event;
        let (Some(mac), now) = (*mac, Instant::now()) else { return host.is_none() };
        let message = match what {
            What::DhcpIn { kind, .. } | What::DhcpOut { kind, .. } => Some(kind.clone()),
            What::DhcpIgnored { why, .. } => Some(Cow::from(format!("{why:?}"))),
            _ => None,
        };
        match (host, message) {
            // A host in a loop, or somebody in its name.
            (Some(_), Some(message)) => !self.messages.allows((mac, message), true, now),
            (Some(_), None) => false,
            // VMs and strangers come by the thousand: what went well with them is not worth a write each, and of the
            // rest not more than a person reads.
            (None, _) if matches!(what, What::DhcpIn { .. } | What::DhcpOut { .. }) => true,
            (None, _) => !self.stored.allows(mac, false, now),
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
        match &client {
            Client::Unknown if seen.wants_boot => self.unknown.push(seen.clone()),
            // By what else than its MAC, only it can tell.
            Client::Fixed { .. } => self.no_longer_pending(seen.mac),
            _ => {}
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
        if let Some(says) = Says::of(&event)
            && event.mac.is_none_or(|mac| self.facts.allows((mac, says), true, Instant::now()))
        {
            self.events.push(event.clone());
        }
        let fleeting = self.is_fleeting(&event);
        let PxeEvent { mac, host, boot, what, .. } = event;
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

/// What an event says of how far a host's boot is, or that a BMC has its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Says {
    Leased,
    NotLeased,
    Asks,
    LoaderServed,
    ScriptServed,
    FileServed,
    ToldToWait,
}

impl Says {
    fn of(event: &PxeEvent) -> Option<Self> {
        event.host.as_ref()?;
        match &event.what {
            What::DhcpOut { kind, .. } if kind == "ACK" => Some(Self::Leased),
            What::DhcpUnsent { kind, .. } if kind == "ACK" => Some(Self::NotLeased),
            // Of an operating system's client, or of a BMC's, nothing is learned of the boot.
            What::DhcpIn { .. } if event.boot.is_some() && event.what.asks_to_boot() => Some(Self::Asks),
            What::TftpEnd { error: None, .. } => Some(Self::LoaderServed),
            What::Script { .. } => Some(Self::ScriptServed),
            What::HttpFile { path, status: 200..=299, .. }
                if path.ends_with(INITRD) || path.ends_with(LOADER) =>
            {
                Some(Self::FileServed)
            }
            What::HttpFile { path, status: 503, .. } if path.starts_with("/boot/file/") => {
                Some(Self::ToldToWait)
            }
            _ => None,
        }
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
}
