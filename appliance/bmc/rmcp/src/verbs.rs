//! Chassis, boot device, identity. Check, write once, read back.

use crate::RmcpError;
use crate::parse::{self, BootDevice, BootFlags, Fru, LanInfo, McInfo};
use crate::tool::Ipmi;

/// What `chassis power` can do (IPMI 2.0, 28.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCommand {
    /// Power up.
    On,
    /// Power down at once.
    Off,
    /// Power down, a pause, power up.
    Cycle,
    /// Hard reset.
    Reset,
    /// Ask the operating system by ACPI.
    Soft,
}

impl PowerCommand {
    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
            Self::Reset => "reset",
            Self::Soft => "soft",
        }
    }
}

impl Ipmi {
    /// Whether the chassis is on.
    pub async fn power(&self) -> Result<bool, RmcpError> {
        parse::power(&self.run(&["chassis", "power", "status"]).await?)
    }

    /// Changes the power. Done when the BMC has accepted it; the state follows within seconds.
    pub async fn set_power(&self, command: PowerCommand) -> Result<(), RmcpError> {
        self.run(&["chassis", "power", command.word()]).await.map(|_| ())
    }

    /// Sets the device of the next boot alone and reads it back. The BMC forgets it 60 s later unless the host is started
    /// (IPMI 2.0, 28.12). `efi` is asked for; some BMCs do not keep it, which the answer shows.
    ///
    /// # Errors
    /// [`RmcpError::ReadBack`] when another device reads back.
    pub async fn set_boot_once(&self, device: BootDevice, efi: bool) -> Result<BootFlags, RmcpError> {
        let mut args = vec!["chassis", "bootdev", device.word()];
        if efi && device != BootDevice::None {
            args.push("options=efiboot");
        }
        self.run(&args).await?;
        let flags = self.boot_flags().await?;
        if flags.device == device && !flags.persistent {
            return Ok(flags);
        }
        let (wanted, observed) = (format!("{device:?} once"), format!("{flags:?}"));
        Err(RmcpError::ReadBack { what: "boot device", wanted, observed })
    }

    /// The boot flags as they are.
    pub async fn boot_flags(&self) -> Result<BootFlags, RmcpError> {
        parse::boot_flags(&self.run(&["raw", "0x00", "0x09", "0x05", "0x00", "0x00"]).await?)
    }

    /// The FRU of the BMC. A BMC without one gives blank fields.
    pub async fn fru(&self) -> Result<Fru, RmcpError> {
        match self.run(&["fru", "print", "0"]).await {
            Ok(text) => Ok(parse::fru(&text)),
            Err(RmcpError::Command { .. }) => Ok(Fru::default()),
            Err(other) => Err(other),
        }
    }

    /// The controller.
    pub async fn mc_info(&self) -> Result<McInfo, RmcpError> {
        Ok(parse::mc_info(&self.run(&["mc", "info"]).await?))
    }

    /// The 16 bytes of Get System GUID, as sent: their order is the vendor's. None where the BMC has none.
    pub async fn system_guid(&self) -> Result<Option<[u8; 16]>, RmcpError> {
        match self.run(&["raw", "0x06", "0x37"]).await {
            Ok(text) => Ok(parse::raw("get system GUID", &text, 16)?.try_into().ok()),
            Err(RmcpError::Command { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Addresses of the LAN channel.
    pub async fn lan(&self) -> Result<LanInfo, RmcpError> {
        let channel = self.channel.to_string();
        Ok(parse::lan(&self.run(&["lan", "print", &channel]).await?))
    }
}
