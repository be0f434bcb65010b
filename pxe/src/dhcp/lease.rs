//! Leases of a dynamic pool, and the trait that keeps them.
//!
//! Purpose: which address a client without a reservation gets, in time that does not grow with the pool. Invariants: an address
//! belongs to one MAC at a time; a client keeps its address while it is free; an address that was declined, or is
//! reserved for somebody, is not given out; nothing is acknowledged that the [`LeaseStore`] does not hold durably.
//! Clients are told apart by MAC, since a VM's firmware and its OS send different client ids.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use dayzero_model::site::AddressRange;
use dayzero_model::{MacAddr, Millis, Name, Timestamp};
use serde::{Deserialize, Serialize};

/// An offer is kept for so long.
const OFFER: Millis = Millis(60_000);
/// Addresses that one question looks at, where many of a pool are reserved: the rest is for the next question.
const LOOKED_AT: usize = 256;
/// A declined address rests for so long.
const DECLINED: Millis = Millis(3_600_000);

/// A dynamic lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Network of the pool.
    pub network: Name,
    /// The address.
    pub address: Ipv4Addr,
    /// Whose.
    pub mac: MacAddr,
    /// Until when.
    pub expires: Timestamp,
    /// Nobody has it: this client found somebody else there, and it rests until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declined: bool,
}

/// A change that must be durable before the client hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Given or renewed; replaces what the address had.
    Put(Lease),
    /// Given back.
    Remove {
        /// Network of the pool.
        network: Name,
        /// The address.
        address: Ipv4Addr,
    },
}

/// Leases could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the lease store failed: {0}")]
pub struct LeaseStoreError(pub String);

/// Keeps leases. `commit` returns once all changes are durable; it gets many at once under load.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// All leases, expired ones too.
    async fn load(&self) -> Result<Vec<Lease>, LeaseStoreError>;
    /// Makes these changes durable, in order.
    async fn commit(&self, changes: Vec<LeaseChange>) -> Result<(), LeaseStoreError>;
    /// The identifier (DUID) that our DHCPv6 has for good: the one that is kept, else `made`, which is kept from now on.
    /// Where nothing is kept, it is `made` each time.
    async fn duid(&self, made: Vec<u8>) -> Result<Vec<u8>, LeaseStoreError> {
        Ok(made)
    }
}

