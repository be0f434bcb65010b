//! The hosts' BMCs: started with the lab, and exchanged for one with another factory password and back.

use super::{HostRig, Lab, LabError};
use crate::bmc::{self, Addressing, BmcEmulatorSpec};
use dayzero_model::Secret;
use std::sync::Arc;

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
        };
        let chassis = Arc::new(rig.machine.clone());
        let handle = bmc::start(emulator, netns, self.processes.clone(), chassis).await?;
        *rig.bmc.lock().await = Some(handle);
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
