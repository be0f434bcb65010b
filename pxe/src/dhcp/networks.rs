//! The networks that DHCP serves, with their pools: shared by the servers of all interfaces, since a relay may bring a
//! network's clients to any of them.
//!
//! Invariants: another plan replaces all of them at once ([`Networks::follow`]); a message is answered by the network that
//! it found, in the old plan or in the new one; a pool is changed where it is, so that no lease is lost between the two.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dayzero_model::site::AddressRange;

use super::decide::PoolFor;
use super::lease::{Lease, Pool};
use crate::config::{PxeConfig, ServedNetwork};

/// The addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    range: AddressRange,
    /// Those of them that are not for clients, in order: ours, the gateway's, relays', name servers'.
    taken: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug)]
struct Pooled {
    room: Room,
    pool: Arc<Mutex<Pool>>,
}

/// One network and its pool.
#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) net: ServedNetwork,
    pooled: Option<Pooled>,
}

impl Subnet {
    /// Whom its pool is for.
    pub(crate) fn pool_for(&self) -> Option<PoolFor> {
        self.net.pool.map(|pool| if pool.open { PoolFor::All } else { PoolFor::Ours })
    }

    pub(crate) fn pool(&self) -> Option<MutexGuard<'_, Pool>> {
        self.pooled.as_ref().map(|pooled| pooled.pool.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether its relay `giaddr` may speak from this address: from that very one, or from what the plan says that the
    /// network's relays send from. Nothing else: whoever has a cable on a served segment can send from any address that
    /// nobody knows. (One that forges a listed source is for its switch to stop; what we answer goes to the true relay.)
    pub(crate) fn relay_speaks_from(&self, giaddr: Ipv4Addr, from: Ipv4Addr) -> bool {
        from == giaddr || self.net.relay_sources.contains(&IpAddr::V4(from))
    }

    /// Whether an address is one of its pool's.
    pub(crate) fn pools(&self, address: Ipv4Addr) -> bool {
        self.net.pool.is_some_and(|pool| (pool.range.first..=pool.range.last).contains(&address))
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Networks {
    now: RwLock<Arc<[Arc<Subnet>]>>,
    own: Vec<Ipv4Addr>,
}

impl Networks {
    /// The networks of a configuration, with the leases that the store has.
    pub(crate) fn new(config: &PxeConfig, leases: &[Lease]) -> Self {
        let own = config.interfaces.iter().map(|interface| interface.address).collect();
        let networks = Self { now: RwLock::default(), own };
        networks.follow(config, leases);
        networks
    }

    /// All of them, as the plan of now has them.
    pub(crate) fn all(&self) -> Arc<[Arc<Subnet>]> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a pool of this plan has addresses that were in none before: only the store knows their leases.
    pub(crate) fn needs_leases(&self, config: &PxeConfig) -> bool {
        let (before, near) = (self.all(), near(config));
        config.networks().any(|net| {
            let room = room(net, &self.own, &near);
            room.is_some() && room != pooled(&before, net).map(|pooled| pooled.room.clone())
        })
    }

    /// The networks of this plan from now on; our own addresses are as before. Pools keep what they know of addresses that
    /// stay; `leases` of the store say it of those that come.
    pub(crate) fn follow(&self, config: &PxeConfig, leases: &[Lease]) {
        let (before, near) = (self.all(), near(config));
        let subnet = |net: &ServedNetwork| {
            let fresh = |room: Room| {
                let pool = Pool::new(net.name.clone(), room.range, &room.taken, leases);
                Pooled { pool: Arc::new(Mutex::new(pool)), room }
            };
            let pooled = room(net, &self.own, &near).map(|room| match pooled(&before, net) {
                None => fresh(room),
                Some(same) if same.room == room => same.clone(),
                Some(other) => {
                    let mut pool = other.pool.lock().unwrap_or_else(PoisonError::into_inner);
                    pool.fit(room.range, &room.taken, leases);
                    Pooled { pool: Arc::clone(&other.pool), room }
                }
            });
            Arc::new(Subnet { net: net.clone(), pooled })
        };
        let all = config.networks().map(subnet).collect();
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// The network that an address lies in.
    pub(crate) fn covering(&self, address: Ipv4Addr) -> Option<Arc<Subnet>> {
        self.all().iter().find(|subnet| subnet.net.prefix.covers(address)).cloned()
    }

    /// Whether an address is one of ours.
    pub(crate) fn is_own(&self, address: Ipv4Addr) -> bool {
        self.own.contains(&address)
    }
}

fn pooled<'s>(subnets: &'s [Arc<Subnet>], net: &ServedNetwork) -> Option<&'s Pooled> {
    subnets.iter().find(|subnet| subnet.net.name == net.name)?.pooled.as_ref()
}

/// What relays send from: a relay of another network may have its address towards us inside a pool.
fn near(config: &PxeConfig) -> Vec<Ipv4Addr> {
    let sources = config.networks().flat_map(|net| &net.relay_sources);
    let v4 = |source: &IpAddr| match source {
        IpAddr::V4(source) => Some(*source),
        IpAddr::V6(_) => None,
    };
    sources.filter_map(v4).collect()
}

fn room(net: &ServedNetwork, own: &[Ipv4Addr], near: &[Ipv4Addr]) -> Option<Room> {
    let range = net.pool?.range;
    let mut taken = [own, near, net.gateway.as_slice(), &net.relays, &net.dns].concat();
    taken.retain(|address| (range.first..=range.last).contains(address));
    taken.sort_unstable();
    taken.dedup();
    Some(Room { range, taken })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, interface};
    use crate::config::{LeasePool, ServedInterface};
    use dayzero_model::site::NetworkRole;
    use dayzero_model::{MacAddr, Timestamp};

    const NOW: Timestamp = Timestamp(1_000_000);
    const NO: fn(Ipv4Addr) -> bool = |_| false;

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, last)
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn plan(first: u8, last: u8, tune: impl FnOnce(&mut ServedInterface)) -> PxeConfig {
        let mut guest = interface(NetworkRole::Guest);
        let range = AddressRange { first: at(first), last: at(last) };
        guest.network.pool = Some(LeasePool { range, open: true });
        tune(&mut guest);
        PxeConfig { interfaces: vec![guest], ..config() }
    }

