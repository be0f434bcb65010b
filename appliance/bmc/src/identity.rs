//! Who a BMC says that it and its host are.

use dayzero_model::site::BmcProtocol;
use dayzero_model::{MacAddr, Sha256};
use serde::{Deserialize, Serialize};

/// A BMC's answer to "who are you?". An identity is a set: each member may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcIdentity {
    /// Protocol that it was read by.
    pub protocol: BmcProtocol,
    /// Leaf certificate (Redfish): the pin for later connections.
    pub certificate: Option<Sha256>,
    /// System manufacturer.
    pub manufacturer: Option<String>,
    /// System model.
    pub model: Option<String>,
    /// System serial, as on the label.
    pub serial: Option<String>,
    /// Board serial.
    pub board_serial: Option<String>,
    /// System UUID in the order that `/sys/class/dmi/id/product_uuid` shows, lower case.
    pub uuid: Option<String>,
    /// The BMC's own MAC.
    pub bmc_mac: Option<MacAddr>,
    /// MACs of the host's NICs that it knows.
    pub nic_macs: Vec<MacAddr>,
    /// The BMC's firmware.
    pub bmc_firmware: Option<String>,
    /// The host's firmware.
    pub bios_version: Option<String>,
}

/// In which order a BMC sends the 16 bytes of its system GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuidOrder {
    /// As SMBIOS stores it (first three fields little-endian): nearly all BMCs.
    Smbios,
    /// As RFC 4122 writes it.
    Rfc4122,
    /// Wholly reversed, as IPMI 2.0 table 20-10 asks for.
    Ipmi,
}

/// A GUID as `product_uuid` shows it. All zeros and all ones are no identity.
pub fn guid_text(bytes: [u8; 16], order: GuidOrder) -> Option<String> {
    if bytes == [0; 16] || bytes == [0xff; 16] {
        return None;
    }
    let mut b = bytes;
    match order {
        GuidOrder::Rfc4122 => {}
        GuidOrder::Ipmi => b.reverse(),
        GuidOrder::Smbios => {
            b[0..4].reverse();
            b[4..6].reverse();
            b[6..8].reverse();
        }
    }
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uuid_in_three_orders() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let rfc: [u8; 16] = std::array::from_fn(|i| (i * 0x11) as u8);
        let smbios =
            [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        let mut ipmi = rfc;
        ipmi.reverse();
        assert_eq!(guid_text(rfc, GuidOrder::Rfc4122).as_deref(), Some(text));
        assert_eq!(guid_text(smbios, GuidOrder::Smbios).as_deref(), Some(text));
        assert_eq!(guid_text(ipmi, GuidOrder::Ipmi).as_deref(), Some(text));
        assert_eq!(guid_text([0; 16], GuidOrder::Smbios), None);
        assert_eq!(guid_text([0xff; 16], GuidOrder::Smbios), None);
    }
}
