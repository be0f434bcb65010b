//! The hosts' BMCs: started with the lab, and exchanged for one with another factory password and back.

use super::{HostRig, Lab, LabError};
use crate::bmc::{self, Addressing, BmcEmulatorSpec};
use crate::protocol::{BmcSecret, HostSecrets, SecretKind};
use dayzero_model::Secret;
use dayzero_model::site::BmcProtocol;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Lab {
    /// Starts a host's BMC, if its factory account was given: the planned one, or one with another password.
    pub(super) async fn start_bmc(&self, rig: &HostRig, wrong: bool) -> Result<(), LabError> {
        let plan = &rig.plan;
        let Some(account) = self.options.factory.get(&plan.bmc.credential) else { return Ok(()) };
        let Some(netns) = self.namespace(&plan.bmc_namespace) else { return Ok(()) };
        let spec = rig.machine.spec();
        let (dir, password) = if wrong {
            // Nobody is to know it; what the machine is, no more.
            ("bmc-other", Secret::new(format!("{:032x}", rand::random::<u128>())))
        } else {
            ("bmc", account.password.clone())
        };
        let emulator = BmcEmulatorSpec {
            name: format!("bmc-{}", plan.name),
            protocol: plan.bmc.protocol,
            interface: "eth0".into(),
            mac: plan.bmc.mac,
            addressing: Addressing::Dhcp,
            dir: spec.dir.join(dir),
            user: account.user.clone(),
            password,
            identity: spec.identity.clone(),
            nic_macs: plan.nics.iter().map(|nic| nic.mac).collect(),
            firmware: plan.firmware,
            ledger: rig.ledger.clone(),
            stale_media: rig.stale_media.clone(),
        };
        let chassis = Arc::new(rig.machine.clone());
        let handle = bmc::start(emulator, netns, self.processes.clone(), chassis).await?;
        *rig.bmc.lock().await = Some(handle);
        Ok(())
    }

    /// What the BMCs were entrusted with, and the passwords that they hold now.
    pub(super) fn secrets(&self) -> Result<Vec<HostSecrets>, String> {
        let of = |rig: &HostRig| {
            let mut secrets = rig.ledger.entries();
            let dir = rig.machine.spec().dir.join("bmc");
            let held = bmc::ipmi_passwords(&dir, &format!("bmc-{}", rig.plan.name))
                .map_err(|error| format!("the accounts of the BMC of '{}': {error}", rig.plan.name))?;
            secrets.extend(held.into_iter().map(|value| BmcSecret { kind: SecretKind::Password, value }));
            Ok(HostSecrets { host: rig.plan.name.clone(), secrets })
        };
        self.hosts.iter().map(of).collect()
    }

    /// The next media of a host's BMC carry another nonce, or what was fetched.
    pub(super) fn stale_media(&self, rig: &HostRig, stale: bool) -> Result<(), String> {
        if rig.plan.bmc.protocol != BmcProtocol::Redfish {
            return Err(format!(
                "the BMC of '{}' has no virtual drive: name a host with Redfish",
                rig.plan.name
            ));
        }
        rig.stale_media.store(stale, Ordering::Relaxed);
        Ok(())
    }

    /// Exchanges a host's BMC.
    pub(super) async fn wrong_password(&self, rig: &HostRig, wrong: bool) -> Result<(), String> {
        let before = rig.bmc.lock().await.take();
        let before = before
            .ok_or_else(|| format!("host '{}' has no BMC: the lab got no factory account", rig.plan.name))?;
        before.stop().await;
        self.start_bmc(rig, wrong).await.map_err(|error| error.to_string())
    }
}
