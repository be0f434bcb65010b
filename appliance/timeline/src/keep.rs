//! Rings in memory, batches to the store, and a feed for those who watch.

use crate::capture::{Captures, Kept as Captured};
use dayzero_model::datagram::Datagram;
use dayzero_model::event::{Event, What};
use dayzero_model::ids::{HostName, MacAddr};
use dayzero_model::units::Timestamp;
use dayzero_store::{Ordered, Pair, Store, StoreError, Table};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};

/// Events of a subject, in order of their numbers.
static EVENTS: Table<Pair<String, Ordered>, Event> = Table::new("timeline");

/// Events kept of a host.
const KEEP_HOST: usize = 1000;
/// Events kept of a MAC that belongs to no host.
const KEEP_MAC: usize = 60;
/// Subjects kept; the one that was silent longest goes first.
const SUBJECTS: usize = 4096;
/// Unknown MACs kept: whoever invents MACs drives out only such.
const MACS: usize = 256;
/// Events that wait for the store at most.
const QUEUE: usize = 8192;
/// How long events are collected before they are stored.
const BATCH: Duration = Duration::from_millis(250);
/// Events in one transaction.
const BATCH_SIZE: usize = 256;
/// Events that a slow watcher may lag behind.
const FEED: usize = 1024;

/// Whom an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Host(HostName),
    Mac(MacAddr),
    /// The site as a whole.
    Site,
}

impl Subject {
    /// Host where known, else MAC; events without either are the appliance's own and only fed to watchers.
    fn of(event: &Event) -> Option<Self> {
        match (&event.host, event.mac) {
            (Some(host), _) => Some(Subject::Host(host.clone())),
            (None, Some(mac)) => Some(Subject::Mac(mac)),
            (None, None) if matches!(event.what, What::Person { .. } | What::Rack { .. }) => {
                Some(Subject::Site)
            }
            (None, None) => None,
        }
    }

    fn key(&self) -> String {
        match self {
            Subject::Host(host) => host.to_string(),
            Subject::Mac(mac) => mac.to_string(),
            Subject::Site => SITE.to_owned(),
        }
    }

    fn of_key(key: &str) -> Option<Self> {
        if key == SITE {
            return Some(Subject::Site);
        }
        let mac = || key.parse().map(Subject::Mac).ok();
        key.parse().map(Subject::Host).ok().filter(|_| !key.contains(':')).or_else(mac)
    }

    fn is_mac(&self) -> bool {
        matches!(self, Subject::Mac(_))
    }
}

/// No host's name: it has a dot.
const SITE: &str = "site.";

/// One event of a ring.
struct Kept {
    number: u64,
    event: Event,
    /// The store has it, or will.
    stored: bool,
}

/// A subject's events, in order of their numbers. What is in memory alone fills half of it before it drives out what is
/// stored: a flood of it leaves the rest of the story.
#[derive(Default)]
struct Ring {
    events: VecDeque<Kept>,
    /// Of them, in memory alone.
    fleeting: usize,
}

impl Ring {
    fn push(&mut self, kept: Kept) {
        self.fleeting += usize::from(!kept.stored);
        self.events.push_back(kept);
    }

    /// What goes where more than `keep` are here.
    fn pop(&mut self, keep: usize) -> Option<Kept> {
        if self.events.len() <= keep {
            return None;
        }
        let first = self.events.iter().position(|kept| !kept.stored).filter(|_| self.fleeting > keep / 2);
        let gone = self.events.remove(first.unwrap_or(0))?;
        self.fleeting -= usize::from(!gone.stored);
        Some(gone)
    }
}

/// What waits for the store: hosts' and the site's events, and those of MACs that belong to no host, each in order of their
/// numbers. Where there is no room, one of a MAC goes before any other.
#[derive(Default)]
struct Waiting([VecDeque<(Subject, u64, Event)>; 2]);

impl Waiting {
    fn len(&self) -> usize {
        self.0.iter().map(VecDeque::len).sum()
    }

