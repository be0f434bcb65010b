//! Login attempts, slowed down by user and address, in a bounded table in memory.

use std::collections::HashMap;

use dayzero_model::{Millis, Timestamp};

const MAX_ENTRIES: usize = 4096;
/// Failures of one user from one address before the first pause.
const FREE: u32 = 5;
/// Failures from one address, over all users, before the first pause.
const FREE_ADDRESS: u32 = 30;
const FIRST_PAUSE: u64 = 2_000;
const LONGEST_PAUSE: u64 = 15 * 60_000;
/// After so long without a failure an entry is forgotten.
const FORGET: u64 = 60 * 60_000;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Timestamp,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    entries: HashMap<(String, String), Failures>,
}

fn keys(user: &str, address: &str) -> [((String, String), u32); 2] {
    let short = |text: &str| text.chars().take(64).collect::<String>();
    [((short(user), short(address)), FREE), ((String::new(), short(address)), FREE_ADDRESS)]
}

impl Throttle {
    /// How long this user from this address must wait; zero if it may try.
    pub(crate) fn pause(&self, user: &str, address: &str, now: Timestamp) -> Millis {
        let wait = |(key, free): ((String, String), u32)| {
            let Some(failures) = self.entries.get(&key) else { return 0 };
            let Some(over) = failures.count.checked_sub(free) else { return 0 };
            let pause = FIRST_PAUSE.saturating_mul(1 << over.min(20)).min(LONGEST_PAUSE);
            pause.saturating_sub(now.since(failures.last).0)
        };
        Millis(keys(user, address).map(wait).into_iter().max().unwrap_or(0))
    }

    pub(crate) fn failed(&mut self, user: &str, address: &str, now: Timestamp) {
        for (key, _) in keys(user, address) {
            if !self.entries.contains_key(&key) && self.entries.len() >= MAX_ENTRIES {
                self.make_room(now);
            }
            let entry = self.entries.entry(key).or_insert(Failures { count: 0, last: now });
            entry.count = if now.since(entry.last).0 > FORGET { 1 } else { entry.count.saturating_add(1) };
            entry.last = now;
        }
    }

    pub(crate) fn succeeded(&mut self, user: &str, address: &str) {
        let [(key, _), _] = keys(user, address);
        self.entries.remove(&key);
    }

    /// Forgets what is old; if nothing is, the least suspicious.
    fn make_room(&mut self, now: Timestamp) {
        self.entries.retain(|_, failures| now.since(failures.last).0 <= FORGET);
        if self.entries.len() >= MAX_ENTRIES {
            let least =
                self.entries.iter().min_by_key(|(_, f)| (f.count, f.last)).map(|(key, _)| key.clone());
            if let Some(key) = least {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_capped_and_are_per_user_and_address() {
        let mut throttle = Throttle::default();
        let mut pauses = Vec::new();
        let mut now = Timestamp(0);
        for _ in 0..16 {
            pauses.push(throttle.pause("admin", "10.0.0.9", now).0);
            now = now.plus(throttle.pause("admin", "10.0.0.9", now));
            throttle.failed("admin", "10.0.0.9", now);
        }
        assert_eq!(
            pauses,
            [
                0, 0, 0, 0, 0, 2000, 4000, 8000, 16000, 32000, 64000, 128_000, 256_000, 512_000, 900_000,
                900_000
            ]
        );
        assert_eq!(throttle.pause("admin", "10.0.0.1", now), Millis(0), "another address is not locked out");
        throttle.succeeded("admin", "10.0.0.9");
        assert_eq!(throttle.pause("admin", "10.0.0.9", now), Millis(0));
    }

    #[test]
    fn trying_many_users_from_one_address_pauses_too_and_the_table_is_bounded() {
        let mut throttle = Throttle::default();
        for i in 0..u64::from(FREE_ADDRESS) {
            throttle.failed(&format!("user{i}"), "10.0.0.9", Timestamp(i));
        }
        assert!(throttle.pause("fresh", "10.0.0.9", Timestamp(40)).0 > 0);
        for i in 0..3 * MAX_ENTRIES as u64 {
            throttle.failed("admin", &format!("address{i}"), Timestamp(100 + i));
        }
        assert!(throttle.entries.len() <= MAX_ENTRIES);
        assert!(throttle.pause("fresh", "10.0.0.9", Timestamp(40)).0 > 0, "the worst stays");
    }
}
