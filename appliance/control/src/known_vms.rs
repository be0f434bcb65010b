//! The VMs that control knows, found by name, and at once by MAC and address too: every datagram of the boot network asks.

use dayzero_model::ids::{MacAddr, Name};
use dayzero_model::vm::Vm;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::ops::Deref;

/// All VMs, as a map by name that is only written by [`put`](Self::put).
#[derive(Debug, Default)]
pub(crate) struct KnownVms {
    by_name: BTreeMap<Name, Vm>,
    by_mac: HashMap<MacAddr, Name>,
    by_address: HashMap<Ipv4Addr, Name>,
}

impl KnownVms {
    /// Adds a VM, or puts it in the place of the one of its name.
    pub(crate) fn put(&mut self, vm: Vm) {
        if let Some(before) = self.by_name.get(&vm.name) {
            self.by_mac.remove(&before.mac);
            if let Some(address) = before.address {
                self.by_address.remove(&address);
            }
        }
        self.by_mac.insert(vm.mac, vm.name.clone());
        if let Some(address) = vm.address {
            self.by_address.insert(address, vm.name.clone());
        }
        self.by_name.insert(vm.name.clone(), vm);
    }

    /// The VM with that MAC.
    pub(crate) fn by_mac(&self, mac: MacAddr) -> Option<&Vm> {
        self.by_name.get(self.by_mac.get(&mac)?)
    }

    /// Whether a VM has that address.
    pub(crate) fn has_address(&self, address: Ipv4Addr) -> bool {
        self.by_address.contains_key(&address)
    }
}

impl Deref for KnownVms {
    type Target = BTreeMap<Name, Vm>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl FromIterator<Vm> for KnownVms {
    fn from_iter<I: IntoIterator<Item = Vm>>(vms: I) -> Self {
        let mut known = Self::default();
        vms.into_iter().for_each(|vm| known.put(vm));
        known
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dayzero_model::units::Timestamp;
    use dayzero_model::vm::VmState;

    pub(crate) fn vm(name: &str, last: u8, address: Option<[u8; 4]>) -> Vm {
        Vm {
            name: name.parse().unwrap(),
            offering: "small".parse().unwrap(),
            template: "tiny".parse().unwrap(),
            cluster: "kvm1".parse().unwrap(),
            host: None,
            why: String::new(),
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            address: address.map(Ipv4Addr::from),
            volume: None,
            state: VmState::Requested,
            detail: String::new(),
            since: Timestamp(0),
            console: Vec::new(),
        }
    }

    #[test]
    fn a_vm_is_found_by_what_it_has_now() {
        let mut known: KnownVms = [vm("a", 1, None), vm("b", 2, Some([10, 0, 0, 2]))].into_iter().collect();
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        assert_eq!(known.by_mac(mac(2)).map(|vm| vm.name.as_str()), Some("b"));
        known.put(vm("a", 3, Some([10, 0, 0, 3])));
        assert_eq!((known.by_mac(mac(1)), known.len()), (None, 2));
        assert!(known.has_address([10, 0, 0, 3].into()) && known.has_address([10, 0, 0, 2].into()));
        known.put(vm("a", 3, None));
        assert!(!known.has_address([10, 0, 0, 3].into()));
    }
}
