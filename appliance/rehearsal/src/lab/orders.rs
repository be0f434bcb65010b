//! Carries out what the control socket asks for. A refusal says why and what to do.

use super::{HostRig, Lab, held};
use crate::machine::MachineError;
use crate::protocol::{
    APPLIANCE, ApplianceNicStatus, ApplianceStatus, Forwarding, HostStatus, LabStatus, NicStatus,
    PowerAction, Request, Response, ServiceStatus, SwitchStatus,
};
use crate::switch::core::Role;
use crate::switch::fabric::EndpointId;
use dayzero_model::HostName;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the foreign partition begins.
const FOREIGN_START: u64 = 1 << 20;
const FOREIGN_SECTORS: u32 = 64 * 2048;

fn told(error: MachineError) -> String {
    error.to_string()
}

impl Lab {
    /// Carries out one request.
    pub async fn carry_out(self: &Arc<Self>, request: Request) -> Response {
        match self.try_carry_out(request).await {
            Ok(response) => response,
            Err(reason) => Response::Refused { reason },
        }
    }

    async fn try_carry_out(self: &Arc<Self>, request: Request) -> Result<Response, String> {
        match request {
            Request::Status => return Ok(Response::Status(self.status())),
            Request::Secrets => return Ok(Response::Secrets(self.secrets()?)),
            Request::PullCable { host, nic } => self.pull(&host, nic).await?,
            Request::Plug { host, nic } => self.plug(&host, nic).await?,
            Request::SwapCables { host, a, b } => self.swap(&host, a, b).await?,
            Request::KillSwitch { member } => self.set_switch(member.as_str(), false)?,
            Request::ReviveSwitch { member } => self.set_switch(member.as_str(), true)?,
            Request::MutePort { host, nic } => self.set_port(&host, nic, false)?,
            Request::UnmutePort { host, nic } => self.set_port(&host, nic, true)?,
            Request::LacpFallback { host, on } => self.set_fallback(&host, on)?,
            Request::Power { host, action } => self.power(&host, action).await?,
            Request::Pause { host } => self.rig(&host)?.machine.set_paused(true).await.map_err(told)?,
            Request::Resume { host } => self.rig(&host)?.machine.set_paused(false).await.map_err(told)?,
            Request::WrongPassword { host, wrong } => self.wrong_password(self.rig(&host)?, wrong).await?,
            Request::ClockBattery { host, empty } => self.rig(&host)?.machine.set_clock_battery(empty),
            Request::StaleMedia { host, stale } => self.stale_media(self.rig(&host)?, stale)?,
            Request::SpawnStranger { mac } => return self.spawn_stranger(mac).await,
            Request::SpawnClone { of } => return self.spawn_clone(of.as_str()).await,
            Request::KillExtra { name } => return self.kill_extra(&name).await,
            Request::Console { machine } => return self.console(&machine),
            Request::WipeDisk { host } => self.on_disk(&host, wipe).await?,
            Request::PutForeignData { host } => self.on_disk(&host, put_foreign_data).await?,
            Request::Shutdown => self.stop.cancel(),
        }
        Ok(Response::Done)
    }

    fn rig(&self, host: &HostName) -> Result<&HostRig, String> {
        let known = || self.hosts.iter().map(|host| host.plan.name.as_str()).collect::<Vec<_>>().join(", ");
        self.host(host.as_str()).ok_or_else(|| format!("there is no host '{host}': the lab has {}", known()))
    }

    fn cable(&self, host: &HostName, nic: usize) -> Result<(&HostRig, EndpointId), String> {
        let rig = self.rig(host)?;
        let last = rig.cables.len().saturating_sub(1);
        let cable =
            rig.cables.get(nic).ok_or_else(|| format!("host '{host}' has NICs 0 to {last}, not {nic}"))?;
        Ok((rig, *cable))
    }

    async fn pull(&self, host: &HostName, nic: usize) -> Result<(), String> {
        let (rig, cable) = self.cable(host, nic)?;
        self.fabric.set_carrier(cable, false);
        rig.machine.set_cable(nic, false).await.map_err(told)
    }

    async fn plug(&self, host: &HostName, nic: usize) -> Result<(), String> {
        let (rig, cable) = self.cable(host, nic)?;
        rig.machine.set_cable(nic, true).await.map_err(told)?;
        self.fabric.set_carrier(cable, rig.machine.is_on());
        Ok(())
    }