    /// False: for this one an older one was given up, or itself.
    fn push(&mut self, subject: Subject, number: u64, event: Event) -> bool {
        let is_mac = subject.is_mac();
        let full = self.len() >= QUEUE;
        if full {
            let [others, macs] = &mut self.0;
            match macs.pop_front() {
                Some(_) => {}
                None if is_mac => return false,
                None => drop(others.pop_front()),
            }
        }
        self.0[usize::from(is_mac)].push_back((subject, number, event));
        !full
    }

    fn oldest(&self) -> Option<u64> {
        self.0.iter().filter_map(|queue| queue.front()).map(|(_, number, _)| *number).min()
    }

    fn pop(&mut self) -> Option<(Subject, u64, Event)> {
        let oldest = self.oldest()?;
        let is = |queue: &&mut VecDeque<(Subject, u64, Event)>| {
            queue.front().is_some_and(|(_, number, _)| *number == oldest)
        };
        self.0.iter_mut().find(is)?.pop_front()
    }
}

#[derive(Default)]
struct Rings {
    subjects: HashMap<Subject, Ring>,
    /// Subjects by the number of their newest event, MACs apart from the others.
    order: [BTreeSet<(u64, Subject)>; 2],
    next: u64,
    waiting: Waiting,
    dropped: u64,
    /// Numbers to delete from the store.
    gone: VecDeque<(Subject, u64)>,
}

struct Inner {
    store: Store,
    rings: Mutex<Rings>,
    captures: Mutex<Captures>,
    feed: broadcast::Sender<Event>,
    work: Notify,
}

/// The timeline. Cheap to clone.
#[derive(Clone)]
pub struct Timeline {
    inner: Arc<Inner>,
}

