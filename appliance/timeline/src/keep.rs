//! Rings in memory, batches to the store, and a feed for those who watch.

use dayzero_model::event::{Event, What};
use dayzero_model::ids::{HostName, MacAddr};
use dayzero_model::units::Timestamp;
use dayzero_store::{Ordered, Pair, Store, StoreError, Table};
use std::collections::{HashMap, VecDeque};
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

struct Ring {
    events: VecDeque<(u64, Event)>,
    is_mac: bool,
}

#[derive(Default)]
struct Rings {
    subjects: HashMap<String, Ring>,
    next: u64,
    waiting: VecDeque<(String, u64, Event)>,
    dropped: u64,
    /// Numbers to delete from the store.
    gone: Vec<(String, u64)>,
}

struct Inner {
    store: Store,
    rings: Mutex<Rings>,
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
            rings.push(subject, number, event);
        }
        let (feed, _) = broadcast::channel(FEED);
        Ok(Self {
            inner: Arc::new(Inner {
                store: store.clone(),
                rings: Mutex::new(rings),
                feed,
                work: Notify::new(),
            }),
        })
    }

    /// Records an event: at once in memory, soon in the store.
    pub fn record(&self, event: Event) {
        tracing::debug!(event = %crate::text::line(&event), "timeline");
        let Some(subject) = subject(&event) else { return };
        {
            let mut rings = self.rings();
            let number = rings.next;
            rings.next += 1;
            rings.push(subject.clone(), number, event.clone());
            if rings.waiting.len() >= QUEUE {
                rings.waiting.pop_front();
                rings.dropped += 1;
            }
            rings.waiting.push_back((subject, number, event.clone()));
        }
        // No receiver is no error.
        let _ = self.inner.feed.send(event);
        self.inner.work.notify_one();
    }

    /// Events of a host since a moment, oldest first.
    pub fn of_host(&self, host: &HostName, since: Timestamp) -> Vec<Event> {
        self.query(host.as_str(), since)
    }

    /// Events of a MAC that belongs to no host, since a moment, oldest first.
    pub fn of_mac(&self, mac: MacAddr, since: Timestamp) -> Vec<Event> {
        self.query(&mac.to_string(), since)
    }

    fn query(&self, subject: &str, since: Timestamp) -> Vec<Event> {
        let rings = self.rings();
        let ring = rings.subjects.get(subject);
        let events = ring.into_iter().flat_map(|ring| &ring.events);
        events.map(|(_, event)| event).filter(|event| event.at >= since).cloned().collect()
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
        loop {
            let (batch, gone, dropped) = {
                let mut rings = self.rings();
                let count = rings.waiting.len().min(BATCH_SIZE);
                let batch: Vec<_> = rings.waiting.drain(..count).collect();
                // What is deleted may still wait to be written: deletions go with the last batch.
                let gone =
                    if rings.waiting.is_empty() { std::mem::take(&mut rings.gone) } else { Vec::new() };
                (batch, gone, std::mem::take(&mut rings.dropped))
            };
            if dropped > 0 {
                tracing::warn!(dropped, "more events than the store takes: they are in memory only");
            }
            if batch.is_empty() && gone.is_empty() {
                return;
            }
            if let Err(error) = self.store(&batch, &gone).await {
                tracing::error!(%error, events = batch.len(), "events could not be stored: they are in memory only");
                return;
            }
        }
    }

    async fn store(&self, batch: &[(String, u64, Event)], gone: &[(String, u64)]) -> Result<(), StoreError> {
        let mut tx = self.inner.store.tx();
        for (subject, number, event) in batch {
            tx.put(&EVENTS, &Pair(subject.clone(), Ordered(*number)), event)?;
        }
        for (subject, number) in gone {
            tx.delete(&EVENTS, &Pair(subject.clone(), Ordered(*number)))?;
        }
        tx.commit().await.map(|_| ())
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.inner.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Host where known, else MAC; events without either are the appliance's own and only fed to watchers.
fn subject(event: &Event) -> Option<String> {
    match (&event.host, event.mac) {
        (Some(host), _) => Some(host.to_string()),
        (None, Some(mac)) => Some(mac.to_string()),
        (None, None) if matches!(event.what, What::Person { .. } | What::Rack { .. }) => {
            Some("site.".to_owned())
        }
        (None, None) => None,
    }
}

impl Rings {
    fn push(&mut self, subject: String, number: u64, event: Event) {
        if !self.subjects.contains_key(&subject) {
            self.make_room(subject.contains(':'));
        }
        let is_mac = subject.contains(':');
        let ring =
            self.subjects.entry(subject.clone()).or_insert_with(|| Ring { events: VecDeque::new(), is_mac });
        ring.events.push_back((number, event));
        let keep = if ring.is_mac { KEEP_MAC } else { KEEP_HOST };
        while ring.events.len() > keep {
            if let Some((number, _)) = ring.events.pop_front() {
                self.gone.push((subject.clone(), number));
            }
        }
    }

    fn make_room(&mut self, for_mac: bool) {
        let macs = self.subjects.values().filter(|ring| ring.is_mac).count();
        let full = if for_mac { macs >= MACS } else { self.subjects.len() >= SUBJECTS };
        if !full {
            return;
        }
        let last = |ring: &Ring| ring.events.back().map_or(0, |(number, _)| *number);
        let silent = self.subjects.iter().filter(|(_, ring)| ring.is_mac == for_mac);
        let Some(name) = silent.min_by_key(|(_, ring)| last(ring)).map(|(name, _)| name.clone()) else {
            return;
        };
        if let Some(ring) = self.subjects.remove(&name) {
            self.gone.extend(ring.events.into_iter().map(|(number, _)| (name.clone(), number)));
        }
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
    }
}
