//! What particular BMCs do otherwise than the standards say: the rows of `bmc-quirks.toml`, embedded or of a file.
//!
//! Invariants: a driver asks for an [`Effect`], never for a vendor's name; every row says where it is known from.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The rows that come with Dayzero.
const BUILT_IN: &str = include_str!("../bmc-quirks.toml");

/// What a BMC does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "effect", content = "value")]
pub enum Effect {
    /// The boot flags' valid bit reads 0 although they hold.
    BootFlagsNeverValid,
    /// The boot device stays after a boot: it must be cleared by us.
    BootDeviceStays,
    /// The efiboot flag of the boot flags is not kept.
    DropsEfiboot,
    /// The RMCP+ cipher suite to use.
    CipherSuite(u32),
    /// "Once" is accepted, and reads back "Continuous".
    OnceReadsContinuous,
    /// Any reset type is answered with success: the power state must be read back.
    AcceptsAnyReset,
    /// No sessions, accounts, events: basic authentication, no rotation.
    NoSessionService,
    /// Account slots below this one are not ours to fill.
    FirstAccountSlot(u32),
    /// `SerialNumber` is the board's, `SKU` the system's.
    SkuIsSerial,
    /// An action must not carry If-Match.
    NoIfMatchOnActions,
    /// `BootSourceOverrideMode` must be in the same PATCH as the target, where it is advertised.
    BootModeNeeded,
    /// `BootSourceOverrideMode` must not be in the PATCH.
    BootModeRefused,
    /// Longest password that really works, whatever the BMC says.
    MaxPassword(u32),
    /// A password needs a special character.
    NeedsSpecial,
}

/// One row: all given texts must be prefixes, ASCII case aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Prefix of the manufacturer's name.
    pub manufacturer: String,
    /// Prefix of the model; empty is any.
    pub model: String,
    /// Prefix of the BMC's firmware version; empty is any.
    pub firmware: String,
    /// What it does.
    #[serde(flatten)]
    pub effect: Effect,
    /// Where this is known from.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    schema: u32,
    #[serde(default)]
    manufacturers: BTreeMap<String, String>,
    #[serde(default)]
    quirk: Vec<RawRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    manufacturer: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    firmware: String,
    effect: String,
    value: Option<u32>,
    source: String,
}

/// Why a file of quirks cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuirksError {
    /// No TOML, or not the shape of quirks; the text names line and key.
    #[error("the quirks are wrong: {0}")]
    Shape(String),
    /// A row that says something unknown.
    #[error("quirk {row} ({manufacturer}): {problem}")]
    Row {
        /// Which row, from 1.
        row: usize,
        /// Its manufacturer.
        manufacturer: String,
        /// What is wrong and what to write.
        problem: String,
    },
}

/// A file of quirks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuirksFile {
    /// Names of manufacturers by their IANA private enterprise number.
    pub manufacturers: BTreeMap<u32, String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Reads a file of quirks.
///
/// # Errors
/// [`QuirksError`].
pub fn parse(text: &str) -> Result<QuirksFile, QuirksError> {
    let file: RawFile = toml::from_str(text).map_err(|error| QuirksError::Shape(error.to_string()))?;
    if file.schema != 1 {
        return Err(QuirksError::Shape(format!("schema {} is not known: write 1", file.schema)));
    }
    let numbered = file.manufacturers.into_iter().map(|(number, name)| match number.parse() {
        Ok(parsed) if !name.is_empty() => Ok((parsed, name)),
        _ => Err(QuirksError::Shape(format!(
            "manufacturers: {number} = \"{name}\": write IANA's enterprise number, and a name"
        ))),
    });
    let manufacturers = numbered.collect::<Result<_, _>>()?;
    let rows = file.quirk.into_iter().enumerate().map(|(i, raw)| {
        let wrong = |problem: String| QuirksError::Row {
            row: i + 1,
            manufacturer: raw.manufacturer.clone(),
            problem,
        };
        if raw.manufacturer.is_empty() || raw.source.is_empty() {
            return Err(wrong("manufacturer and source must not be empty".to_owned()));
        }
        let effect = effect(&raw.effect, raw.value).map_err(&wrong)?;
        let RawRow { manufacturer, model, firmware, source, .. } = raw;
        Ok(Row { manufacturer, model, firmware, effect, source })
    });
    Ok(QuirksFile { manufacturers, rows: rows.collect::<Result<_, _>>()? })
}