impl Timeline {
    /// Reads what the store has. Blocks for the scan.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let mut rings = Rings::default();
        for entry in store.scan(&EVENTS, "")? {
            let (Pair(subject, Ordered(number)), event) = (entry.key, entry.value);
            rings.next = rings.next.max(number + 1);
            if let Some(subject) = Subject::of_key(&subject) {
                rings.push(subject, Kept { number, event, stored: true });
            }
        }
        let (feed, _) = broadcast::channel(FEED);
        Ok(Self {
            inner: Arc::new(Inner {
                store: store.clone(),
                rings: Mutex::new(rings),
                captures: Mutex::default(),
                feed,
                work: Notify::new(),
            }),
        })
    }

    /// Records an event: at once in memory, soon in the store.
    pub fn record(&self, event: Event) {
        self.keep(event, true);
    }

    /// Records an event in memory alone: of what comes by the thousand, and matters while it is new.
    pub fn observe(&self, event: Event) {
        self.keep(event, false);
    }

    fn keep(&self, event: Event, stored: bool) {
        tracing::debug!(event = %crate::text::line(&event), "timeline");
        let Some(subject) = Subject::of(&event) else { return };
        let told = (self.inner.feed.receiver_count() > 0).then(|| event.clone());
        {
            let mut rings = self.rings();
            let number = rings.next;
            rings.next += 1;
            if stored {
                let all = rings.waiting.push(subject.clone(), number, event.clone());
                rings.dropped += u64::from(!all);
            }
            rings.push(subject, Kept { number, event, stored });
        }
        if let Some(event) = told {
            // A receiver that has gone meanwhile is no error.
            let _ = self.inner.feed.send(event);
        }
        if stored {
            self.inner.work.notify_one();
        }
    }

    /// Events of a host since a moment, oldest first.
    pub fn of_host(&self, host: &HostName, since: Timestamp) -> Vec<Event> {
        self.query(&Subject::Host(host.clone()), since)
    }

    /// Events of a MAC that belongs to no host, since a moment, oldest first.
    pub fn of_mac(&self, mac: MacAddr, since: Timestamp) -> Vec<Event> {
        self.query(&Subject::Mac(mac), since)
    }

    fn query(&self, subject: &Subject, since: Timestamp) -> Vec<Event> {
        let rings = self.rings();
        let events = rings.subjects.get(subject).into_iter().flat_map(|ring| &ring.events);
        events.map(|kept| &kept.event).filter(|event| event.at >= since).cloned().collect()
    }

    /// Keeps a datagram in memory; cheap, and never waits for anything but its own copy.
    pub fn capture(&self, datagram: &Datagram<'_>) {
        self.captures().keep(datagram);
    }

    /// What memory holds of these MACs and the store does not.
    pub(crate) fn datagrams(&self, macs: &[MacAddr]) -> Vec<Captured> {
        self.captures().of(macs)
    }

    /// The store has the oldest `count` of them.
    pub(crate) fn datagrams_stored(&self, mac: MacAddr, count: usize) {
        self.captures().stored(mac, count);
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    fn captures(&self) -> MutexGuard<'_, Captures> {
        self.inner.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.inner.feed.subscribe()
    }

    /// Stores what is recorded, until `stop` resolves; then stores the rest.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        loop {
            let ended = tokio::select! {
                () = &mut stop => true,
                () = self.inner.work.notified() => false,
            };
            if !ended {
                tokio::time::sleep(BATCH).await;
            }
            self.flush().await;
            if ended {
                return;
            }
        }
    }

    /// Stores all that waits.
    pub async fn flush(&self) {
        while let Ok(true) = self.batch().await {}
    }

    /// Stores the oldest of what waits; false: nothing did.
    async fn batch(&self) -> Result<bool, StoreError> {
        let (batch, gone, dropped) = {
            let mut rings = self.rings();
            let batch: Vec<_> = std::iter::from_fn(|| rings.waiting.pop()).take(BATCH_SIZE).collect();
            // What still waits to be written must not be deleted before: numbers grow, and so only older ones go.
            let waits = rings.waiting.oldest();
            let older = |(_, number): &&(Subject, u64)| waits.is_none_or(|waits| *number < waits);
            let count = rings.gone.iter().take(BATCH_SIZE).take_while(older).count();
            let gone: Vec<_> = rings.gone.drain(..count).collect();
            (batch, gone, std::mem::take(&mut rings.dropped))
        };
        if dropped > 0 {
            tracing::warn!(dropped, "more events than the store takes: they are in memory only");
        }
        if batch.is_empty() && gone.is_empty() {
            return Ok(false);
        }
        let written = self.write(&batch, &gone).await.inspect_err(|error| {
            tracing::error!(%error, events = batch.len(), "events could not be stored: they are in memory only");
        });
        written.map(|()| true)
    }

    async fn write(
        &self,
        batch: &[(Subject, u64, Event)],
        gone: &[(Subject, u64)],
    ) -> Result<(), StoreError> {
        let mut tx = self.inner.store.tx();
        for (subject, number, event) in batch {
            tx.put(&EVENTS, &Pair(subject.key(), Ordered(*number)), event)?;
        }
        for (subject, number) in gone {
            tx.delete(&EVENTS, &Pair(subject.key(), Ordered(*number)))?;
        }
        tx.commit().await.map(|_| ())
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.inner.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rings {
    fn push(&mut self, subject: Subject, kept: Kept) {
        let is_mac = subject.is_mac();
        let (newest, keep) = (kept.number, if is_mac { KEEP_MAC } else { KEEP_HOST });
        let known = self.subjects.contains_key(&subject);
        let spare = if known { Ring::default() } else { self.make_room(is_mac) };
        let ring = self.subjects.entry(subject.clone()).or_insert(spare);
        let order = &mut self.order[usize::from(is_mac)];
        if let Some(before) = ring.events.back() {
            order.remove(&(before.number, subject.clone()));
        }
        order.insert((newest, subject.clone()));
        ring.push(kept);
        let gone = std::iter::from_fn(|| ring.pop(keep)).filter(|old| old.stored);
        self.gone.extend(gone.map(|old| (subject.clone(), old.number)));
    }

    /// An empty ring. Where there are too many, the subject that was silent longest goes, of those of its kind: it is that
    /// one's.
    fn make_room(&mut self, for_mac: bool) -> Ring {
        let order = &mut self.order[usize::from(for_mac)];
        if order.len() < if for_mac { MACS } else { SUBJECTS - MACS } {
            return Ring::default();
        }
        let Some((_, subject)) = order.pop_first() else { return Ring::default() };
        let mut ring = self.subjects.remove(&subject).unwrap_or_default();
        let stored = ring.events.drain(..).filter(|kept| kept.stored);
        self.gone.extend(stored.map(|kept| (subject.clone(), kept.number)));
        ring.fleeting = 0;
        ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, host: Option<&str>, mac: Option<[u8; 6]>) -> Event {
        let host = host.map(|host| host.parse().unwrap());
        let what = What::Agent { message: format!("event {at}") };
        Event { at: Timestamp(at), host, mac: mac.map(MacAddr), boot: None, what }
    }

    #[tokio::test]
    async fn events_survive_a_restart_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        let host = "host1".parse().unwrap();
        for at in 0..(KEEP_HOST as u64 + 10) {
            timeline.record(event(at, Some("host1"), None));
        }
        timeline.flush().await;
        let again = Timeline::open(&store).unwrap();
        for timeline in [&timeline, &again] {
            let events = timeline.of_host(&host, Timestamp(0));
            assert_eq!((events.len(), events[0].at), (KEEP_HOST, Timestamp(10)));
            assert_eq!(timeline.of_host(&host, Timestamp(1000)).len(), 10);
        }
        again.record(event(5000, Some("host1"), None));
        again.flush().await;
        assert_eq!(Timeline::open(&store).unwrap().of_host(&host, Timestamp(2000)).len(), 1);
    }

    #[tokio::test]
    async fn a_flood_in_memory_drives_out_no_more_than_half_of_the_story() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        let (host, half) = ("host1".parse().unwrap(), KEEP_HOST as u64 / 2);
        let count = |timeline: &Timeline, since| timeline.of_host(&host, Timestamp(since)).len() as u64;
        (0..half + 10).for_each(|at| timeline.record(event(at, Some("host1"), None)));
        (0..10 * half).for_each(|_| timeline.observe(event(5000, Some("host1"), None)));
        assert_eq!((count(&timeline, 0), count(&timeline, 5000)), (2 * half, half));
        assert_eq!(timeline.of_host(&host, Timestamp(0))[0].at, Timestamp(10), "the oldest go first");
        timeline.record(event(6000, Some("host1"), None));
        assert_eq!((count(&timeline, 0), count(&timeline, 5000)), (2 * half, half + 1));
        timeline.flush().await;
        assert_eq!(count(&Timeline::open(&store).unwrap(), 0), half);
    }

    #[tokio::test]
    async fn invented_macs_drive_out_only_macs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        timeline.record(event(1, Some("host1"), None));
        for i in 0..1000_u64 {
            let [.., a, b] = i.to_be_bytes();
            timeline.record(event(i, None, Some([2, 0, 0, 0, a, b])));
        }
        assert_eq!(timeline.of_host(&"host1".parse().unwrap(), Timestamp(0)).len(), 1);
        assert!(timeline.of_mac(MacAddr([2, 0, 0, 0, 0, 0]), Timestamp(0)).is_empty(), "the oldest is gone");
        assert_eq!(timeline.of_mac(MacAddr([2, 0, 0, 0, 3, 0xe7]), Timestamp(0)).len(), 1);
        assert!(timeline.rings().subjects.len() <= MACS + 1);
        timeline.flush().await;
        assert!(store.count(&EVENTS, "").unwrap() <= MACS + 1);
        assert!(timeline.rings().gone.is_empty());
    }

    #[tokio::test]
    async fn what_is_only_observed_is_in_memory_and_never_in_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        for i in 0..20_000_u64 {
            let [.., a, b] = i.to_be_bytes();
            timeline.observe(event(i, None, Some([2, 0, 0, 0, a, b])));
        }
        assert_eq!(timeline.of_mac(MacAddr([2, 0, 0, 0, 0x4e, 0x1f]), Timestamp(0)).len(), 1);
        assert!(timeline.rings().gone.is_empty() && timeline.rings().waiting.len() == 0);
        timeline.flush().await;
        assert_eq!(store.count(&EVENTS, "").unwrap(), 0);
    }

    /// A store that stands still while strangers flood the network: what is of hosts is stored all the same, and in order.
    #[tokio::test]
    async fn strangers_events_are_given_up_before_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        let (host, person) = ("host1".parse().unwrap(), What::Person { who: "root".into(), did: "x".into() });
        timeline.record(Event { what: person, ..event(0, None, None) });
        for i in 1..=3 * QUEUE as u64 {
            let [.., a, b] = i.to_be_bytes();
            timeline.record(event(i, None, Some([2, 0, 0, 0, a, b])));
            if i.is_multiple_of(100) {
                timeline.record(event(i, Some("host1"), None));
            }
        }
        let hosts = 3 * QUEUE as u64 / 100;
        assert_eq!(timeline.rings().waiting.len(), QUEUE);
        assert_eq!(timeline.rings().dropped, 2 * QUEUE as u64 + hosts + 1);
        timeline.flush().await;
        let again = Timeline::open(&store).unwrap();
        let kept: Vec<u64> = again.of_host(&host, Timestamp(0)).iter().map(|event| event.at.0).collect();
        assert_eq!(kept, (1..=hosts).map(|n| n * 100).collect::<Vec<_>>());
        assert_eq!(again.query(&Subject::Site, Timestamp(0)).len(), 1);

        // Hosts alone: the oldest goes, and a stranger drives out nothing.
        for i in 0..=QUEUE as u64 {
            timeline.record(event(100_000 + i, Some("host2"), None));
        }
        timeline.record(event(1, None, Some([2; 6])));
        let oldest = timeline.rings().waiting.0.each_ref().map(|queue| queue.front().map(|one| one.2.at));
        assert_eq!(oldest, [Some(Timestamp(100_001)), None]);
    }

    /// A store that events outrun must not keep the deletions waiting: they would be without bound.
    #[tokio::test]
    async fn deletions_go_while_events_still_wait() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        let storm = |from: u64, count: u64| {
            for i in from..from + count {
                let [.., a, b] = i.to_be_bytes();
                timeline.record(event(i, None, Some([2, 0, 0, 0, a, b])));
            }
        };
        storm(0, 1000);
        timeline.flush().await;
        // Each new MAC drives out a stored one, and a whole queue waits behind.
        storm(1000, 600);
        let (before, waiting) = {
            let rings = timeline.rings();
            (rings.gone.len(), rings.waiting.len())
        };
        assert!(before > 0 && waiting > BATCH_SIZE, "{before} {waiting}");
        timeline.batch().await.unwrap();
        let rings = timeline.rings();
        assert!(rings.waiting.len() > 0 && rings.gone.len() < before, "{} of {before}", rings.gone.len());
    }

    /// Deletions come in batches too: a storm's would not fit into one transaction.
    #[tokio::test]
    async fn a_storm_of_recorded_macs_leaves_the_store_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        for round in 0..4_u64 {
            for i in 0..6_000_u64 {
                let [.., a, b] = (round * 6_000 + i).to_be_bytes();
                timeline.record(event(i, None, Some([2, 0, 0, 0, a, b])));
            }
            timeline.flush().await;
        }
        assert!(store.count(&EVENTS, "").unwrap() <= MACS);
        assert_eq!(Timeline::open(&store).unwrap().rings().subjects.len(), MACS);
    }
}
