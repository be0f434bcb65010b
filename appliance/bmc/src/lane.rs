//! One operation at a time per BMC: BMCs are small computers that answer two at once wrongly or not at all.
//!
//! Waiters get their turn in the order in which they came. The lane is by address, so that two connections share it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

static LANES: LazyLock<Mutex<HashMap<IpAddr, Weak<Turn<()>>>>> = LazyLock::new(Mutex::default);

/// The lane of one BMC.
#[derive(Clone, Debug)]
pub(crate) struct Lane(Arc<Turn<()>>);

impl Lane {
    /// The lane of the BMC at that address; the same one for all who ask while anyone holds it.
    pub(crate) fn of(address: IpAddr) -> Self {
        let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&address).and_then(Weak::upgrade) {
            return Self(lane);
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Turn::new(()));
        lanes.insert(address, Arc::downgrade(&lane));
        Self(lane)
    }

    /// Waits for our turn, which lasts until the guard is dropped.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.0.clone().lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_connections_to_one_bmc_take_turns_and_others_do_not_wait() {
        let (one, two) = (Lane::of("192.0.2.1".parse().unwrap()), Lane::of("192.0.2.1".parse().unwrap()));
        let other = Lane::of("192.0.2.2".parse().unwrap());
        let held = one.turn().await;
        assert!(two.0.try_lock().is_err());
        assert!(other.0.try_lock().is_ok());
        drop(held);
        assert!(two.0.try_lock().is_ok());
    }
}
