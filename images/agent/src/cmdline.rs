//! What the boot script put on the kernel command line: where to go. Nothing of it is secret, and nothing of it is
//! proof of anything.

use dayzero_model::{BootId, MacAddr};
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, SocketAddr};

/// The agent's part of the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmdline {
    /// This network boot.
    pub boot: BootId,
    /// NIC that was booted from.
    pub mac: MacAddr,
    /// Address to use on it.
    pub address: Ipv4Net,
    /// Router, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Base URL of the enrolment listener, `https://address:port`.
    pub enrol: String,
    /// Agents' listener.
    pub agent: SocketAddr,
}

/// A command line that the agent cannot work with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("kernel command line: dayzero.{key} {problem}")]
pub struct BadCmdline {
    /// Key without the `dayzero.` prefix.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Cmdline {
    /// Reads `dayzero.*` from the text of `/proc/cmdline`; other words are the kernel's.
    ///
    /// # Errors
    /// [`BadCmdline`] names the key that is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, BadCmdline> {
        let enrol: String = read(text, "enrol")?;
        if !enrol.starts_with("https://") {
            return Err(BadCmdline { key: "enrol", problem: format!("is '{enrol}', which is no https URL") });
        }
        Ok(Self {
            boot: read(text, "boot")?,
            mac: read(text, "mac")?,
            address: read(text, "ip")?,
            gateway: value(text, "gw").map(|_| read(text, "gw")).transpose()?,
            enrol,
            agent: read(text, "agent")?,
        })
    }
}

/// The value of `dayzero.<key>`, if it is there.
pub(crate) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("dayzero.")?.strip_prefix(key)?.strip_prefix('='))
}

fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
    key: &'static str,
) -> Result<T, BadCmdline> {
    let found = value(text, key).ok_or_else(|| BadCmdline { key, problem: "is missing".to_owned() })?;
    found.parse().map_err(|e| BadCmdline { key, problem: format!("is '{found}': {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "console=ttyS0 quiet dayzero.boot=00000000000000ab dayzero.mac=52:54:00:77:01:01 \
                        dayzero.ip=10.77.0.11/24 dayzero.enrol=https://10.77.0.2:8444 dayzero.agent=10.77.0.2:7443";

    #[test]
    fn a_script_of_ours_is_read() {
        let cmdline = Cmdline::parse(GOOD).unwrap();
        assert_eq!(cmdline.boot, BootId(0xab));
        assert_eq!(cmdline.address.to_string(), "10.77.0.11/24");
        assert_eq!(cmdline.gateway, None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (from, to, key) in [
            ("dayzero.boot=00000000000000ab", "", "boot"),
            ("10.77.0.11/24", "10.77.0.11/99", "ip"),
            ("https://10.77.0.2:8444", "http://10.77.0.2:8444", "enrol"),
        ] {
            assert_eq!(Cmdline::parse(&GOOD.replace(from, to)).unwrap_err().key, key);
        }
    }
}
