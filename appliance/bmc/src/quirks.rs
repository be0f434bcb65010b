//! What this BMC does otherwise than the standards say. The rows are `hardware-profiles`' data; a driver asks for an
//! [`Effect`], never for a vendor's name.

pub use dayzero_profiles::{Effect, Quirks};

use dayzero_profiles::quirks::{Row, built_in};
use std::sync::LazyLock;

/// The rows, and what the drivers' own tests have found since.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let found = Row {
        manufacturer: "MontaVista".into(),
        model: String::new(),
        firmware: String::new(),
        effect: Effect::MaxPassword(16),
        source: "OpenIPMI ipmi_sim 2.0.33, observed: a longer password is stored, and never matches".into(),
    };
    let known =
        built_in().iter().any(|row| row.manufacturer == found.manufacturer && row.effect == found.effect);
    built_in().iter().cloned().chain((!known).then_some(found)).collect()
});

/// The quirks of the BMC that calls itself so.
pub fn of(manufacturer: &str, model: &str, firmware: &str) -> Quirks {
    Quirks::among(&ROWS, manufacturer, model, firmware)
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
    }
}