/// Leases in memory: for tests, and for sites whose plan has no pool.
#[derive(Debug, Default)]
pub struct MemoryLeases(Mutex<BTreeMap<(Name, Ipv4Addr), Lease>>);

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn load(&self) -> Result<Vec<Lease>, LeaseStoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect())
    }

    async fn commit(&self, changes: Vec<LeaseChange>) -> Result<(), LeaseStoreError> {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                LeaseChange::Put(lease) => {
                    leases.insert((lease.network.clone(), lease.address), lease);
                }
                LeaseChange::Remove { network, address } => {
                    leases.remove(&(network, address));
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Client(MacAddr),
    /// Somebody else answers there.
    Stranger,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    holder: Holder,
    until: Timestamp,
    /// Acknowledged, not merely offered.
    bound: bool,
}

/// The pool of one network.
#[derive(Debug)]
pub(crate) struct Pool {
    network: Name,
    entries: HashMap<Ipv4Addr, Entry>,
    by_mac: HashMap<MacAddr, Ipv4Addr>,
    free: BTreeSet<Ipv4Addr>,
    by_end: BTreeSet<(Timestamp, Ipv4Addr)>,
}

impl Pool {
    /// A pool with its leases from the store; `own` addresses (ours, the gateway's) are left out.
    pub(crate) fn new(network: Name, range: AddressRange, own: &[Ipv4Addr], leases: &[Lease]) -> Self {
        let all = u32::from(range.first)..=u32::from(range.last);
        let free = all.map(Ipv4Addr::from).filter(|address| !own.contains(address)).collect();
        let (entries, by_mac, by_end) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        let mut pool = Self { network, entries, by_mac, free, by_end };
        for lease in leases {
            if lease.network != pool.network || !pool.free.contains(&lease.address) {
                continue;
            }
            if lease.declined {
                let (holder, until) = (Holder::Stranger, lease.expires);
                pool.occupy(lease.address, Entry { holder, until, bound: true });
            } else {
                pool.set(lease.address, lease.mac, lease.expires, true);
            }
        }
        pool
    }

    /// Another range from now on, and others than clients in it. What is known of an address that stays is newer than
    /// what the store says, whose `leases` count for addresses that come.
    pub(crate) fn fit(&mut self, range: AddressRange, own: &[Ipv4Addr], leases: &[Lease]) {
        let fitted = Self::new(self.network.clone(), range, own, leases);
        let before = std::mem::replace(self, fitted);
        for address in before.free.iter().chain(before.entries.keys()) {
            self.clear(*address);
        }
        for (address, entry) in before.entries {
            match entry.holder {
                _ if !self.free.contains(&address) => {}
                Holder::Client(mac) => self.set(address, mac, entry.until, entry.bound),
                Holder::Stranger => self.occupy(address, entry),
            }
        }
    }

    fn clear(&mut self, address: Ipv4Addr) {
        if let Some(entry) = self.entries.remove(&address) {
            self.by_end.remove(&(entry.until, address));
            if let Holder::Client(mac) = entry.holder
                && self.by_mac.get(&mac) == Some(&address)
            {
                self.by_mac.remove(&mac);
            }
            self.free.insert(address);
        }
    }

    fn occupy(&mut self, address: Ipv4Addr, entry: Entry) {
        self.clear(address);
        self.free.remove(&address);
        self.by_end.insert((entry.until, address));
        self.entries.insert(address, entry);
    }

    fn set(&mut self, address: Ipv4Addr, mac: MacAddr, until: Timestamp, bound: bool) {
        if let Some(before) = self.by_mac.get(&mac).copied().filter(|before| *before != address) {
            self.clear(before);
        }
        self.occupy(address, Entry { holder: Holder::Client(mac), until, bound });
        self.by_mac.insert(mac, address);
    }

    /// An address to offer: the client's own, else the one it asks for, else a free one, else the one that
    /// ran out longest ago.
    pub(crate) fn offer(
        &mut self,
        mac: MacAddr,
        wish: Option<Ipv4Addr>,
        reserved: impl Fn(Ipv4Addr) -> bool,
        now: Timestamp,
    ) -> Option<Ipv4Addr> {
        if let Some(address) = self.by_mac.get(&mac).copied().filter(|address| !reserved(*address)) {
            let entry = self.entries.get(&address).copied();
            if !entry.is_some_and(|entry| entry.bound && entry.until > now) {
                self.set(address, mac, now.plus(OFFER), false);
            }
            return Some(address);
        }
        let wished = wish.filter(|address| self.free.contains(address) && !reserved(*address));
        let address = wished.or_else(|| self.free_or_over(&reserved, now))?;
        self.set(address, mac, now.plus(OFFER), false);
        Some(address)
    }

    /// A free address, else the one that ran out longest ago. Those that are reserved are put aside for the time of an
    /// offer, so that not each question goes over them again.
    fn free_or_over(&mut self, reserved: &impl Fn(Ipv4Addr) -> bool, now: Timestamp) -> Option<Ipv4Addr> {
        for _ in 0..LOOKED_AT {
            let over = || self.by_end.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address);
            let address = self.free.first().copied().or_else(over)?;
            if !reserved(address) {
                return Some(address);
            }
            let aside = Entry { holder: Holder::Stranger, until: now.plus(OFFER), bound: true };
            self.occupy(address, aside);
        }
        None
    }

    /// Gives `address` to the client, if it was offered or given to it before, or is free.
    pub(crate) fn bind(
        &mut self,
        mac: MacAddr,
        address: Ipv4Addr,
        seconds: u32,
        reserved: impl Fn(Ipv4Addr) -> bool,
        now: Timestamp,
    ) -> Option<LeaseChange> {
        let own = self.by_mac.get(&mac) == Some(&address);
        if !(own || self.free.contains(&address)) || reserved(address) {
            return None;
        }
        let expires = now.plus(Millis(u64::from(seconds) * 1000));
        self.set(address, mac, expires, true);
        let network = self.network.clone();
        Some(LeaseChange::Put(Lease { network, address, mac, expires, declined: false }))
    }

    /// The client's lease, if any (also one that ran out and was given to nobody since).
    pub(crate) fn lease_of(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.by_mac.get(&mac).copied()
    }

    /// The client gives its address back.
    pub(crate) fn release(&mut self, mac: MacAddr, address: Ipv4Addr) -> Option<LeaseChange> {
        if self.by_mac.get(&mac) != Some(&address) {
            return None;
        }
        self.clear(address);
        Some(LeaseChange::Remove { network: self.network.clone(), address })
    }

    /// The client found somebody else at its address: it rests, over a restart too.
    pub(crate) fn decline(&mut self, mac: MacAddr, address: Ipv4Addr, now: Timestamp) -> Option<LeaseChange> {
        self.release(mac, address)?;
        let expires = now.plus(DECLINED);
        self.occupy(address, Entry { holder: Holder::Stranger, until: expires, bound: true });
        let network = self.network.clone();
        Some(LeaseChange::Put(Lease { network, address, mac, expires, declined: true }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 100, last)
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn pool(first: u8, last: u8, leases: &[Lease]) -> Pool {
        let range = AddressRange { first: address(first), last: address(last) };
        Pool::new("guest".parse().unwrap(), range, &[address(51)], leases)
    }

    const NO: fn(Ipv4Addr) -> bool = |_| false;

    #[test]
    fn a_client_keeps_its_address_and_leases_survive_a_restart() {
        let now = Timestamp(1_000_000);
        let mut first = pool(50, 60, &[]);
        assert_eq!(first.offer(mac(1), None, NO, now), Some(address(50)));
        assert_eq!(first.offer(mac(1), Some(address(55)), NO, now), Some(address(50)), "still the same");
        assert_eq!(first.offer(mac(2), Some(address(55)), NO, now), Some(address(55)), "its wish");
        assert_eq!(first.offer(mac(3), Some(address(51)), NO, now), Some(address(52)), "51 is ours");
        let Some(LeaseChange::Put(lease)) = first.bind(mac(2), address(55), 60, NO, now) else { panic!() };
        assert_eq!(lease.expires, Timestamp(1_060_000));
        assert_eq!(first.bind(mac(9), address(55), 60, NO, now), None, "another's");

        let mut second = pool(50, 60, &[lease]);
        assert_eq!(second.lease_of(mac(2)), Some(address(55)));
        assert_eq!(second.offer(mac(7), Some(address(55)), NO, now), Some(address(50)));
        assert!(second.bind(mac(2), address(55), 60, NO, now).is_some(), "renewal after the restart");
    }

    #[test]
    fn addresses_return_when_they_run_out_are_released_or_were_declined() {
        let now = Timestamp(1_000_000);
        let mut pool = pool(52, 53, &[]);
        for i in 1..=2 {
            let got = pool.offer(mac(i), None, NO, now).unwrap();
            pool.bind(mac(i), got, 60, NO, now).unwrap();
        }
        assert_eq!(pool.offer(mac(3), None, NO, now), None, "full");
        assert_eq!(pool.release(mac(2), address(52)), None, "not its own");
        assert!(pool.release(mac(1), address(52)).is_some());
        assert_eq!(pool.offer(mac(3), None, NO, now), Some(address(52)));
        assert!(pool.decline(mac(3), address(52), now).is_some());
        assert_eq!(pool.offer(mac(3), None, NO, now), None, "the declined one rests");
        let later = Timestamp(1_061_000);
        assert_eq!(pool.offer(mac(3), None, NO, later), Some(address(53)), "ran out");
        assert_eq!(pool.lease_of(mac(2)), None);
        assert_eq!(
            pool.offer(mac(4), None, NO, now.plus(DECLINED)),
            Some(address(53)),
            "an offer that ran out"
        );
    }

    #[test]
    fn a_declined_address_rests_over_a_restart_and_comes_back_after_it() {
        let now = Timestamp(1_000_000);
        let mut first = pool(52, 52, &[]);
        assert_eq!(first.offer(mac(1), None, NO, now), Some(address(52)));
        let Some(LeaseChange::Put(rest)) = first.decline(mac(1), address(52), now) else { panic!() };
        assert_eq!((rest.address, rest.declined, rest.expires), (address(52), true, now.plus(DECLINED)));
        let text = serde_json::to_string(&rest).unwrap();
        let read: Lease = serde_json::from_str(&text).unwrap();

        let mut second = pool(52, 52, &[read]);
        assert_eq!(second.lease_of(mac(1)), None, "nobody's, not even of the client that declined it");
        for client in [1, 2] {
            assert_eq!(second.offer(mac(client), Some(address(52)), NO, now), None, "{client}");
            assert_eq!(second.bind(mac(client), address(52), 60, NO, now), None, "{client}");
        }
        let later = now.plus(DECLINED);
        assert_eq!(second.offer(mac(2), None, NO, later), Some(address(52)));
        let Some(LeaseChange::Put(lease)) = second.bind(mac(2), address(52), 60, NO, later) else { panic!() };
        assert!(!lease.declined);
        let text = serde_json::to_string(&lease).unwrap();
        assert!(!text.contains("declined"), "a lease is stored as it always was: {text}");
        assert_eq!(serde_json::from_str::<Lease>(&text).unwrap(), lease);
    }

    #[test]
    fn what_is_reserved_is_not_given() {
        let now = Timestamp(0);
        let mut pool = pool(52, 54, &[]);
        let reserved = |a: Ipv4Addr| a == address(52);
        assert_eq!(pool.offer(mac(1), Some(address(52)), reserved, now), Some(address(53)));
        assert_eq!(pool.bind(mac(1), address(52), 60, reserved, now), None);
    }

    #[test]
    fn a_pool_whose_addresses_are_nearly_all_reserved_is_gone_over_once() {
        let all = AddressRange { first: Ipv4Addr::new(10, 78, 0, 0), last: Ipv4Addr::new(10, 78, 255, 255) };
        let now = Timestamp(1_000_000);
        let over = |address: u32| Lease {
            network: "guest".parse().unwrap(),
            address: Ipv4Addr::from(address),
            mac: MacAddr([6, 0, 0, 0, (address >> 8) as u8, address as u8]),
            expires: Timestamp(1),
            declined: false,
        };
        // Half of them had other clients before; all but the last are reserved by now.
        let leases: Vec<Lease> = (0x0a4e_0000..0x0a4e_8000).map(over).collect();
        let mut pool = Pool::new("guest".parse().unwrap(), all, &[], &leases);
        let asked = std::cell::Cell::new(0);
        let reserved = |address: Ipv4Addr| {
            asked.set(asked.get() + 1);
            address != all.last
        };
        let mut offered = None;
        let mut questions = 0;
        while offered.is_none() {
            let before = asked.get();
            offered = pool.offer(mac(1), None, reserved, now);
            assert!(asked.get() - before <= LOOKED_AT, "one question");
            questions += 1;
        }
        assert_eq!(offered, Some(all.last));
        assert!(questions <= 0x1_0000 / LOOKED_AT + 1, "{questions}");
        let before = asked.get();
        assert_eq!(pool.offer(mac(2), None, reserved, now), None);
        assert!(asked.get() - before <= LOOKED_AT);
        // A reservation that is gone gives its address back by and by.
        let later = now.plus(OFFER).plus(OFFER);
        let nobodys = |address: Ipv4Addr| address != Ipv4Addr::new(10, 78, 0, 77) && address != all.last;
        let got = (0..0x1_0000 / LOOKED_AT + 1).find_map(|_| pool.offer(mac(3), None, nobodys, later));
        assert_eq!(got, Some(Ipv4Addr::new(10, 78, 0, 77)));
    }

    proptest! {
        #[test]
        fn no_address_belongs_to_two(steps in proptest::collection::vec((0u8..5, 0u8..6, 50u8..58), 1..200)) {
            let mut pool = pool(50, 57, &[]);
            let mut bound: HashMap<Ipv4Addr, (MacAddr, Timestamp)> = HashMap::new();
            let mut now = Timestamp(0);
            for (step, who, last) in steps {
                now = now.plus(Millis(7_000));
                match step {
                    0 => drop(pool.offer(mac(who), Some(address(last)), NO, now)),
                    1 => {
                        let Some(at) = pool.lease_of(mac(who)) else { continue };
                        if let Some(LeaseChange::Put(lease)) = pool.bind(mac(who), at, 30, NO, now) {
                            let other = bound.get(&at).filter(|(m, until)| *m != mac(who) && *until > now);
                            prop_assert!(other.is_none(), "{at} is still {other:?}'s");
                            bound.retain(|_, (m, _)| *m != mac(who));
                            bound.insert(at, (lease.mac, lease.expires));
                        }
                    }
                    2 | 3 => {
                        let at = address(last);
                        let change =
                            if step == 2 { pool.release(mac(who), at) } else { pool.decline(mac(who), at, now) };
                        if change.is_some() {
                            bound.remove(&at);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(pool.free.len() + pool.entries.len(), 7, "51 is never given");
                prop_assert_eq!(pool.by_end.len(), pool.entries.len());
            }
        }
    }
}