    async fn swap(&self, host: &HostName, a: usize, b: usize) -> Result<(), String> {
        let (rig, first) = self.cable(host, a)?;
        let (_, second) = self.cable(host, b)?;
        if a == b {
            return Err(format!("a cable cannot be exchanged with itself: name two NICs of '{host}'"));
        }
        let plugged = [a, b].map(|nic| (nic, !rig.machine.is_pulled(nic)));
        for (nic, _) in plugged {
            self.pull(host, nic).await?;
        }
        if let (Some(to_second), Some(to_first)) = (self.fabric.port_of(first), self.fabric.port_of(second)) {
            self.fabric.plug(first, to_first);
            self.fabric.plug(second, to_second);
        }
        for (nic, was) in plugged {
            if was {
                self.plug(host, nic).await?;
            }
        }
        Ok(())
    }

    fn set_switch(&self, name: &str, alive: bool) -> Result<(), String> {
        for switch in &self.switches {
            let set = self.fabric.with(*switch, |core| {
                let member = core.member(name);
                if let Some(member) = member {
                    core.set_alive(member, alive);
                }
                member.is_some()
            });
            if set == Some(true) {
                return Ok(());
            }
        }
        let known: Vec<_> = self.blueprint.switches.iter().flat_map(|plan| &plan.members).cloned().collect();
        Err(format!("there is no switch '{name}': the lab has {}", known.join(", ")))
    }

    fn set_port(&self, host: &HostName, nic: usize, forwarding: bool) -> Result<(), String> {
        let (_, cable) = self.cable(host, nic)?;
        let port = self
            .fabric
            .port_of(cable)
            .ok_or_else(|| format!("NIC {nic} of '{host}' is in no switch port"))?;
        self.fabric.with(port.switch, |core| core.set_forwarding(port.port, forwarding));
        Ok(())
    }

    fn set_fallback(&self, host: &HostName, on: bool) -> Result<(), String> {
        let ports = self.rig(host)?.cables.iter().filter_map(|cable| self.fabric.port_of(*cable));
        let set = ports.filter_map(|at| {
            self.fabric.with(at.switch, |core| {
                let lag = core.config(at.port)?.lag?;
                core.set_fallback(lag, on);
                Some(())
            })?
        });
        match set.count() {
            0 => Err(format!("no NIC of '{host}' is cabled to a port of a LAG: plan its bond by LACP")),
            _ => Ok(()),
        }
    }

    async fn power(&self, host: &HostName, action: PowerAction) -> Result<(), String> {
        let appliance = self.appliance.as_ref().filter(|_| host.as_str() == APPLIANCE);
        let machine = match appliance {
            Some(appliance) => &appliance.machine,
            None => &self.rig(host)?.machine,
        };
        let done = match action {
            PowerAction::On => machine.power_on().await,
            PowerAction::Off => machine.force_off().await,
            PowerAction::Reset => machine.reset().await,
            PowerAction::Graceful => machine.graceful().await,
        };
        done.map_err(told)
    }

    fn console(&self, name: &str) -> Result<Response, String> {
        let extra =
            || held(&self.extras).iter().find(|extra| extra.name == name).map(|extra| extra.machine.clone());
        let appliance =
            || self.appliance.as_ref().filter(|_| name == APPLIANCE).map(|rig| rig.machine.clone());
        let machine = self.host(name).map(|host| host.machine.clone()).or_else(appliance).or_else(extra);
        let machine = machine.ok_or_else(|| format!("there is no machine '{name}': see 'status'"))?;
        let (tail, _) = machine.serial().tail();
        Ok(Response::Console(String::from_utf8_lossy(&tail).into_owned()))
    }

    async fn on_disk(&self, host: &HostName, work: fn(&Path) -> io::Result<()>) -> Result<(), String> {
        let machine = &self.rig(host)?.machine;
        if machine.is_on() {
            return Err(MachineError::On(host.to_string()).to_string());
        }
        machine.prepare().map_err(told)?;
        let Some(disk) = machine.spec().disk.clone() else {
            return Err(format!("host '{host}' has no disk"));
        };
        let done = tokio::task::spawn_blocking(move || work(&disk.path)).await;
        done.map_err(io::Error::other).flatten().map_err(|error| format!("the disk of '{host}': {error}"))
    }

