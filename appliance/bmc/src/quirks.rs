//! What this BMC does otherwise than the standards say. The rows are `hardware-profiles`' data; a driver asks for an
//! [`Effect`], never for a vendor's name.

pub use dayzero_profiles::{Effect, Quirks};

/// The quirks of the BMC that calls itself so.
pub fn of(manufacturer: &str, model: &str, firmware: &str) -> Quirks {
    Quirks::of(manufacturer, model, firmware)
}

/// The quirks of the BMC whose device id tells this IANA number; `name` stands in for a number that is not known.
pub fn numbered(number: Option<u32>, name: &str, firmware: &str) -> Quirks {
    Quirks::of(number.and_then(dayzero_profiles::quirks::manufacturer).unwrap_or(name), "", firmware)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_drivers_rely_on_is_in_the_rows() {
        let simulator = of("MontaVista Software, Inc.", "", "9.08");
        assert!(simulator.has(Effect::BootFlagsNeverValid));
        assert_eq!(simulator.max_password(), Some(16));
        assert!(of("Sushy Emulator", "", "").has(Effect::OnceReadsContinuous));
        let dell = of("Dell Inc.", "PowerEdge R760", "7.10");
        assert!(dell.has(Effect::SkuIsSerial));
        assert_eq!(dell.first_account_slot(), 3);
        assert_eq!(of("", "", "").rows(), []);
        // What ipmitool says of a number whose name it cannot look up.
        assert_eq!(numbered(Some(4753), "Unknown (0x1291)", "9.08"), simulator);
        assert!(numbered(Some(10876), "Super Micro Computer Inc.", "").rows().len() > 1);
        assert!(numbered(None, "Dell Inc.", "").has(Effect::SkuIsSerial));
        assert_eq!(numbered(Some(1), "NxNetworks", "").rows(), []);
    }
}
