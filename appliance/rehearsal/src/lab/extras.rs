//! Machines that are not in the plan: strangers and clones on a spare port of the access switch.

use super::build::{extra_sockets, identity};
use super::{Lab, follow_power, held};
use crate::machine::{Firmware, Identity, Machine, MachineSpec, NicSpec};
use crate::protocol::{ExtraStatus, Response};
use crate::switch::fabric::EndpointId;
use dayzero_model::MacAddr;
use std::sync::Arc;

/// Enough for the discovery image.
const MEMORY_MIB: u64 = 1024;

/// A stranger or clone.
#[derive(Debug)]
pub struct Extra {
    /// Its name, unique while the lab runs.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// Its MAC.
    pub mac: MacAddr,
    cable: EndpointId,
}

impl Extra {
    /// As shown.
    pub(super) fn status(&self) -> ExtraStatus {
        ExtraStatus { name: self.name.clone(), mac: self.mac, power: *self.machine.power().borrow() }
    }
}

impl Lab {
    /// A machine of unknown MAC, BIOS, that PXE-boots.
    pub(super) async fn spawn_stranger(self: &Arc<Self>, mac: MacAddr) -> Result<Response, String> {
        let [.., a, b, c] = mac.0;
        let uuid = format!("0000feed-0000-4000-8000-000000{a:02x}{b:02x}{c:02x}");
        self.spawn_extra("stranger", mac, Firmware::Bios, identity("STRANGER", &uuid)).await
    }

    /// A machine with a host's MAC, serial and UUID.
    pub(super) async fn spawn_clone(self: &Arc<Self>, of: &str) -> Result<Response, String> {
        let host = self.host(of).ok_or_else(|| format!("there is no host '{of}' in the lab"))?;
        let mac = host.plan.nics.first().map(|nic| nic.mac).ok_or("the host has no NIC to clone")?;
        let spec = host.machine.spec();
        self.spawn_extra(&format!("clone-of-{of}"), mac, spec.firmware, spec.identity.clone()).await
    }

    async fn spawn_extra(
        self: &Arc<Self>,
        kind: &str,
        mac: MacAddr,
        firmware: Firmware,
        identity: Identity,
    ) -> Result<Response, String> {
        let (name, index, cable) = {
            let extras = held(&self.extras);
            let free = self
                .extra_cables
                .iter()
                .position(|(_, cable)| extras.iter().all(|extra| extra.cable != *cable));
            let index = free.ok_or("all ports for extra machines are taken: 'kill-extra' one first")?;
            (format!("{kind}-{}", index + 1), index, self.extra_cables[index].1)
        };
        let (own, peer) = extra_sockets(&self.options.dir, index);
        let dir = self.options.dir.join("m").join(format!("x{index}"));
        // An EDK2 that another machine left its boot entries in is not a new machine.
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("cannot clear {}: {error}", dir.display()));
        }
        let spec = MachineSpec {
            name: name.clone(),
            dir,
            firmware,
            memory_mib: MEMORY_MIB,
            cpus: 1,
            identity,
            disk: None,
            nics: vec![NicSpec { mac, local: peer, remote: own }],
            direct: None,
            port: None,
        };
        let netns = self.namespace(crate::blueprint::NS_QEMU);
        let machine = Machine::new(spec, self.processes.clone(), netns);
        held(&self.tasks).spawn(follow_power(machine.clone(), self.fabric.clone(), vec![cable]));
        held(&self.extras).push(Extra { name: name.clone(), machine: machine.clone(), mac, cable });
        let started = async {
            machine.set_once_pxe().await?;
            machine.power_on().await
        };
        match started.await {
            Ok(()) => {
                // The task's subscription may have begun after the power-on: the port's carrier is set here too.
                self.fabric.set_carrier(cable, true);
                Ok(Response::Spawned { name, mac })
            }
            Err(error) => {
                held(&self.extras).retain(|extra| extra.name != name);
                Err(error.to_string())
            }
        }
    }

    /// Removes a stranger or clone.
    pub(super) async fn kill_extra(&self, name: &str) -> Result<Response, String> {
        let machine =
            held(&self.extras).iter().find(|extra| extra.name == name).map(|extra| extra.machine.clone());
        let machine = machine.ok_or_else(|| format!("there is no extra machine '{name}': see 'status'"))?;
        machine.force_off().await.map_err(|error| error.to_string())?;
        let mut extras = held(&self.extras);
        if let Some(at) = extras.iter().position(|extra| extra.name == name) {
            self.fabric.set_carrier(extras.remove(at).cable, false);
        }
        Ok(Response::Done)
    }
}
