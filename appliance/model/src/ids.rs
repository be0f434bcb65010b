//! Identifiers: each its own type, checked when read, in one canonical spelling when written.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text that is no valid identifier: what it was for, the text, and what is allowed.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("'{value}' is no {kind}: {rule}")]
pub struct BadId {
    /// What was asked for, such as "MAC address".
    pub kind: &'static str,
    /// The text that was given.
    pub value: String,
    /// What would have been accepted.
    pub rule: &'static str,
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// A name of an object in the plan: 1 to 63 of `a-z 0-9 -`, no hyphen at either end (an RFC 1123 label in lower case).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A host's name: an RFC 1123 label, as [`Name`].
pub type HostName = Name;

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let ok = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            let rule = "1 to 63 of a-z, 0-9 and '-', with no '-' at either end";
            Err(BadId { kind: "name", value: text.to_owned(), rule })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
text_serde!(Name);

/// An Ethernet address. Read with `:` or `-` or bare, in any case; written as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl FromStr for MacAddr {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId {
            kind: "MAC address",
            value: text.to_owned(),
            rule: "write six octets in hex, such as 52:54:00:12:34:56",
        };
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        let spaced = text.len() == 17 && text.bytes().skip(2).step_by(3).all(|b| matches!(b, b':' | b'-'));
        if digits.len() != 12 || !digits.is_ascii() || !(spaced || text.len() == 12) {
            return Err(bad());
        }
        let mut octets = [0; 6];
        for (i, octet) in octets.iter_mut().enumerate() {
            *octet = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
text_serde!(MacAddr);

/// A World Wide Name of a disk or LUN: 16 or 32 hex digits, written in lower case without prefix
/// (`naa.`, `0x`, `eui.` and the leading type digit of `/dev/disk/by-id/scsi-3…` are accepted when read).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wwn(String);

impl Wwn {
    /// The digits, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Wwn {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let lower = text.trim().to_ascii_lowercase();
        let mut digits = lower.as_str();
        for prefix in ["naa.", "0x", "eui."] {
            digits = digits.strip_prefix(prefix).unwrap_or(digits);
        }
        if matches!(digits.len(), 17 | 33) && digits.starts_with('3') {
            digits = &digits[1..];
        }
        if matches!(digits.len(), 16 | 32) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(digits.to_owned()))
        } else {
            Err(BadId {
                kind: "WWN",
                value: text.to_owned(),
                rule: "write 16 or 32 hex digits, such as 0x5000c50012345678",
            })
        }
    }
}

impl fmt::Display for Wwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
text_serde!(Wwn);

/// A SHA-256 digest, in hex when written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl FromStr for Sha256 {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| BadId {
            kind: "SHA-256 digest",
            value: text.chars().take(80).collect(),
            rule: "64 hex digits",
        })?;
        Ok(Self(digest))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
text_serde!(Sha256);

/// Octets of a DHCP option: a client identifier, a DUID, a relay's circuit id. Read from `0x` and hex digits (`:` between
/// octets is allowed), or from any other printable text, which then stands for its own octets; 1 to 255 of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OptionBytes(Vec<u8>);

impl OptionBytes {
    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for OptionBytes {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bytes = match text.strip_prefix("0x") {
            Some(digits) => hex::decode(digits.replace(':', "")).ok(),
            None => text.bytes().all(|b| (0x20..0x7f).contains(&b)).then(|| text.as_bytes().to_vec()),
        };
        bytes.filter(|bytes| (1..=255).contains(&bytes.len())).map(Self).ok_or_else(|| BadId {
            kind: "DHCP identifier",
            value: text.chars().take(80).collect(),
            rule: "write 1 to 255 octets, as 0x and hex digits or as printable ASCII text",
        })
    }
}

impl fmt::Display for OptionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with("0x") && text.bytes().all(|b| (0x20..0x7f).contains(&b)) => {
                f.write_str(text)
            }
            _ => write!(f, "0x{}", hex::encode(&self.0)),
        }
    }
}
text_serde!(OptionBytes);

/// One network boot of one host, opened by the control plane: 16 hex digits, public (it stands on a kernel command line).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u64);

impl FromStr for BootId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { kind: "boot id", value: text.chars().take(40).collect(), rule: "16 hex digits" };
        if text.len() != 16 {
            return Err(bad());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
text_serde!(BootId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_id() {
        for text in ["52:54:00:AA:bb:01", "52-54-00-aa-bb-01", "525400AABB01"] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "52:54:00:aa:bb:01");
        }
        for text in ["0x5000C50012345678", "naa.5000c50012345678", "35000c50012345678"] {
            assert_eq!(text.parse::<Wwn>().unwrap().as_str(), "5000c50012345678");
        }
        for bad in ["52:54:00:aa:bb", "52:54:00:aa:bb:zz", "5:2:5:4:0:0aabb01", ""] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
        for (text, octets, shown) in [
            ("Ethernet1/7", &b"Ethernet1/7"[..], "Ethernet1/7"),
            ("0x0152:54:00:77", &[1, 0x52, 0x54, 0, 0x77], "0x0152540077"),
            ("0x30783031", b"0x01", "0x30783031"),
        ] {
            let read: OptionBytes = text.parse().unwrap();
            assert_eq!((read.as_bytes(), read.to_string().as_str()), (octets, shown));
            assert_eq!(shown.parse(), Ok(read));
        }
        for bad in ["", "0x", "0xabc", "a\u{e9}", "a\nb"] {
            assert!(bad.parse::<OptionBytes>().is_err(), "{bad}");
        }
        for bad in ["-a", "a-", "A", "", "a.b", "a b"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
