//! What a BMC is soldered to: the host's power, boot device, drive and serial line.

use crate::machine::{BootSource, Machine, MachineError};
use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;
use tokio::sync::broadcast;

/// The host did not do what its BMC asked for: the words for the BMC's answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ChassisError(pub String);

impl From<MachineError> for ChassisError {
    fn from(error: MachineError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(text)
    }
}

/// One host, as its BMC sees it.
#[async_trait]
pub trait Chassis: Send + Sync {
    /// Whether it is on.
    fn is_on(&self) -> bool;
    /// Whether a NIC of it has a link.
    fn has_link(&self, nic: usize) -> bool;
    /// Powers it on; nothing where it is on.
    async fn power_on(&self) -> Result<(), ChassisError>;
    /// Cuts its power; nothing where it is off.
    async fn force_off(&self) -> Result<(), ChassisError>;
    /// Resets it.
    async fn reset(&self) -> Result<(), ChassisError>;
    /// Presses its power button.
    async fn graceful(&self) -> Result<(), ChassisError>;
    /// Whether the next boot goes to the network; false again once that boot began.
    fn pxe_armed(&self) -> bool;
    /// Arms or disarms a network boot.
    async fn arm_pxe(&self, armed: bool) -> Result<(), ChassisError>;
    /// The lasting boot order that its firmware keeps: number and description of each entry. Empty = it tells none.
    fn firmware_order(&self) -> Vec<(u16, String)>;
    /// Puts an image into its virtual drive.
    async fn insert_media(&self, path: &Path) -> Result<(), ChassisError>;
    /// Takes it out.
    async fn eject_media(&self) -> Result<(), ChassisError>;
    /// Output of its serial line from now on.
    fn console(&self) -> broadcast::Receiver<Bytes>;
    /// Input of its serial line; lost while it is off, as on a wire.
    async fn type_in(&self, input: Bytes);
}

#[async_trait]
impl Chassis for Machine {
    fn is_on(&self) -> bool {
        Machine::is_on(self)
    }
    fn has_link(&self, nic: usize) -> bool {
        Machine::is_on(self) && !self.is_pulled(nic)
    }
    async fn power_on(&self) -> Result<(), ChassisError> {
        Ok(Machine::power_on(self).await?)
    }
    async fn force_off(&self) -> Result<(), ChassisError> {
        Ok(Machine::force_off(self).await?)
    }
    async fn reset(&self) -> Result<(), ChassisError> {
        Ok(Machine::reset(self).await?)
    }
    async fn graceful(&self) -> Result<(), ChassisError> {
        Ok(Machine::graceful(self).await?)
    }
    fn pxe_armed(&self) -> bool {
        self.boot_order().once == Some(BootSource::Pxe)
    }
    async fn arm_pxe(&self, armed: bool) -> Result<(), ChassisError> {
        if armed { Ok(self.set_once_pxe().await?) } else { Ok(self.clear_once().await?) }
    }
    fn firmware_order(&self) -> Vec<(u16, String)> {
        Machine::firmware_order(self)
    }
    async fn insert_media(&self, path: &Path) -> Result<(), ChassisError> {
        Ok(Machine::insert_media(self, path).await?)
    }
    async fn eject_media(&self) -> Result<(), ChassisError> {
        Ok(Machine::eject_media(self).await?)
    }
    fn console(&self) -> broadcast::Receiver<Bytes> {
        self.serial().subscribe()
    }
    async fn type_in(&self, input: Bytes) {
        let _nobody_reads = self.serial().write(input).await;
    }
}
