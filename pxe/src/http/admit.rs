//! Who may have a large file now: a boot storm is served in waves.
//!
//! Purpose: when every machine of a site powers on, all at once would share one link until each of them times out. A
//! link has places, and a client that gets one keeps it through its kernel, initramfs and chunks; the others are told
//! `503` with `Retry-After`, which iPXE obeys for every file that it fetches (`http_parse_retry_after` in its
//! `httpcore.c`, since 2015; shown by the lab with Debian 13's) and our agent too. Who cannot wait (firmware, GRUB, TFTP)
//! is served, and counted; see below. Invariants:
//! - hosts whose boot window is open go before other planned hosts, those before everybody else, and within each by who
//!   asked first; a free place is kept for those before who were told to come about now;
//! - who is no planned host never has more than half of the places, whether it can wait or not;
//! - a place that is not used comes free by itself; one whose client takes next to nothing, or that is held for long
//!   while others of its rank or a better one wait, no longer counts, so that slow clients, be they many, stop nobody;
//!   their bodies go on, and for the next one they queue as others do;
//! - who waits is told at most [`LONGEST`] seconds, and memory is bounded, whoever asks.
//!
//! Firmware needs no waves. A full link times out whom it cannot serve once within its patience, and both protocols have
//! one window of each client under way: of TFTP, four blocks of 1,468 bytes as OVMF asks, within its 4 s; at 1 Gbit/s that
//! is room for 80,000 clients. What a thousand share takes long and breaks off for none (`cargo xtask bench pxe`, row
//! `tftp.clients1000`); its window's deadline knows that (`SIGNED` in the lifecycle). To hold back TFTP's first answer,
//! which a client asks for again every few seconds and five or six times in all, would make no wave: it gains a moment of
//! minutes, and costs each boot that moment and tries that its client may need.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::session::Known;

/// A place that nothing flows on comes free after this: the time between two files of one boot.
const LINGER: Duration = Duration::from_secs(1);
/// A client that did not come back so long after it was told to has given up.
const LATE: Duration = Duration::from_secs(5);
/// How long a client is expected to need its place, before one was seen to.
const FIRST_HOLD: Duration = Duration::from_secs(3);
/// Longest pause that a client is told: well below the half minute after which the recorder misses a host's next step.
const LONGEST: u64 = 20;
/// Clients that may wait; more are told the longest pause and hold no rank.
const WAITING: usize = 8192;
/// A client that takes fewer bytes a second than this, a fiftieth of its share of the link, is a slow one,
const FLOOR: u64 = 256 * 1024;
/// over as long as this.
const LOOK: Duration = Duration::from_secs(5);
/// So is one that holds its place for longer than this while others wait that do not come after it.
const LONGEST_HOLD: Duration = Duration::from_secs(120);

/// Who goes before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// A planned host with an open boot window.
    Boot,
    /// Another planned host.
    Host,
    /// Anybody else.
    Other,
}

impl Rank {
    /// Of whom our DHCP knows so much.
    pub(crate) fn of(known: &Known) -> Self {
        match (known.boot, &known.host) {
            (Some(_), _) => Self::Boot,
            (None, Some(_)) => Self::Host,
            (None, None) => Self::Other,
        }
    }
}

/// Whether it is known how far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meter {
    /// By [`Flow::moved`].
    Bytes,
    /// No: only the time counts.
    Unknown,
}

/// Place in the queue: rank, then who asked first.
type Turn = (Rank, u64);

#[derive(Debug)]
struct Held {
    /// As it was known when it last began a body.
    rank: Rank,
    since: Instant,
    /// Bodies under way.
    flows: usize,
    /// When the last one ended.
    idle: Instant,
    /// It needs no more.
    done: bool,
    meter: Meter,
    /// Bytes that its client took.
    moved: Arc<AtomicU64>,
    /// When that was looked at, and what it was.
    looked: (Instant, u64),
    /// It no longer counts.
    slow: bool,
}

#[derive(Debug)]
struct Waits {
    turn: Turn,
    /// When it was told to come back.
    at: Instant,
}

#[derive(Debug)]
struct State {
    held: HashMap<IpAddr, Held>,
    waiting: HashMap<IpAddr, Waits>,
    /// The next one to ask.
    ticket: u64,
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
    moved: Arc<AtomicU64>,
}

