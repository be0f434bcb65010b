//! What particular BMCs do otherwise than the standards say, as rows. A driver asks [`Quirks`], never a vendor's name.
//!
//! `dayzero-profiles` will own the rows; the shape stays.

use crate::GuidOrder;

/// What a BMC does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The boot flags' valid bit reads 0 although they hold.
    BootFlagsNeverValid,
    /// The boot device stays after a boot: it must be cleared by us.
    BootDeviceStays,
    /// "Once" is accepted, and reads back "Continuous".
    OnceReadsContinuous,
    /// Account slots below this one are not ours to fill.
    FirstAccountSlot(u32),
    /// `SerialNumber` is the board's, `SKU` the system's.
    SkuIsSerial,
    /// Byte order of the system GUID.
    Guid(GuidOrder),
    /// Longest password that really works, whatever the BMC says.
    MaxPassword(u32),
    /// A password needs a special character.
    NeedsSpecial,
}

/// One row: all given patterns must match, ASCII case aside. A pattern is a prefix.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Prefix of the manufacturer's name.
    pub manufacturer: &'static str,
    /// Prefix of the model; empty is any.
    pub model: &'static str,
    /// Prefix of the BMC's firmware; empty is any.
    pub firmware: &'static str,
    /// What it does.
    pub effect: Effect,
    /// Where this is known from.
    pub source: &'static str,
}

const fn row(manufacturer: &'static str, effect: Effect, source: &'static str) -> Row {
    Row { manufacturer, model: "", firmware: "", effect, source }
}

/// The rows.
pub const ROWS: &[Row] = &[
    row("MontaVista", Effect::BootFlagsNeverValid, "OpenIPMI ipmi_sim 2.0.33, observed"),
    row("MontaVista", Effect::BootDeviceStays, "OpenIPMI ipmi_sim 2.0.33: its chassis program must clear it"),
    row(
        "MontaVista",
        Effect::MaxPassword(16),
        "OpenIPMI ipmi_sim 2.0.33: a longer one is stored, and never matches",
    ),
    row("Sushy", Effect::OnceReadsContinuous, "sushy-tools 2.2.0, observed"),
    row("Sushy", Effect::BootDeviceStays, "sushy-tools 2.2.0, observed"),
    row("Dell", Effect::FirstAccountSlot(3), "iDRAC: slot 1 is reserved, slot 2 is root"),
    row("Dell", Effect::SkuIsSerial, "iDRAC: SKU is the service tag, SerialNumber the board's"),
    row("Supermicro", Effect::MaxPassword(20), "Supermicro: MaxPasswordLength 20 in AccountService"),
    row("HPE", Effect::MaxPassword(39), "iLO 5 Redfish reference: 8 to 39 characters"),
    row("Lenovo", Effect::NeedsSpecial, "XCC complexity rules on by default"),
];

/// The quirks of one BMC.
#[derive(Clone, Debug, Default)]
pub struct Quirks(Vec<Effect>);

impl Quirks {
    /// Those that match.
    pub fn of(manufacturer: &str, model: &str, firmware: &str) -> Self {
        let starts = |text: &str, prefix: &str| {
            text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let matching = ROWS.iter().filter(|row| {
            starts(manufacturer, row.manufacturer)
                && starts(model, row.model)
                && starts(firmware, row.firmware)
        });
        Self(matching.map(|row| row.effect).collect())
    }

    /// Whether the BMC does that.
    pub fn has(&self, effect: Effect) -> bool {
        self.0.contains(&effect)
    }

    /// First account slot that may be filled.
    pub fn first_account_slot(&self) -> u32 {
        self.find(|e| if let Effect::FirstAccountSlot(slot) = e { Some(*slot) } else { None }).unwrap_or(2)
    }

    /// Byte order of the system GUID.
    pub fn guid_order(&self) -> GuidOrder {
        self.find(|e| if let Effect::Guid(order) = e { Some(*order) } else { None })
            .unwrap_or(GuidOrder::Smbios)
    }

    /// Longest password, where it is known better than the BMC says.
    pub fn max_password(&self) -> Option<u32> {
        self.find(|e| if let Effect::MaxPassword(length) = e { Some(*length) } else { None })
    }

    fn find<T>(&self, pick: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(pick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_match_by_prefix_in_any_case_and_not_beyond() {
        let dell = Quirks::of("DELL Inc.", "PowerEdge R760", "7.10");
        assert!(dell.has(Effect::SkuIsSerial));
        assert_eq!(dell.first_account_slot(), 3);
        let none = Quirks::of("Delta", "x", "");
        assert!(!none.has(Effect::SkuIsSerial));
        assert_eq!(none.first_account_slot(), 2);
        assert!(Quirks::of("", "", "").0.is_empty());
    }
}