fn effect(word: &str, value: Option<u32>) -> Result<Effect, String> {
    let number = || value.ok_or_else(|| format!("{word} needs a `value`"));
    let effect = match word {
        "cipher-suite" => return number().map(Effect::CipherSuite),
        "first-account-slot" => return number().map(Effect::FirstAccountSlot),
        "max-password" => return number().map(Effect::MaxPassword),
        "boot-flags-never-valid" => Effect::BootFlagsNeverValid,
        "boot-device-stays" => Effect::BootDeviceStays,
        "drops-efiboot" => Effect::DropsEfiboot,
        "once-reads-continuous" => Effect::OnceReadsContinuous,
        "accepts-any-reset" => Effect::AcceptsAnyReset,
        "no-session-service" => Effect::NoSessionService,
        "sku-is-serial" => Effect::SkuIsSerial,
        "no-if-match-on-actions" => Effect::NoIfMatchOnActions,
        "boot-mode-needed" => Effect::BootModeNeeded,
        "boot-mode-refused" => Effect::BootModeRefused,
        "needs-special" => Effect::NeedsSpecial,
        other => return Err(format!("'{other}' is no known effect")),
    };
    match value {
        Some(value) => Err(format!("{word} takes no `value`, and has {value}")),
        None => Ok(effect),
    }
}

static FILE: LazyLock<QuirksFile> = LazyLock::new(|| parse(BUILT_IN).unwrap_or_default());

/// The rows that come with Dayzero.
pub fn built_in() -> &'static [Row] {
    &FILE.rows
}

/// The name that rows begin with of the manufacturer with that IANA private enterprise number, where one is known.
pub fn manufacturer(number: u32) -> Option<&'static str> {
    FILE.manufacturers.get(&number).map(String::as_str)
}

/// The quirks of one BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quirks(Vec<Row>);

impl Quirks {
    /// Those of the built-in rows that match.
    pub fn of(manufacturer: &str, model: &str, firmware: &str) -> Self {
        Self::among(built_in(), manufacturer, model, firmware)
    }

    /// Those of `rows` that match.
    pub fn among(rows: &[Row], manufacturer: &str, model: &str, firmware: &str) -> Self {
        let starts = |text: &str, prefix: &str| {
            text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let matching = rows.iter().filter(|row| {
            starts(manufacturer, &row.manufacturer)
                && starts(model, &row.model)
                && starts(firmware, &row.firmware)
        });
        Self(matching.cloned().collect())
    }

    /// Whether the BMC does that.
    pub fn has(&self, effect: Effect) -> bool {
        self.effects().any(|one| one == effect)
    }

    /// All that it does otherwise.
    pub fn effects(&self) -> impl Iterator<Item = Effect> {
        self.0.iter().map(|row| row.effect)
    }

    /// The rows, with their sources.
    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    /// First account slot that may be filled.
    pub fn first_account_slot(&self) -> u32 {
        self.effects()
            .find_map(|e| if let Effect::FirstAccountSlot(slot) = e { Some(slot) } else { None })
            .unwrap_or(2)
    }

    /// Longest password, where it is known better than the BMC says.
    pub fn max_password(&self) -> Option<u32> {
        self.effects().find_map(|e| if let Effect::MaxPassword(length) = e { Some(length) } else { None })
    }

    /// RMCP+ cipher suite, where one alone works.
    pub fn cipher_suite(&self) -> Option<u32> {
        self.effects().find_map(|e| if let Effect::CipherSuite(suite) = e { Some(suite) } else { None })
    }
}
