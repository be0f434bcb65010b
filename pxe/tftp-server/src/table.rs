//! Which transfers run, and how many more may.
//!
//! Purpose: one transfer a client port (a repeated request is the network's, the OACK is already on its way), a cap
//! for each client address and one for all. Invariant: what was admitted is given back when its guard is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Running {
    ports: HashMap<IpAddr, Vec<u16>>,
    total: usize,
}

/// The transfers of one server.
#[derive(Debug)]
pub(crate) struct Table {
    running: Mutex<Running>,
    max_total: usize,
    max_per_client: usize,
}

/// Why a request starts no transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The same request again.
    Repeated,
    /// A limit is reached.
    Busy,
}

/// A place in the table, held while a transfer runs.
#[derive(Debug)]
pub(crate) struct Place {
    table: Arc<Table>,
    peer: SocketAddr,
}

impl Table {
    pub(crate) fn new(max_total: usize, max_per_client: usize) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), max_total, max_per_client })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Place, Full> {
        let mut running = self.lock();
        let known = running.ports.get(&peer.ip());
        if known.is_some_and(|ports| ports.contains(&peer.port())) {
            return Err(Full::Repeated);
        }
        if running.total >= self.max_total || known.map_or(0, Vec::len) >= self.max_per_client {
            return Err(Full::Busy);
        }
        running.ports.entry(peer.ip()).or_default().push(peer.port());
        running.total += 1;
        Ok(Place { table: Arc::clone(self), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.table.lock();
        if let Some(ports) = running.ports.get_mut(&self.peer.ip()) {
            ports.retain(|port| *port != self.peer.port());
            if ports.is_empty() {
                running.ports.remove(&self.peer.ip());
            }
        }
        running.total = running.total.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    #[test]
    fn limits_hold_and_places_come_back() {
        let table = Table::new(3, 2);
        let first = table.admit(peer(1, 1)).unwrap();
        assert_eq!(table.admit(peer(1, 1)).unwrap_err(), Full::Repeated);
        let second = table.admit(peer(1, 2)).unwrap();
        assert_eq!(table.admit(peer(1, 3)).unwrap_err(), Full::Busy);
        let third = table.admit(peer(2, 1)).unwrap();
        assert_eq!(table.admit(peer(3, 1)).unwrap_err(), Full::Busy);
        drop(first);
        let fourth = table.admit(peer(1, 1)).unwrap();
        drop((second, third, fourth));
        assert!(table.lock().ports.is_empty());
        assert_eq!(table.lock().total, 0);
    }
}
