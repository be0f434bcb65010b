//! What a table of the deployment document answers: it knows more than yes and no.

use std::fmt;

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is supported.
    Yes,
    /// It is not.
    No,
    /// The document says `?`, or nothing.
    Unknown,
    /// The question does not arise.
    NotApplicable,
    /// It is, in this way: `CLVM`, `Yes via Shared Mountpoint`, `DRS`, `Yes (Native)`.
    Qualified(String),
}

impl Answer {
    /// Reads a cell.
    pub fn of(cell: &str) -> Self {
        match cell.trim() {
            "Yes" => Self::Yes,
            "No" => Self::No,
            "" | "?" => Self::Unknown,
            "N/A" => Self::NotApplicable,
            text => Self::Qualified(text.to_owned()),
        }
    }

    /// Supported, in whichever way.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes | Self::Qualified(_))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "Yes",
            Self::No => "No",
            Self::Unknown => "?",
            Self::NotApplicable => "N/A",
            Self::Qualified(text) => text,
        })
    }
}
