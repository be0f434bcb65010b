//! DHCP's leases and identifier in the store; a VM's lease is its address.
//!
//! Invariants: a commit that came back well has all its changes on the disk, however many they are; where they take more
//! than one transaction and a later one fails, the earlier ones are stored all the same, and nobody was told of them.

use crate::control::Control;
use crate::records::{CURRENT, DUID, LEASES, VMS};
use dayzero_pxe::{Lease, LeaseChange, LeaseStore, LeaseStoreError};
use dayzero_store::{MAX_TRANSACTION, Pair, StoreError};
use std::sync::Arc;

/// A transaction takes leases until so much of its room is left: a lease and its VM take far less.
const SPARE: usize = MAX_TRANSACTION / 4;

/// What DHCP asks.
pub(crate) struct StoredLeases(pub(crate) Arc<Control>);

#[async_trait::async_trait]
impl LeaseStore for StoredLeases {
    async fn load(&self) -> Result<Vec<Lease>, LeaseStoreError> {
        let leases = self.0.store.scan(&LEASES, "").map_err(|error| LeaseStoreError(error.to_string()))?;
        Ok(leases.into_iter().map(|entry| entry.value).collect())
    }

    async fn commit(&self, changes: Vec<LeaseChange>) -> Result<(), LeaseStoreError> {
        self.0.store_leases(changes).await.map_err(|error| LeaseStoreError(error.to_string()))
    }

    async fn duid(&self, made: Vec<u8>) -> Result<Vec<u8>, LeaseStoreError> {
        self.0.store_duid(made).await.map_err(|error| LeaseStoreError(error.to_string()))
    }
}

impl Control {
    /// The identifier that is kept; the one that was made, if none is.
    async fn store_duid(&self, made: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let _turn = self.turn.lock().await;
        if let Some(kept) = self.store.get(&DUID, &CURRENT.to_owned())? {
            return Ok(kept);
        }
        let mut tx = self.store.tx();
        tx.put(&DUID, &CURRENT.to_owned(), &made)?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn store_leases(self: &Arc<Self>, changes: Vec<LeaseChange>) -> Result<(), StoreError> {
        let control = self.clone();
        let stored = self.tasks.spawn(async move {
            let _turn = control.turn.lock().await;
            let mut left = changes.as_slice();
            while !left.is_empty() {
                left = control.store_some(left).await?;
            }
            Ok(())
        });
        stored.await.unwrap_or(Err(StoreError::Closed))
    }

    /// As many as one transaction takes; gives back the others.
    async fn store_some<'a>(&self, changes: &'a [LeaseChange]) -> Result<&'a [LeaseChange], StoreError> {
        let (mut tx, mut vms, mut left) = (self.store.tx(), Vec::new(), changes);
        while let [change, others @ ..] = left
            && tx.room() > SPARE
        {
            left = others;
            match change {
                LeaseChange::Put(lease) => {
                    tx.put(&LEASES, &Pair(lease.network.clone(), lease.address), lease)?;
                    let vm = self.mirror().vms.by_mac(lease.mac).filter(|_| !lease.declined).cloned();
                    if let Some(mut vm) = vm.filter(|vm| vm.address != Some(lease.address)) {
                        vm.address = Some(lease.address);
                        tx.put(&VMS, &vm.name, &vm)?;
                        vms.push(vm);
                    }
                }
                LeaseChange::Remove { network, address } => {
                    tx.delete(&LEASES, &Pair(network.clone(), *address))?;
                }
            }
        }
        self.commit(tx).await?;
        let mut mirror = self.mirror_mut();
        vms.into_iter().for_each(|vm| mirror.vms.put(vm));
        Ok(left)
    }
}
