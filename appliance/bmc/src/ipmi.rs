//! The IPMI driver.

use crate::lane::Lane;
use crate::quirks::{self, Effect, Quirks};
use crate::{
    AccountPolicy, Alphabet, Bmc, BmcError, BmcIdentity, BootOverride, BootTarget, Console, Credential,
    Lasting, PowerAction, PowerState, VouchChannel, guid_text,
};
use async_trait::async_trait;
use dayzero_model::inventory::BootMode;
use dayzero_model::site::BmcProtocol;
use dayzero_model::{MacAddr, Secret};
use dayzero_rmcp::{BootDevice, BootFlags, Ipmi, Login, MAX_PASSWORD, PowerCommand, SolSession};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a power change may take to read so.
const POWER_SETTLE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);
const MIN_PASSWORD: u32 = 8;

/// A BMC behind IPMI.
pub(crate) struct IpmiBmc {
    ipmi: Ipmi,
    quirks: Quirks,
    firmware: Option<String>,
    lane: Lane,
}

impl IpmiBmc {
    pub(crate) async fn connect(
        address: SocketAddr,
        credential: &Credential,
        lane: Lane,
    ) -> Result<Self, BmcError> {
        let _turn = lane.turn().await;
        let login = Login::new(credential.user.as_str(), credential.password.expose().as_str());
        let ipmi = Ipmi::new(address, login);
        let mc = ipmi.mc_info().await?;
        let firmware = mc.firmware.clone();
        let manufacturer = mc.manufacturer.unwrap_or_default();
        let quirks =
            quirks::numbered(mc.manufacturer_id, &manufacturer, firmware.as_deref().unwrap_or_default());
        Ok(Self { ipmi, quirks, firmware, lane: lane.clone() })
    }

