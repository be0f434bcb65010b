//! Which transfers run, and how many more may.
//!
//! Purpose: one transfer a client port (a repeated request is the network's, the OACK is already on its way), a cap
//! for each client address, one for all, and one for those whom nobody expects: what is left above it is kept for clients
//! that are, however many others ask. Invariant: what was admitted is given back when its guard is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Running {
    ports: HashMap<IpAddr, Vec<u16>>,
    total: usize,
    strangers: usize,
}

/// The transfers of one server.
#[derive(Debug)]
pub(crate) struct Table {
    running: Mutex<Running>,
    most: Most,
}

/// How many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) total: usize,
    /// Of them, transfers of clients that are not expected.
    pub(crate) strangers: usize,
    pub(crate) per_client: usize,
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
    stranger: bool,
}

impl Table {
    pub(crate) fn new(most: Most) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), most })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more transfer; `expected`: the caller knows this client.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr, expected: bool) -> Result<Place, Full> {
        let mut running = self.lock();
        let known = running.ports.get(&peer.ip());
        if known.is_some_and(|ports| ports.contains(&peer.port())) {
            return Err(Full::Repeated);
        }
        let full = running.total >= self.most.total || known.map_or(0, Vec::len) >= self.most.per_client;
        if full || (!expected && running.strangers >= self.most.strangers) {
            return Err(Full::Busy);
        }
        running.ports.entry(peer.ip()).or_default().push(peer.port());
        running.total += 1;
        running.strangers += usize::from(!expected);
        Ok(Place { table: Arc::clone(self), peer, stranger: !expected })
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
        running.strangers = running.strangers.saturating_sub(usize::from(self.stranger));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    fn table(total: usize, strangers: usize, per_client: usize) -> Arc<Table> {
        Table::new(Most { total, strangers, per_client })
    }

    #[test]
    fn limits_hold_and_places_come_back() {
        let table = table(3, 3, 2);
        let admit = |peer| table.admit(peer, false);
        let first = admit(peer(1, 1)).unwrap();
        assert_eq!(admit(peer(1, 1)).unwrap_err(), Full::Repeated);
        let second = admit(peer(1, 2)).unwrap();
        assert_eq!(admit(peer(1, 3)).unwrap_err(), Full::Busy);
        let third = admit(peer(2, 1)).unwrap();
        assert_eq!(admit(peer(3, 1)).unwrap_err(), Full::Busy);
        drop(first);
        let fourth = admit(peer(1, 1)).unwrap();
        drop((second, third, fourth));
        let running = table.lock();
        assert!(running.ports.is_empty());
        assert_eq!((running.total, running.strangers), (0, 0));
    }

    #[test]
    fn however_many_strangers_ask_an_expected_client_finds_a_place() {
        let table = table(10, 6, 2);
        let flood: Vec<_> = (0..200).filter_map(|host| table.admit(peer(host, 1), false).ok()).collect();
        assert_eq!(flood.len(), 6);
        let expected: Vec<_> = (0..200).filter_map(|host| table.admit(peer(host, 2), true).ok()).collect();
        assert_eq!(expected.len(), 4, "all that is left, and the limit for all holds");
        drop(flood);
        assert!(table.admit(peer(201, 1), false).is_ok(), "their places came back");
        drop(expected);
        let many: Vec<_> = (0..200).filter_map(|host| table.admit(peer(host, 2), true).ok()).collect();
        assert_eq!(many.len(), 10, "where no stranger asks, all are for those who are expected");
    }
}
