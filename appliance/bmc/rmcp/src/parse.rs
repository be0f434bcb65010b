//! Reading `ipmitool`'s answers: pure functions over its text, and over the raw bytes where its text loses something.

use crate::RmcpError;
use std::collections::BTreeMap;

fn not_understood(what: &str, text: &str) -> RmcpError {
    let observed = text.chars().filter(|c| !c.is_control()).take(120).collect();
    RmcpError::Answer { what: what.to_owned(), observed }
}

/// `Key : Value` lines, trimmed; blank values are left out. The first of a key wins: FRU 0 stands before other devices.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    let mut map = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if !key.trim().is_empty() && !value.trim().is_empty() {
            map.entry(key.trim()).or_insert(value.trim());
        }
    }
    map
}

/// Hex bytes of a `raw` answer.
pub(crate) fn raw(what: &str, text: &str, at_least: usize) -> Result<Vec<u8>, RmcpError> {
    let bytes: Option<Vec<u8>> = text.split_whitespace().map(|b| u8::from_str_radix(b, 16).ok()).collect();
    bytes.filter(|b| b.len() >= at_least).ok_or_else(|| not_understood(what, text))
}

/// `chassis power status`.
pub(crate) fn power(text: &str) -> Result<bool, RmcpError> {
    match text.trim().rsplit(' ').next() {
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        _ => Err(not_understood("chassis power status", text)),
    }
}

/// The FRU of the BMC (device 0), IPMI Platform Management FRU Information v1.3. Blank fields are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fru {
    /// Product manufacturer, else the board's.
    pub manufacturer: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Product part number.
    pub part: Option<String>,
    /// Product serial.
    pub serial: Option<String>,
    /// Board serial.
    pub board_serial: Option<String>,
    /// Chassis serial.
    pub chassis_serial: Option<String>,
}

pub(crate) fn fru(text: &str) -> Fru {
    let fields = fields(text);
    let get = |key: &str| fields.get(key).map(|v| (*v).to_owned());
    Fru {
        manufacturer: get("Product Manufacturer").or_else(|| get("Board Mfg")),
        product: get("Product Name"),
        part: get("Product Part Number"),
        serial: get("Product Serial"),
        board_serial: get("Board Serial"),
        chassis_serial: get("Chassis Serial"),
    }
}

/// `mc info`: the controller itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McInfo {
    /// Firmware revision, such as `9.08`.
    pub firmware: Option<String>,
    /// IANA number of the maker.
    pub manufacturer_id: Option<u32>,
    /// Name of the maker, as `ipmitool` knows it.
    pub manufacturer: Option<String>,
    /// Product number.
    pub product_id: Option<u32>,
}

pub(crate) fn mc_info(text: &str) -> McInfo {
    let fields = fields(text);
    let number =
        |key: &str| fields.get(key).and_then(|v| v.split_whitespace().next()).and_then(|v| v.parse().ok());
    McInfo {
        firmware: fields.get("Firmware Revision").map(|v| (*v).to_owned()),
        manufacturer_id: number("Manufacturer ID"),
        manufacturer: fields.get("Manufacturer Name").map(|v| (*v).to_owned()),
        product_id: number("Product ID"),
    }
}

/// `lan print`: the addresses of the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanInfo {
    /// MAC address as text; none where it is all zero.
    pub mac: Option<String>,
    /// IPv4 address as text; none where it is 0.0.0.0.
    pub ip: Option<String>,
    /// Where the address is from, such as `DHCP Address`.
    pub source: Option<String>,
}

pub(crate) fn lan(text: &str) -> LanInfo {
    let fields = fields(text);
    let get = |key: &str, blank: &str| fields.get(key).filter(|v| **v != blank).map(|v| (*v).to_owned());
    LanInfo {
        mac: get("MAC Address", "00:00:00:00:00:00"),
        ip: get("IP Address", "0.0.0.0"),
        source: get("IP Address Source", ""),
    }
}

/// A row of `user list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Slot, from 1; slot 1 is the anonymous user (IPMI 2.0, 22.28).
    pub id: u8,
    /// Name; empty in a free slot.
    pub name: String,
    /// IPMI messaging is allowed on the channel.
    pub messaging: bool,
    /// Privilege limit as text, such as `ADMINISTRATOR`.
    pub privilege: String,
}

/// Rows are `ID Name Callin LinkAuth IPMIMsg Privilege`; the name may be empty or have spaces, the privilege too.
pub(crate) fn users(text: &str) -> Vec<User> {
    text.lines().filter_map(user_row).collect()
}

fn user_row(line: &str) -> Option<User> {
    let (id, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let id = id.parse().ok()?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let is_bool = |w: &&str| matches!(*w, "true" | "false");
    // The last run of three booleans is the flags: a name of "true true true" is still told apart.
    let flags = (0..words.len().saturating_sub(3)).rev().find(|i| words[*i..i + 3].iter().all(is_bool))?;
    Some(User {
        id,
        name: words[..flags].join(" "),
        messaging: words[flags + 2] == "true",
        privilege: words[flags + 3..].join(" "),
    })
}

/// A boot device selector (IPMI 2.0, table 28-14, parameter 5, data 2 bits 5:2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// No override.
    None,
    /// PXE.
    Pxe,
    /// Default hard disk.
    Disk,
    /// CD or DVD.
    Cdrom,
    /// BIOS setup.
    Setup,
    /// Another selector, by its number.
    Other(u8),
}