    async fn wait_for_power(&self, on: bool) -> Result<(), BmcError> {
        let deadline = tokio::time::Instant::now() + POWER_SETTLE;
        while self.ipmi.power().await? != on {
            if tokio::time::Instant::now() >= deadline {
                let word = |on| if on { "on" } else { "off" }.to_owned();
                return Err(BmcError::ReadBack {
                    what: "power".into(),
                    wanted: word(on),
                    observed: word(!on),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn boot_override_of(&self, flags: BootFlags) -> BootOverride {
        let target = match flags.device {
            BootDevice::None => BootTarget::None,
            BootDevice::Pxe => BootTarget::Pxe,
            BootDevice::Disk => BootTarget::Disk,
            BootDevice::Cdrom => BootTarget::Cd,
            BootDevice::Setup => BootTarget::Setup,
            BootDevice::Other(_) => BootTarget::Other,
        };
        let holds = flags.valid || self.quirks.has(Effect::BootFlagsNeverValid);
        let lasting = match (target, holds) {
            (BootTarget::None, _) | (_, false) => Lasting::Disabled,
            _ if flags.persistent => Lasting::Continuous,
            _ => Lasting::Once,
        };
        let mode = Some(if flags.efi { BootMode::Uefi } else { BootMode::Bios })
            .filter(|_| lasting != Lasting::Disabled);
        let valid = if flags.valid { "valid" } else { "not valid" };
        let firmware = if flags.efi { "EFI" } else { "legacy" };
        BootOverride { target, lasting, mode, observed: format!("{:?}, {firmware}, {valid}", flags.device) }
    }
}

fn device(target: BootTarget) -> Result<BootDevice, BmcError> {
    match target {
        BootTarget::None => Ok(BootDevice::None),
        BootTarget::Pxe => Ok(BootDevice::Pxe),
        BootTarget::Disk => Ok(BootDevice::Disk),
        BootTarget::Cd => Ok(BootDevice::Cdrom),
        BootTarget::Setup => Ok(BootDevice::Setup),
        BootTarget::Other => Err(BmcError::Unsupported { what: "boot target 'other'".into() }),
    }
}

#[async_trait]
impl Bmc for IpmiBmc {
    fn protocol(&self) -> BmcProtocol {
        BmcProtocol::Ipmi
    }

    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        let _turn = self.lane.turn().await;
        let fru = self.ipmi.fru().await?;
        let guid = self.ipmi.system_guid().await?;
        let lan = self.ipmi.lan().await?;
        let bmc_mac: Option<MacAddr> = lan.mac.and_then(|mac| mac.parse().ok());
        Ok(BmcIdentity {
            protocol: BmcProtocol::Ipmi,
            certificate: None,
            manufacturer: fru.manufacturer,
            model: fru.product.or(fru.part),
            serial: fru.serial.or(fru.chassis_serial),
            board_serial: fru.board_serial,
            uuid: guid.and_then(|bytes| guid_text(bytes, crate::GuidOrder::Smbios)),
            bmc_mac,
            nic_macs: Vec::new(),
            bmc_firmware: self.firmware.clone(),
            bios_version: None,
        })
    }

    async fn power(&self) -> Result<PowerState, BmcError> {
        let _turn = self.lane.turn().await;
        Ok(if self.ipmi.power().await? { PowerState::On } else { PowerState::Off })
    }

    async fn set_power(&self, action: PowerAction) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let on = self.ipmi.power().await?;
        match action {
            PowerAction::On if on => Ok(()),
            PowerAction::ForceOff if !on => Ok(()),
            PowerAction::On => {
                self.ipmi.set_power(PowerCommand::On).await?;
                self.wait_for_power(true).await
            }
            PowerAction::ForceOff => {
                self.ipmi.set_power(PowerCommand::Off).await?;
                self.wait_for_power(false).await
            }
            PowerAction::GracefulOff => Ok(self.ipmi.set_power(PowerCommand::Soft).await?),
            PowerAction::Reset => Ok(self.ipmi.set_power(PowerCommand::Reset).await?),
            PowerAction::Cycle => Ok(self.ipmi.set_power(PowerCommand::Cycle).await?),
        }
    }

    async fn set_boot_once(
        &self,
        target: BootTarget,
        mode: Option<BootMode>,
    ) -> Result<BootOverride, BmcError> {
        let _turn = self.lane.turn().await;
        let flags = self.ipmi.set_boot_once(device(target)?, mode == Some(BootMode::Uefi)).await?;
        let observed = self.boot_override_of(flags);
        if target == BootTarget::None || observed.boots(target) {
            return Ok(observed);
        }
        let (wanted, observed) = (format!("{target:?} once"), observed.observed);
        Err(BmcError::ReadBack { what: "boot device".into(), wanted, observed })
    }

    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        let _turn = self.lane.turn().await;
        Ok(self.boot_override_of(self.ipmi.boot_flags().await?))
    }

    async fn boot_order(&self) -> Result<Vec<String>, BmcError> {
        Ok(Vec::new())
    }

    async fn account_policy(&self) -> Result<AccountPolicy, BmcError> {
        let longest = u32::try_from(MAX_PASSWORD).unwrap_or(MIN_PASSWORD);
        let max_length = self.quirks.max_password().map_or(longest, |known| known.min(longest));
        let special = self.quirks.has(Effect::NeedsSpecial);
        let alphabet = if special { Alphabet::WithSpecial } else { Alphabet::Alphanumeric };
        Ok(AccountPolicy { min_length: MIN_PASSWORD, max_length, alphabet })
    }

    async fn create_or_set_account(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        self.ipmi.put_user(&Login::new(name, password.expose().as_str())).await?;
        Ok(())
    }

    async fn try_login(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError> {
        let _turn = self.lane.turn().await;
        let other = self.ipmi.with_login(Login::new(name, password.expose().as_str()));
        other.power().await?;
        Ok(())
    }

    async fn disable_account(&self, name: &str) -> Result<(), BmcError> {
        if self.ipmi.user() == name {
            return Err(BmcError::OwnAccount { user: name.to_owned() });
        }
        let _turn = self.lane.turn().await;
        Ok(self.ipmi.disable_user(name).await?)
    }

    async fn vouch_channel(&self) -> Result<VouchChannel, BmcError> {
        Ok(VouchChannel::SerialOverLan)
    }

    async fn insert_media(&self, _url: &Secret<String>) -> Result<(), BmcError> {
        Err(BmcError::Unsupported { what: "virtual media by IPMI".into() })
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        Ok(())
    }

    async fn open_sol(&self) -> Result<Box<dyn Console>, BmcError> {
        let _turn = self.lane.turn().await;
        Ok(Box::new(SolConsole(self.ipmi.open_sol().await?)))
    }

    async fn close(&self) {}
}

struct SolConsole(SolSession);

#[async_trait]
impl Console for SolConsole {
    async fn next_line(&mut self) -> Result<Option<String>, BmcError> {
        Ok(self.0.next_line().await?)
    }

    async fn write_line(&mut self, line: &str) -> Result<(), BmcError> {
        Ok(self.0.write_line(line).await?)
    }

    async fn close(self: Box<Self>) {
        self.0.close().await;
    }
}