impl Link {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let state = State { held: HashMap::new(), waiting: HashMap::new(), ticket: 0, hold: FIRST_HOLD };
        Arc::new(Self { places: places.max(1), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that strangers may have together.
    fn strangers(&self) -> usize {
        self.places.div_ceil(2)
    }

    /// A place for a body to this client.
    ///
    /// # Errors
    /// The seconds after which it shall come back.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr, rank: Rank, now: Instant) -> Result<Flow, u64> {
        let mut state = self.lock();
        if state.held.get(&client).is_none_or(|held| held.slow) {
            state.sweep(now);
            let turn = state.turn(client, rank);
            let before = || state.waiting.values().filter(|one| one.turn < turn);
            let due = || before().filter(|one| one.at <= now + LINGER);
            let full = state.counted(self.strangers()) + due().count() >= self.places;
            let others = || state.held_by_others() + due().filter(|one| one.turn.0 == Rank::Other).count();
            if full || (rank == Rank::Other && others() >= self.strangers()) {
                let ahead = before().count();
                return Err(state.postpone(client, turn, ahead, self.places, now));
            }
        }
        Ok(self.begin(&mut state, client, rank, Meter::Bytes, now))
    }

    /// A body to a client that cannot wait: it takes a place, even if there is none; strangers together take their half.
    pub(crate) fn count(self: &Arc<Self>, client: IpAddr, rank: Rank, meter: Meter, now: Instant) -> Flow {
        let mut state = self.lock();
        state.sweep(now);
        self.begin(&mut state, client, rank, meter, now)
    }

    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        client: IpAddr,
        rank: Rank,
        meter: Meter,
        now: Instant,
    ) -> Flow {
        state.waiting.remove(&client);
        let held = state.held.entry(client).or_insert_with(|| Held {
            rank,
            since: now,
            flows: 0,
            idle: now,
            done: false,
            meter,
            moved: Arc::default(),
            looked: (now, 0),
            slow: false,
        });
        if held.flows == 0 || held.slow {
            (held.meter, held.looked) = (meter, (now, held.moved.load(Ordering::Relaxed)));
        }
        if std::mem::take(&mut held.slow) {
            held.since = now;
        }
        held.flows += 1;
        (held.rank, held.idle, held.done) = (rank, now, false);
        Flow { link: Arc::clone(self), client, moved: Arc::clone(&held.moved) }
    }

    /// This client needs no more: its place is free as soon as nothing flows to it.
    pub(crate) fn done(&self, client: IpAddr, now: Instant) {
        let mut state = self.lock();
        if let Some(held) = state.held.get_mut(&client) {
            held.done = true;
        }
        state.sweep(now);
    }

    fn ended(&self, client: IpAddr, now: Instant) {
        if let Some(held) = self.lock().held.get_mut(&client) {
            held.flows = held.flows.saturating_sub(1);
            held.idle = held.idle.max(now);
        }
    }
}

impl State {
    /// Places that are taken: who is slow takes none, and strangers no more than `strangers`.
    fn counted(&self, strangers: usize) -> usize {
        let all = self.held.values().filter(|held| !held.slow).count();
        let others = self.held_by_others();
        all - others + others.min(strangers)
    }

    /// Bodies' clients that are no planned hosts, without slow ones.
    fn held_by_others(&self) -> usize {
        self.held.values().filter(|held| !held.slow && held.rank == Rank::Other).count()
    }

    /// Takes back places that nothing flows on, looks for slow ones, forgets those who did not come back.
    fn sweep(&mut self, now: Instant) {
        self.waiting.retain(|_, one| now < one.at + LATE);
        let first = self.waiting.values().map(|one| one.turn.0).min();
        let hold = &mut self.hold;
        self.held.retain(|client, held| {
            held.look(*client, first, now);
            let keep = held.flows > 0 || (!held.done && now.duration_since(held.idle) < LINGER);
            if !keep && !held.slow {
                *hold = (*hold * 7 + now.duration_since(held.since)) / 8;
            }
            keep
        });
    }

    /// The turn that a client has, or gets.
    fn turn(&mut self, client: IpAddr, rank: Rank) -> Turn {
        if let Some(one) = self.waiting.get(&client) {
            return (rank, one.turn.1);
        }
        self.ticket += 1;
        (rank, self.ticket)
    }

    /// Tells a client when to come back: of `places`, one comes free in each such part of the time that one is held. Who is
    /// told too late leaves places empty, who is told too early asks again.
    fn postpone(&mut self, client: IpAddr, turn: Turn, ahead: usize, places: usize, now: Instant) -> u64 {
        let waves = (ahead as f64 + 0.5) / places as f64;
        let seconds = (self.hold.as_secs_f64() * waves).ceil().clamp(1.0, LONGEST as f64) as u64;
        if self.waiting.len() >= WAITING && !self.waiting.contains_key(&client) {
            let last = self.waiting.iter().max_by_key(|(_, one)| one.turn);
            let Some(last) = last.filter(|(_, one)| one.turn.0 > turn.0).map(|(last, _)| *last) else {
                return LONGEST;
            };
            self.waiting.remove(&last);
        }
        self.waiting.insert(client, Waits { turn, at: now + Duration::from_secs(seconds) });
        seconds
    }
}

impl Held {
    /// Whether it is a slow one; once it is, it stays one until it has gone, or begins anew. `first`: the best rank of those
    /// who wait.
    fn look(&mut self, client: IpAddr, first: Option<Rank>, now: Instant) {
        if self.slow || self.flows == 0 {
            return;
        }
        let (at, before) = self.looked;
        let time = now.duration_since(at);
        if time >= LOOK && self.meter == Meter::Bytes {
            let moved = self.moved.load(Ordering::Relaxed);
            self.slow = ((moved - before) as f64) < FLOOR as f64 * time.as_secs_f64();
            self.looked = (now, moved);
        }
        let awaited = first.is_some_and(|first| first <= self.rank);
        self.slow |= awaited && now.duration_since(self.since) >= LONGEST_HOLD;
        if self.slow {
            tracing::info!(%client, "boot files: slow, or long at it; others need not wait for it");
        }
    }
}

impl Flow {
    /// To be added to as bytes go.
    pub(crate) fn moved(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moved)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.link.ended(self.client, Instant::now());
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