impl BootDevice {
    /// The word that `chassis bootdev` takes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pxe => "pxe",
            Self::Disk => "disk",
            Self::Cdrom => "cdrom",
            Self::Setup => "bios",
            Self::None | Self::Other(_) => "none",
        }
    }
}

/// Boot flags as they read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootFlags {
    /// Data 1, bit 7: the flags count. Some BMCs never show it.
    pub valid: bool,
    /// Data 1, bit 6: for all boots, not the next one alone.
    pub persistent: bool,
    /// Data 1, bit 5: boot by EFI.
    pub efi: bool,
    /// The selector.
    pub device: BootDevice,
}

/// Parameter 5 in the answer to Get System Boot Options: version, parameter, five data bytes.
pub(crate) fn boot_flags(text: &str) -> Result<BootFlags, RmcpError> {
    let what = "get boot option 5";
    let bytes = raw(what, text, 4)?;
    if bytes[1] & 0x7f != 5 {
        return Err(not_understood(what, text));
    }
    let device = match (bytes[3] >> 2) & 0xf {
        0 => BootDevice::None,
        1 => BootDevice::Pxe,
        2 => BootDevice::Disk,
        5 => BootDevice::Cdrom,
        6 => BootDevice::Setup,
        other => BootDevice::Other(other),
    };
    Ok(BootFlags {
        valid: bytes[2] & 0x80 != 0,
        persistent: bytes[2] & 0x40 != 0,
        efi: bytes[2] & 0x20 != 0,
        device,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "ID  Name\t     Callin  Link Auth\tIPMI Msg   Channel Priv Limit\n\
        1                    true    false      false      USER\n\
        2   ADMIN            true    false      true       ADMINISTRATOR\n\
        3   a user           false   false      true       NO ACCESS\n\
        4   true             true    true       true       Unknown (0x00)\n";

    #[test]
    fn users_with_empty_spaced_and_odd_names() {
        let rows: Vec<(u8, String, bool, String)> =
            users(USERS).into_iter().map(|u| (u.id, u.name, u.messaging, u.privilege)).collect();
        let row = |id, name: &str, messaging, privilege: &str| {
            (id, name.to_owned(), messaging, privilege.to_owned())
        };
        assert_eq!(
            rows,
            [
                row(1, "", false, "USER"),
                row(2, "ADMIN", true, "ADMINISTRATOR"),
                row(3, "a user", true, "NO ACCESS"),
                row(4, "true", true, "Unknown (0x00)"),
            ]
        );
    }

    #[test]
    fn boot_flags_of_the_standard() {
        let flags = |text| boot_flags(text).unwrap();
        let pxe = BootFlags { valid: true, persistent: false, efi: true, device: BootDevice::Pxe };
        assert_eq!(flags(" 01 05 a0 04 00 00 00\n"), pxe);
        assert_eq!(flags("01 05 00 04 00 00 00"), BootFlags { valid: false, efi: false, ..pxe });
        assert_eq!(flags("01 05 c0 08 00 00 00").device, BootDevice::Disk);
        assert!(boot_flags("01 04 80 04").is_err(), "another parameter");
        assert!(boot_flags("01 05").is_err(), "cut short");
        assert!(boot_flags("Error").is_err());
    }

    #[test]
    fn fru_lan_and_controller() {
        let text = " Board Mfg             : Dayzero\n Board Serial          : BSN0001\n Product Manufacturer  : Acme: GmbH\n \
                    Product Serial        : SN0001\n Product Serial        : second device\n Product Part Number   : \n";
        let read = fru(text);
        assert_eq!(read.manufacturer.as_deref(), Some("Acme: GmbH"));
        assert_eq!((read.serial.as_deref(), read.part), (Some("SN0001"), None));
        assert_eq!(read.board_serial.as_deref(), Some("BSN0001"));
        let address = lan(
            "IP Address Source       : DHCP Address\nMAC Address             : 52:54:00:77:09:0b\nIP Address : 0.0.0.0\n",
        );
        assert_eq!((address.mac.as_deref(), address.ip), (Some("52:54:00:77:09:0b"), None));
        let mc = mc_info(
            "Firmware Revision         : 9.08\nManufacturer ID           : 4753\nProduct ID   : 3842 (0x0f02)\n",
        );
        assert_eq!(
            (mc.firmware.as_deref(), mc.manufacturer_id, mc.product_id),
            (Some("9.08"), Some(4753), Some(3842))
        );
        assert!(power("Chassis Power is on\n").unwrap());
        assert!(!power("Chassis Power is off\n").unwrap());
        assert!(power("").is_err());
    }
}
