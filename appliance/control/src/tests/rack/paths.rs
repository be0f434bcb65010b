//! The rack's cables, and the pings that feel when one is pulled.

use super::Rack;
use crate::world::{Path, PathPuller, PingRun, PingStats, Pings};
use async_trait::async_trait;
use dayzero_model::ids::HostName;
use dayzero_model::proof::Break;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[async_trait]
impl PathPuller for Rack {
    async fn pull(&self, path: &Path, how: Break) -> Result<(), String> {
        self.pulls.lock().unwrap().push(format!("{} {how:?}", path.role));
        self.with(&path.host, |machine| {
            let storage = machine.plan.storage_nics.iter().any(|nic| nic.role == path.role);
            assert_eq!(machine.resting, storage, "pings run while a leg is pulled, and then alone");
            machine.broken.insert(path.role.clone());
            if machine.plan.bond.nics.iter().all(|nic| machine.broken.contains(&nic.role)) {
                machine.dark = Some(Instant::now());
            }
        });
        Ok(())
    }
    async fn restore(&self, path: &Path) -> Result<(), String> {
        self.with(&path.host, |machine| {
            machine.broken.remove(&path.role);
            if let Some(since) = machine.dark.take() {
                machine.darkest = machine.darkest.max(since.elapsed());
            }
        });
        Ok(())
    }
}

struct FakePings {
    rack: Arc<Rack>,
    host: HostName,
}

impl PingRun for FakePings {
    fn stats(&self) -> PingStats {
        let (silent, darkest) = self.rack.with(&self.host, |machine| {
            (machine.dark.map_or(Duration::ZERO, |since| since.elapsed()), machine.darkest)
        });
        PingStats { sent: 10, back: 10, longest: darkest.max(silent).max(Duration::from_millis(11)), silent }
    }
    fn rest(&self, resting: bool) {
        self.rack.with(&self.host, |machine| machine.resting = resting);
    }
    fn reset(&self) {
        self.rack.with(&self.host, |machine| machine.darkest = Duration::ZERO);
    }
}

impl Pings for Rack {
    fn start(&self, address: Ipv4Addr) -> Result<Box<dyn PingRun>, String> {
        let host = self
            .machines()
            .values()
            .find(|machine| machine.plan.address == address)
            .map(|m| m.plan.name.clone());
        let rack = self.me.upgrade().unwrap();
        let pings = FakePings { rack, host: host.unwrap() };
        pings.rest(false);
        Ok(Box::new(pings))
    }
}