    fn offered(networks: &Networks, client: u8) -> Option<Ipv4Addr> {
        let subnet = networks.covering(at(1)).unwrap();
        subnet.pool()?.offer(mac(client), None, NO, NOW)
    }

    fn lease(last: u8, client: u8) -> Lease {
        let expires = Timestamp(NOW.0 + 60_000);
        Lease {
            network: "mgmt".parse().unwrap(),
            address: at(last),
            mac: mac(client),
            expires,
            declined: false,
        }
    }

    #[test]
    fn a_pool_keeps_its_leases_and_offers_whatever_else_a_plan_changes() {
        let networks = Networks::new(&plan(50, 59, |_| ()), &[lease(50, 1)]);
        let old = networks.covering(at(1)).unwrap();
        assert_eq!(offered(&networks, 2), Some(at(51)));
        let changed = plan(50, 59, |guest| {
            guest.network.domain = Some("new.example".into());
            guest.network.dns = vec![at(3)];
            guest.network.mtu = Some(9000);
        });
        assert!(!networks.needs_leases(&changed), "no address is in it that was not");
        networks.follow(&changed, &[]);
        assert_eq!((offered(&networks, 1), offered(&networks, 2)), (Some(at(50)), Some(at(51))));
        assert_eq!(networks.covering(at(1)).unwrap().net.domain.as_deref(), Some("new.example"));
        // Who was still being answered by the old plan gave his address in the pool of the new one.
        assert!(old.pool().unwrap().bind(mac(3), at(52), 60, NO, NOW).is_some());
        assert_eq!(offered(&networks, 3), Some(at(52)));
    }

    #[test]
    fn a_pool_grows_and_shrinks_with_the_plan() {
        let networks = Networks::new(&plan(50, 52, |_| ()), &[lease(50, 1)]);
        assert_eq!(offered(&networks, 2), Some(at(51)));
        let grown = plan(50, 55, |guest| guest.network.dns = vec![at(53)]);
        assert!(networks.needs_leases(&grown));
        // The store has not heard of the offer, and still has a lease that the pool knows to be over.
        networks.covering(at(1)).unwrap().pool().unwrap().release(mac(1), at(50)).unwrap();
        networks.follow(&grown, &[lease(50, 1), lease(54, 4), lease(55, 2)]);
        let pool = |client| networks.covering(at(1)).unwrap().pool().unwrap().lease_of(mac(client));
        assert_eq!(pool(1), None, "what it knows is newer than the store");
        assert_eq!(pool(2), Some(at(51)), "one address a client");
        assert_eq!(pool(4), Some(at(54)), "of an address that was in no pool the store knows");
        let rest: Vec<_> = (5..=9).map(|client| offered(&networks, client)).collect();
        assert_eq!(rest, [Some(at(50)), Some(at(52)), Some(at(55)), None, None], "53 is a name server's");

        let shrunk = plan(51, 51, |_| ());
        networks.follow(&shrunk, &[]);
        assert_eq!((offered(&networks, 2), offered(&networks, 4)), (Some(at(51)), None));
        let none = plan(51, 51, |guest| guest.network.pool = None);
        assert!(!networks.needs_leases(&none));
        networks.follow(&none, &[]);
        assert!(networks.covering(at(1)).unwrap().pool().is_none());
        assert!(networks.needs_leases(&shrunk), "and when it comes back");
    }
}