    fn status(&self) -> LabStatus {
        let members = self.blueprint.switches.iter().zip(&self.switches).flat_map(|(plan, switch)| {
            plan.members.iter().enumerate().map(|(index, name)| SwitchStatus {
                name: name.clone(),
                alive: self.fabric.with(*switch, |core| core.is_alive(index)).unwrap_or(false),
            })
        });
        let services = held(&self.services);
        let services = services
            .iter()
            .map(|(name, child)| ServiceStatus { name: name.clone(), running: child.id.alive() });
        LabStatus {
            pid: std::process::id(),
            hosts: self.hosts.iter().map(|host| self.host_status(host)).collect(),
            switches: members.collect(),
            appliance: self.appliance.as_ref().map(|rig| ApplianceStatus {
                power: *rig.machine.power().borrow(),
                nics: self
                    .blueprint
                    .appliance
                    .iter()
                    .map(|nic| ApplianceNicStatus { mac: nic.mac, address: nic.address })
                    .collect(),
            }),
            extras: held(&self.extras).iter().map(super::Extra::status).collect(),
            services: services.collect(),
        }
    }

    fn host_status(&self, rig: &HostRig) -> HostStatus {
        let nics = rig.plan.nics.iter().zip(&rig.cables).enumerate().map(|(nic, (wire, cable))| {
            let port = self.fabric.port_of(*cable);
            let (switch, name) = port.and_then(|port| self.port_name(port)).unwrap_or_default();
            let counters = self.fabric.counters(*cable);
            NicStatus {
                mac: wire.mac,
                switch,
                port: name,
                pulled: rig.machine.is_pulled(nic),
                forwarding: match self.fabric.role(*cable) {
                    Role::Closed => Forwarding::Closed,
                    Role::Alone => Forwarding::Alone,
                    Role::Leg(_) => Forwarding::Lag,
                },
                received: counters.received,
                sent: counters.sent,
                dropped: counters.dropped,
            }
        });
        HostStatus {
            name: rig.plan.name.clone(),
            power: *rig.machine.power().borrow(),
            firmware: rig.plan.firmware,
            pxe_once: rig.machine.boot_order().once.is_some(),
            media: rig.machine.media().is_some(),
            bmc: rig.plan.bmc.address,
            nics: nics.collect(),
        }
    }

    fn port_name(&self, port: crate::switch::fabric::PortRef) -> Option<(String, String)> {
        let index = self.switches.iter().position(|switch| *switch == port.switch)?;
        self.fabric.with(port.switch, |core| {
            let config = core.config(port.port)?;
            let member = self.blueprint.switches[index].members.get(config.member?)?;
            Some((member.clone(), config.name.clone()))
        })?
    }
}

/// An empty disk of the same size.
fn wipe(disk: &Path) -> io::Result<()> {
    let file = std::fs::File::options().write(true).open(disk)?;
    let size = file.metadata()?.len();
    file.set_len(0)?;
    file.set_len(size)
}

/// An MBR with one Linux partition, and an ext4 named `customer-data` in it.
fn put_foreign_data(disk: &Path) -> io::Result<()> {
    let mut file = std::fs::File::options().write(true).open(disk)?;
    let mut entry = [0u8; 16];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&((FOREIGN_START / 512) as u32).to_le_bytes());
    entry[12..].copy_from_slice(&FOREIGN_SECTORS.to_le_bytes());
    file.seek(SeekFrom::Start(446))?;
    file.write_all(&entry)?;
    file.seek(SeekFrom::Start(510))?;
    file.write_all(&[0x55, 0xaa])?;
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "customer-data", "-E"])
        .arg(format!("offset={FOREIGN_START}"))
        .arg(disk)
        .arg(format!("{}k", FOREIGN_SECTORS / 2))
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_data_is_a_real_file_system_and_wiping_leaves_zeroes() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
        put_foreign_data(&disk).unwrap();
        let bytes = std::fs::read(&disk).unwrap();
        assert_eq!(bytes.len(), 128 << 20);
        assert_eq!(bytes[510..512], [0x55, 0xaa]);
        let superblock = FOREIGN_START as usize + 1024;
        assert_eq!(bytes[superblock + 56..superblock + 58], [0x53, 0xef]);
        assert!(bytes[superblock + 120..].starts_with(b"customer-data"));
        wipe(&disk).unwrap();
        let bytes = std::fs::read(&disk).unwrap();
        assert!(bytes.len() == 128 << 20 && bytes.iter().all(|byte| *byte == 0));
    }
}
