//! The networks that DHCP serves, with their pools: shared by the servers of all interfaces, since a relay may bring a
//! network's clients to any of them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::decide::PoolFor;
use super::lease::{Lease, Pool};
use crate::config::{PxeConfig, ServedNetwork};

/// One network and its pool.
#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) net: ServedNetwork,
    pool: Option<Mutex<Pool>>,
}

impl Subnet {
    /// Whom its pool is for.
    pub(crate) fn pool_for(&self) -> Option<PoolFor> {
        self.net.pool.map(|pool| if pool.open { PoolFor::All } else { PoolFor::Ours })
    }

    pub(crate) fn pool(&self) -> Option<MutexGuard<'_, Pool>> {
        self.pool.as_ref().map(|pool| pool.lock().unwrap_or_else(PoisonError::into_inner))
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
    subnets: Vec<Subnet>,
    own: Vec<Ipv4Addr>,
}

impl Networks {
    /// The networks of a configuration, with the leases that the store has.
    pub(crate) fn new(config: &PxeConfig, leases: &[Lease]) -> Self {
        let own: Vec<Ipv4Addr> = config.interfaces.iter().map(|interface| interface.address).collect();
        let sources = config.networks().flat_map(|net| &net.relay_sources);
        let v4 = |source: &IpAddr| match source {
            IpAddr::V4(source) => Some(*source),
            IpAddr::V6(_) => None,
        };
        // A relay of another network may have its address towards us here.
        let near: Vec<Ipv4Addr> = sources.filter_map(v4).collect();
        let subnet = |net: &ServedNetwork| {
            let pool = net.pool.map(|pool| {
                let mut taken = [own.as_slice(), &near].concat();
                taken.extend(net.gateway);
                taken.extend(&net.relays);
                taken.extend(&net.dns);
                Mutex::new(Pool::new(net.name.clone(), pool.range, &taken, leases))
            });
            Subnet { net: net.clone(), pool }
        };
        Self { subnets: config.networks().map(subnet).collect(), own }
    }

    /// The network that an address lies in.
    pub(crate) fn covering(&self, address: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.net.prefix.covers(address))
    }

    /// Whether an address is one of ours.
    pub(crate) fn is_own(&self, address: Ipv4Addr) -> bool {
        self.own.contains(&address)
    }
}
