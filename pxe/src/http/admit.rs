//! Who may have a large file now: a boot storm is served in waves.
//!
//! Purpose: when every machine of a site powers on, all at once would share one link until each of them times out. A
//! link has places, and a client that gets one keeps it through its kernel, initramfs and chunks; the others are told
//! `503` with `Retry-After`, which iPXE obeys (`http_parse_retry_after` in its `httpcore.c`, since 2015) and our agent
//! too. Invariants: a free place is kept for those who were told to come about now; a place that is not used comes free
//! by itself; memory is bounded, whoever asks. Loaders and scripts need no place: firmware does not know how to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A place that nothing flows on comes free after this: the time between two files of one boot.
const LINGER: Duration = Duration::from_secs(1);
/// A client that did not come back so long after it was told to has given up.
const LATE: Duration = Duration::from_secs(5);
/// How long a client is expected to need its place, before one was seen to.
const FIRST_HOLD: Duration = Duration::from_secs(3);
/// Longest pause that a client is told.
const LONGEST: u64 = 30;
/// Clients that may wait; more are told the longest pause and hold no rank.
const WAITING: usize = 8192;

#[derive(Debug)]
struct Held {
    since: Instant,
    /// Bodies under way.
    flows: usize,
    /// When the last one ended.
    idle: Instant,
    /// It needs no more.
    done: bool,
}

#[derive(Debug)]
struct State {
    held: HashMap<IpAddr, Held>,
    /// When a waiting client was told to come back.
    waiting: HashMap<IpAddr, Instant>,
    /// How long a place is held, smoothed.
    hold: Duration,
}

/// The places of one link.
#[derive(Debug)]
pub(crate) struct Link {
    places: usize,
    state: Mutex<State>,
}

/// A body under way; its client's place is kept while one lives.
#[derive(Debug)]
pub(crate) struct Flow {
    link: Arc<Link>,
    client: IpAddr,
}

impl Link {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let state = State { held: HashMap::new(), waiting: HashMap::new(), hold: FIRST_HOLD };
        Arc::new(Self { places: places.max(1), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a body to this client.
    ///
    /// # Errors
    /// The seconds after which it shall come back.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr, now: Instant) -> Result<Flow, u64> {
        let mut state = self.lock();
        if !state.held.contains_key(&client) {
            state.sweep(now);
            let told = state.waiting.get(&client).copied();
            let mut taken = state.held.len();
            if told.is_none() && taken < self.places {
                // Kept for those who were told to come about now, and are not here yet.
                taken += state.waiting.values().filter(|at| **at <= now + LINGER).count();
            }
            if taken >= self.places {
                return Err(state.postpone(client, self.places, now));
            }
            state.waiting.remove(&client);
            state.held.insert(client, Held { since: now, flows: 0, idle: now, done: false });
        }
        if let Some(held) = state.held.get_mut(&client) {
            held.flows += 1;
            held.idle = now;
            held.done = false;
        }
        drop(state);
        Ok(Flow { link: Arc::clone(self), client })
    }

    /// This client needs no more: its place is free as soon as nothing flows to it.
    pub(crate) fn done(&self, client: IpAddr, now: Instant) {
        let mut state = self.lock();
        if let Some(held) = state.held.get_mut(&client) {
            held.done = true;
        }
        state.sweep(now);
    }
}

impl State {
    /// Takes back places that nothing flows on, forgets those who did not come back.
    fn sweep(&mut self, now: Instant) {
        let hold = &mut self.hold;
        self.held.retain(|_, held| {
            let keep = held.flows > 0 || (!held.done && now.duration_since(held.idle) < LINGER);
            if !keep {
                *hold = (*hold * 7 + now.duration_since(held.since)) / 8;
            }
            keep
        });
        self.waiting.retain(|_, at| now < *at + LATE);
    }

    /// Ranks a client behind those that wait: each wave of `places` takes as long as a place is held.
    fn postpone(&mut self, client: IpAddr, places: usize, now: Instant) -> u64 {
        let (known, others) = (self.waiting.contains_key(&client), self.waiting.len());
        let ahead = if known { 0.0 } else { others as f64 / places as f64 };
        let seconds = (self.hold.as_secs_f64() * (0.5 + ahead)).ceil().clamp(1.0, LONGEST as f64);
        let seconds = seconds as u64;
        if known || others < WAITING {
            self.waiting.insert(client, now + Duration::from_secs(seconds));
            return seconds;
        }
        LONGEST
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        if let Some(held) = state.held.get_mut(&self.client) {
            held.flows = held.flows.saturating_sub(1);
            held.idle = held.idle.max(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, n])
    }

    #[test]
    fn a_place_is_kept_through_a_boot_and_then_given_to_who_was_told_to_come() {
        let link = Link::new(1);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let kernel = link.enter(client(1), at(0)).unwrap();
        let wait = link.enter(client(2), at(10)).unwrap_err();
        assert_eq!(wait, 2, "half of the expected three seconds");
        drop(kernel);
        let initrd = link.enter(client(1), at(500)).expect("the same client goes on");
        assert!(link.enter(client(2), at(600)).is_err(), "early, and still taken");
        drop(initrd);
        link.done(client(1), at(900));
        assert!(link.enter(client(3), at(1700)).is_err(), "kept for the one that is due");
        let second = link.enter(client(2), at(2000)).expect("it was told to come now");
        assert!(link.enter(client(3), at(2100)).is_err());
        drop(second);
        assert!(link.enter(client(3), at(2200)).is_err(), "the second may go on with its next file");
        assert!(link.enter(client(3), at(9000)).is_ok(), "it did not");
    }

    #[test]
    fn who_never_comes_back_blocks_nobody_for_long() {
        let link = Link::new(1);
        let start = Instant::now();
        let held = link.enter(client(1), start).unwrap();
        let seconds = link.enter(client(2), start).unwrap_err();
        drop(held);
        link.done(client(1), start);
        let late = start + Duration::from_secs(seconds) + LATE;
        assert!(link.enter(client(3), late).is_ok());
    }

    #[test]
    fn a_storm_is_told_to_come_in_waves_and_costs_bounded_memory() {
        let link = Link::new(10);
        let now = Instant::now();
        let all: Vec<_> = (0..10_000u32).map(|n| link.enter(IpAddr::from(n.to_be_bytes()), now)).collect();
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 10);
        let told: Vec<u64> = all.iter().filter_map(|one| one.as_ref().err().copied()).collect();
        assert!(
            told.is_sorted() && told[0] <= 2 && told[15] > told[0] && told[9_000] == LONGEST,
            "{:?}",
            &told[..40]
        );
        assert_eq!(link.lock().waiting.len(), WAITING);
    }

    #[test]
    fn several_connections_of_one_client_share_its_place() {
        let link = Link::new(1);
        let now = Instant::now();
        let flows: Vec<_> = (0..4).map(|_| link.enter(client(1), now).unwrap()).collect();
        drop(flows);
        assert_eq!(link.lock().held.len(), 1);
    }
}
