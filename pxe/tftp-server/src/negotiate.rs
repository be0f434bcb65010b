//! Which options of a request are taken, and how (RFC 2348 blksize, 2349 timeout and tsize, 7440 windowsize).
//!
//! Purpose: `Terms` of one transfer from the client's list. Invariants: the block never exceeds what the link
//! carries in one datagram, and window × block never exceeds `in_flight`, since a client's receive buffer is small
//! (a window of 64 × 8 KiB stalls real clients). Unknown options are left out of the answer, as RFC 2347 asks; a
//! known one with an impossible value is refused.

use std::time::Duration;

use crate::packet::{ErrorCode, ReadRequest, Refusal};

/// Block size when none is negotiated (RFC 1350).
pub const DEFAULT_BLOCK: u16 = 512;
/// Largest block size of RFC 2348.
pub const LARGEST_BLOCK: u16 = 65464;

/// What the server allows.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Largest block in bytes, beside what the path to the client carries in one packet: its MTU less 32 by IPv4 (IP
    /// 20, UDP 8, TFTP 4), 1468 on Ethernet, and less 52 by IPv6, 1448.
    pub max_block: u16,
    /// Most bytes sent before an acknowledgement.
    pub in_flight: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self { max_block: LARGEST_BLOCK, in_flight: 96 * 1024 }
    }
}

/// The agreed terms of one transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes in a full block.
    pub block: u16,
    /// Blocks sent before an acknowledgement is awaited.
    pub window: u16,
    /// The client's own retransmission interval, if it asked for one.
    pub timeout: Option<Duration>,
    /// What the OACK says; empty: no OACK is sent.
    pub oack: Vec<(&'static str, u64)>,
}

fn number(name: &str, value: &str, low: u64, high: u64) -> Result<u64, Refusal> {
    let refused =
        || Refusal::new(ErrorCode::OptionRefused, format!("{name} must be a number from {low} to {high}"));
    if value.is_empty() || value.len() > 10 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused());
    }
    let parsed: u64 = value.parse().map_err(|_| refused())?;
    if (low..=high).contains(&parsed) { Ok(parsed) } else { Err(refused()) }
}

/// Settles the terms for a file of `size` bytes.
///
/// # Errors
/// A refusal (code 8) if a known option has an impossible value.
pub fn negotiate(request: &ReadRequest, size: u64, caps: &Caps) -> Result<Terms, Refusal> {
    let mut terms = Terms { block: DEFAULT_BLOCK, window: 1, timeout: None, oack: Vec::new() };
    let mut window = None;
    for (name, value) in &request.options {
        match name.as_str() {
            "blksize" => {
                let asked = number("blksize", value, 8, u64::from(LARGEST_BLOCK))?;
                let block = asked.min(u64::from(caps.max_block.clamp(8, LARGEST_BLOCK)));
                terms.block = u16::try_from(block).unwrap_or(DEFAULT_BLOCK);
                terms.oack.push(("blksize", block));
            }
            "tsize" => {
                number("tsize", value, 0, 9_999_999_999)?;
                terms.oack.push(("tsize", size));
            }
            "timeout" => {
                let seconds = number("timeout", value, 1, 255)?;
                terms.timeout = Some(Duration::from_secs(seconds));
                terms.oack.push(("timeout", seconds));
            }
            "windowsize" => {
                window = Some(number("windowsize", value, 1, 65535)?);
                terms.oack.push(("windowsize", 0));
            }
            _ => {}
        }
    }
    if let Some(asked) = window {
        let fits = u64::from(caps.in_flight) / u64::from(terms.block);
        let agreed = asked.min(fits.max(1));
        terms.window = u16::try_from(agreed).unwrap_or(u16::MAX);
        for entry in terms.oack.iter_mut().filter(|entry| entry.0 == "windowsize") {
            entry.1 = agreed;
        }
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(options: &[(&str, &str)]) -> Result<Terms, Refusal> {
        let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let caps = Caps { max_block: 1468, ..Caps::default() };
        negotiate(&ReadRequest { name: "f".into(), options }, 9000, &caps)
    }

    #[test]
    fn caps_what_the_link_and_the_client_cannot_take() {
        type Case<'a> = (&'a [(&'a str, &'a str)], u16, u16);
        let cases: &[Case<'_>] = &[
            (&[], 512, 1),
            (&[("blksize", "1432")], 1432, 1),
            (&[("blksize", "65464")], 1468, 1),
            (&[("windowsize", "4")], 512, 4),
            (&[("blksize", "1468"), ("windowsize", "65535")], 1468, 66),
            (&[("windowsize", "65535"), ("blksize", "1468")], 1468, 66),
            (&[("multicast", ""), ("blksize", "8")], 8, 1),
        ];
        for (options, block, window) in cases {
            let terms = ask(options).unwrap();
            assert_eq!((terms.block, terms.window), (*block, *window), "{options:?}");
        }
    }

    #[test]
    fn answers_in_the_order_asked() {
        let terms =
            ask(&[("tsize", "0"), ("x", "1"), ("windowsize", "9"), ("timeout", "3"), ("blksize", "900")]);
        let terms = terms.unwrap();
        assert_eq!(terms.oack, vec![("tsize", 9000), ("windowsize", 9), ("timeout", 3), ("blksize", 900)]);
        assert_eq!(terms.timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn impossible_values_are_refused() {
        for (name, value) in [
            ("blksize", "0"),
            ("blksize", "7"),
            ("blksize", "65465"),
            ("blksize", "-1"),
            ("blksize", "+8"),
            ("blksize", "99999999999999999999999"),
            ("windowsize", "0"),
            ("timeout", "0"),
            ("timeout", "256"),
            ("tsize", "x"),
            ("tsize", ""),
        ] {
            let refusal = ask(&[(name, value)]).expect_err(value);
            assert_eq!(refusal.code, ErrorCode::OptionRefused);
            assert!(refusal.message.contains(name), "{refusal}");
        }
    }
}
