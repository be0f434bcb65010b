//! Whose connections are open, and how many more may be.
//!
//! Purpose: connections cost memory and idle ones live on for half a minute, so that they are bounded for all, for one
//! address, and for all those together that our DHCP knows as no planned host: what is left above that is kept for hosts,
//! however many addresses somebody has. A host's address is known before it connects, since our DHCP gave it, or heard
//! it chosen. Invariants: what was taken is given back when its guard is dropped; a stranger beyond its limit is hung up
//! on, so that it does not hold up those who wait behind it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// Connections at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Of all clients.
    pub(crate) total: usize,
    /// Of them, those of peers that are no planned hosts.
    pub(crate) strangers: usize,
    /// Of one address.
    pub(crate) per_client: usize,
}

impl Default for Most {
    fn default() -> Self {
        Self { total: 4096, strangers: 2560, per_client: 32 }
    }
}

#[derive(Debug, Default)]
struct Open {
    by_address: HashMap<IpAddr, usize>,
    strangers: usize,
}

/// The open connections of one interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    most: Most,
    open: Arc<Mutex<Open>>,
}

/// One connection's place among those of its client.
#[derive(Debug)]
pub(crate) struct Client {
    address: IpAddr,
    stranger: bool,
    clients: Clients,
}

impl Clients {
    pub(crate) fn new(most: Most) -> Self {
        Self { most, open: Arc::default() }
    }

    /// The places for connections, of which the accepting task takes one each before it accepts.
    pub(crate) fn places(&self) -> Semaphore {
        Semaphore::new(self.most.total)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of this client, if there is one.
    pub(crate) fn enter(&self, address: IpAddr, planned: bool) -> Option<Client> {
        let mut open = self.lock();
        let known = open.by_address.get(&address).copied().unwrap_or_default();
        if known >= self.most.per_client || (!planned && open.strangers >= self.most.strangers) {
            return None;
        }
        open.by_address.insert(address, known + 1);
        open.strangers += usize::from(!planned);
        Some(Client { address, stranger: !planned, clients: self.clone() })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut open = self.clients.lock();
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
        open.strangers = open.strangers.saturating_sub(usize::from(self.stranger));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn stranger(n: usize) -> IpAddr {
        Ipv6Addr::from(0xfd77_u128 << 112 | n as u128).into()
    }

    #[test]
    fn one_machine_with_many_addresses_leaves_room_for_every_host() {
        let (clients, most) = (Clients::default(), Most::default());
        let flood: Vec<_> = (0..2 * most.total).filter_map(|n| clients.enter(stranger(n), false)).collect();
        assert_eq!(flood.len(), most.strangers);
        let host = |n: usize| IpAddr::from([10, 77, (n / 250) as u8, (n % 250) as u8]);
        let hosts: Vec<_> = (0..1000).filter_map(|n| clients.enter(host(n), true)).collect();
        assert_eq!(hosts.len(), 1000, "each has its connection");
        assert!(most.strangers + hosts.len() <= most.total, "and there is one to have");
        drop(hosts);
        assert!(clients.enter(stranger(0), false).is_none(), "what is kept is for hosts");
        drop(flood);
        assert!(clients.enter(stranger(0), false).is_some());
        let open = clients.lock();
        assert_eq!((open.by_address.len(), open.strangers), (0, 0), "each place came back");
    }

    #[test]
    fn one_address_has_so_many_connections_whoever_it_is() {
        let clients = Clients::default();
        for planned in [false, true] {
            let all: Vec<_> = (0..100).filter_map(|_| clients.enter(stranger(1), planned)).collect();
            assert_eq!(all.len(), Most::default().per_client, "planned: {planned}");
        }
    }
}
