//! How often the same kind of thing is told or stored: what anybody on the network can cause must fill no log and no store.
//!
//! Invariants: within [`WINDOW`], [`EACH`] times for one client and [`ALL`] times for all strangers together; a client of
//! the plan is bounded by the first alone, so that no flood of strangers hides it; memory is bounded by [`ALL`] and the
//! number of clients that the plan has; what was kept back is counted, and said once the next one is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// For one client.
const EACH: u32 = 10;
/// For all clients together that nobody planned.
const ALL: u32 = 200;

/// A limit of one kind of things: so many of one client, so many of all that nobody planned.
#[derive(Debug)]
pub struct Limit<K> {
    what: &'static str,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    since: Option<Instant>,
    each: HashMap<K, u32>,
    strangers: u32,
    kept_back: u64,
}

impl<K: Hash + Eq> Limit<K> {
    /// `what`, in the plural: for the line that says how many were kept back.
    pub fn new(what: &'static str) -> Self {
        let state = State { since: None, each: HashMap::new(), strangers: 0, kept_back: 0 };
        Self { what, state: Mutex::new(state) }
    }

    /// Whether this one may be told.
    pub fn allows(&self, client: K, planned: bool, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            if state.kept_back > 0 {
                tracing::warn!(
                    kept_back = state.kept_back,
                    "too many {} in a minute, so that not all were taken: more than {EACH} of one client, or {ALL} of clients that nobody planned",
                    self.what
                );
            }
            *state = State { since: Some(now), each: HashMap::new(), strangers: 0, kept_back: 0 };
        }
        let full = !planned && state.strangers >= ALL;
        let told =
            if full { EACH } else { *state.each.entry(client).and_modify(|n| *n += 1).or_insert(1) - 1 };
        if told >= EACH {
            state.kept_back += 1;
            return false;
        }
        state.strangers += u32::from(!planned);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_one_client_nor_many_fill_the_log_and_a_planned_one_is_heard_all_the_same() {
        let (limit, start) = (Limit::new("refused requests"), Instant::now());
        let told = |client: u32, planned: bool, at: Duration, times: usize| {
            (0..times).filter(|_| limit.allows(client, planned, start + at)).count()
        };
        let zero = Duration::ZERO;
        assert_eq!(told(1, false, zero, 1000), 10, "one client");
        let flood: usize = (100..100_000).map(|client| told(client, false, zero, 1)).sum();
        assert_eq!(flood, 190, "all strangers together");
        assert_eq!(told(7, true, zero, 1000), 10, "a planned client meanwhile");
        let state = limit.state.lock().unwrap();
        assert!(state.each.len() <= 202, "{} clients in memory", state.each.len());
        assert_eq!(state.kept_back, 990 + 99_710 + 990);
        drop(state);
        assert_eq!(told(1, false, WINDOW, 1000), 10, "a minute later");
    }
}
