//! The learned addresses of a switch: per VLAN, where a MAC was last seen.
//!
//! Invariants: bounded (8192 entries; more are flooded, not learned); an entry ends after 300 s of silence.

use super::core::{LagId, PortId};
use super::frame::Vlan;
use dayzero_model::MacAddr;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const CAPACITY: usize = 8192;
const AGEING: Duration = Duration::from_secs(300);

/// A way out of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// One port.
    Port(PortId),
    /// Whichever leg of a LAG is up.
    Lag(LagId),
}

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    entries: HashMap<(Vlan, MacAddr), (Via, Instant)>,
}

impl Table {
    /// Notes where an address was seen.
    pub fn learn(&mut self, vlan: Vlan, mac: MacAddr, via: Via, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&(vlan, mac)) {
            *entry = (via, now);
        } else if self.entries.len() < CAPACITY {
            self.entries.insert((vlan, mac), (via, now));
        }
    }

    /// Where an address is.
    pub fn look_up(&self, vlan: Vlan, mac: MacAddr, now: Instant) -> Option<Via> {
        let (via, seen) = self.entries.get(&(vlan, mac))?;
        (now.saturating_duration_since(*seen) < AGEING).then_some(*via)
    }

    /// Forgets all addresses behind one way.
    pub fn flush(&mut self, via: Via) {
        self.entries.retain(|_, (entry, _)| *entry != via);
    }

    /// Drops what is too old.
    pub fn age(&mut self, now: Instant) {
        self.entries.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < AGEING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_is_bounded_and_ages() {
        let (mut table, now) = (Table::default(), Instant::now());
        for i in 0..2 * CAPACITY as u32 {
            let [a, b, c, d] = i.to_be_bytes();
            table.learn(1, MacAddr([2, 0, a, b, c, d]), Via::Port(PortId(1)), now);
        }
        assert_eq!(table.entries.len(), CAPACITY);
        let first = MacAddr([2, 0, 0, 0, 0, 0]);
        assert_eq!(table.look_up(1, first, now), Some(Via::Port(PortId(1))));
        assert_eq!(table.look_up(2, first, now), None);
        assert_eq!(table.look_up(1, first, now + AGEING), None);
        table.age(now + AGEING);
        assert!(table.entries.is_empty());
    }
}
