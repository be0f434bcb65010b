//! `network.conf` on the appliance's ESP: what address each NIC has. Written by a person on any PC.
//!
//! A line a NIC: `MAC ADDRESS/PREFIX [GATEWAY]`, or `MAC dhcp`; `#` begins a comment. A NIC may have several addresses, a
//! line each. Read strictly: with one fault nothing of the file holds, and every fault is said with its line and remedy.

use dayzero_model::MacAddr;
use ipnet::Ipv4Net;
use std::fmt;
use std::net::Ipv4Addr;

/// Longest file, bytes.
pub(crate) const MOST: usize = 64 << 10;
const FORM: &str = "write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NicLine {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// The NIC.
    pub(crate) mac: MacAddr,
    /// Where its address comes from.
    pub(crate) how: How,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// A server.
    Dhcp,
    /// This file.
    Fixed {
        /// With the prefix length of its network.
        address: Ipv4Net,
        /// Default route.
        gateway: Option<Ipv4Addr>,
    },
}

/// A fault of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    line: usize,
    problem: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network.conf, line {}: {}", self.line, self.problem)
    }
}

/// Reads the file's bytes.
///
/// # Errors
/// Every fault, in order of lines.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<NicLine>, Vec<BadLine>> {
    let bad = |line, problem: &str| BadLine { line, problem: problem.to_owned() };
    if bytes.len() > MOST {
        return Err(vec![bad(1, "the file is longer than 64 KiB: is it the right one?")]);
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(vec![bad(1, "the file is UTF-16: save it as plain text (UTF-8)")]);
    }
    let text = String::from_utf8_lossy(bytes);
    let (mut lines, mut faults) = (Vec::<NicLine>::new(), Vec::new());
    for (number, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let words: Vec<&str> = text.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        match line(number, &words).and_then(|line| against(&lines, line)) {
            Ok(line) => lines.push(line),
            Err(problem) => faults.push(BadLine { line: number, problem }),
        }
    }
    if lines.is_empty() && faults.is_empty() {
        let problem = format!("no line names a NIC: {FORM}, or delete the file so that every NIC asks DHCP");
        faults.push(bad(1, &problem));
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults) }
}

fn line(number: usize, words: &[&str]) -> Result<NicLine, String> {
    let shown = |word: &str| word.chars().filter(|c| !c.is_control()).take(40).collect::<String>();
    let mac: MacAddr = words[0]
        .parse()
        .map_err(|_| format!("'{}' is no MAC address such as 52:54:00:12:34:56: {FORM}", shown(words[0])))?;
    let how = match words[1..] {
        ["dhcp"] => How::Dhcp,
        ["dhcp", ..] => {
            return Err("after 'dhcp' nothing more may stand: remove the rest of the line".to_owned());
        }
        [address] => How::Fixed { address: network(&shown(address))?, gateway: None },
        [address, gateway] => {
            let address = network(&shown(address))?;
            How::Fixed { address, gateway: Some(router(&shown(gateway), address)?) }
        }
        [] => return Err(format!("the MAC stands alone: {FORM}")),
        _ => return Err(format!("it has {} words: {FORM}", words.len())),
    };
    Ok(NicLine { line: number, mac, how })
}

fn network(text: &str) -> Result<Ipv4Net, String> {
    if text.parse::<Ipv4Addr>().is_ok() {
        return Err(format!("'{text}' has no prefix length: write it such as {text}/24"));
    }
    let net: Ipv4Net = text.parse().map_err(|_| {
        format!("'{text}' is no IPv4 address with prefix length such as 192.0.2.10/24: {FORM}")
    })?;
    let address = net.addr();
    let of_host = !address.is_loopback() && !address.is_multicast() && !address.is_unspecified();
    let of_net = net.prefix_len() < 31 && (address == net.network() || address == net.broadcast());
    if !of_host || of_net || net.prefix_len() == 0 {
        let what = if of_net {
            "is the network's own or its broadcast address"
        } else {
            "is no address of a machine"
        };
        return Err(format!("{address} {what}: give the appliance's address in that network"));
    }
    Ok(net)
}

fn router(text: &str, address: Ipv4Net) -> Result<Ipv4Addr, String> {
    let gateway: Ipv4Addr =
        text.parse().map_err(|_| format!("the gateway '{text}' is no IPv4 address such as 192.0.2.1"))?;
    if gateway == address.addr() {
        return Err(format!(
            "the gateway {gateway} is the appliance's own address: give the router's, or none"
        ));
    }
    if !address.contains(&gateway) {
        return Err(format!("the gateway {gateway} is not in {}: correct one of them", address.trunc()));
    }
    Ok(gateway)
}

/// Whether a line goes together with those before it.
fn against(before: &[NicLine], line: NicLine) -> Result<NicLine, String> {
    for other in before {
        if other.mac == line.mac && (other.how == How::Dhcp || line.how == How::Dhcp) {
            return Err(format!(
                "{} stands in line {} already: a NIC with 'dhcp' has one line",
                line.mac, other.line
            ));
        }
        let (How::Fixed { address: theirs, gateway: router }, How::Fixed { address, gateway }) =
            (other.how, line.how)
        else {
            continue;
        };
        if theirs.addr() == address.addr() {
            return Err(format!("{} stands in line {} already: remove one", address.addr(), other.line));
        }
        if router.is_some() && gateway.is_some() {
            return Err(format!(
                "line {} has a gateway already: a machine has one default route, remove the other gateway",
                other.line
            ));
        }
        if theirs.trunc() == address.trunc() && other.mac != line.mac {
            return Err(format!(
                "line {} puts another NIC into {} already: two NICs in one network do not work",
                other.line,
                address.trunc()
            ));
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_person_writes_is_read() {
        let text = "\u{feff}# Management\r\n52:54:00:77:00:01 10.77.0.2/24 10.77.0.1\r\n\r\n\
                    52-54-00-77-00-02\t10.77.9.2/24 # BMCs\n52:54:00:77:00:02 10.77.8.2/24\n52:54:00:77:00:03 dhcp";
        let lines = parse(text.as_bytes()).unwrap();
        let shown: Vec<String> = lines
            .iter()
            .map(|line| match line.how {
                How::Dhcp => format!("{} {} dhcp", line.line, line.mac),
                How::Fixed { address, gateway } => {
                    format!("{} {} {address} {gateway:?}", line.line, line.mac)
                }
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        2 52:54:00:77:00:01 10.77.0.2/24 Some(10.77.0.1)
        4 52:54:00:77:00:02 10.77.9.2/24 None
        5 52:54:00:77:00:02 10.77.8.2/24 None
        6 52:54:00:77:00:03 dhcp
        "#);
    }

    #[test]
    fn every_fault_has_its_line_and_a_remedy() {
        let mut said = Vec::new();
        for text in [
            "52:54:00:77:00 dhcp",
            "eth0 dhcp",
            "52:54:00:77:00:01",
            "52:54:00:77:00:01 dhcp now",
            "52:54:00:77:00:01 10.77.0.2",
            "52:54:00:77:00:01 10.77.0.2/33",
            "52:54:00:77:00:01 fe80::1/64",
            "52:54:00:77:00:01 10.77.0.0/24",
            "52:54:00:77:00:01 10.77.0.255/24",
            "52:54:00:77:00:01 127.0.0.1/8",
            "52:54:00:77:00:01 10.77.0.2/24 10.77.1.1",
            "52:54:00:77:00:01 10.77.0.2/24 10.77.0.2",
            "52:54:00:77:00:01 10.77.0.2/24 router",
            "52:54:00:77:00:01 10.77.0.2/24 10.77.0.1 9000",
            "52:54:00:77:00:01 dhcp\n52:54:00:77:00:01 10.77.0.2/24",
            "52:54:00:77:00:01 10.77.0.2/24\n52:54:00:77:00:02 10.77.0.2/16",
            "52:54:00:77:00:01 10.77.0.2/24\n52:54:00:77:00:02 10.77.0.3/24",
            "52:54:00:77:00:01 10.77.0.2/24 10.77.0.1\n52:54:00:77:00:02 10.77.9.2/24 10.77.9.1",
            "# nothing\n",
            "\u{1b}[2J x",
        ] {
            let faults = parse(text.as_bytes()).unwrap_err();
            said.extend(faults.iter().map(ToString::to_string));
        }
        said.push(parse(b"\xff\xfe5\x00").unwrap_err()[0].to_string());
        insta::assert_snapshot!(said.join("\n"), @r#"
        network.conf, line 1: '52:54:00:77:00' is no MAC address such as 52:54:00:12:34:56: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 1: 'eth0' is no MAC address such as 52:54:00:12:34:56: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 1: the MAC stands alone: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 1: after 'dhcp' nothing more may stand: remove the rest of the line
        network.conf, line 1: '10.77.0.2' has no prefix length: write it such as 10.77.0.2/24
        network.conf, line 1: '10.77.0.2/33' is no IPv4 address with prefix length such as 192.0.2.10/24: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 1: 'fe80::1/64' is no IPv4 address with prefix length such as 192.0.2.10/24: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 1: 10.77.0.0 is the network's own or its broadcast address: give the appliance's address in that network
        network.conf, line 1: 10.77.0.255 is the network's own or its broadcast address: give the appliance's address in that network
        network.conf, line 1: 127.0.0.1 is no address of a machine: give the appliance's address in that network
        network.conf, line 1: the gateway 10.77.1.1 is not in 10.77.0.0/24: correct one of them
        network.conf, line 1: the gateway 10.77.0.2 is the appliance's own address: give the router's, or none
        network.conf, line 1: the gateway 'router' is no IPv4 address such as 192.0.2.1
        network.conf, line 1: it has 4 words: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 2: 52:54:00:77:00:01 stands in line 1 already: a NIC with 'dhcp' has one line
        network.conf, line 2: 10.77.0.2 stands in line 1 already: remove one
        network.conf, line 2: line 1 puts another NIC into 10.77.0.0/24 already: two NICs in one network do not work
        network.conf, line 2: line 1 has a gateway already: a machine has one default route, remove the other gateway
        network.conf, line 1: no line names a NIC: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp', or delete the file so that every NIC asks DHCP
        network.conf, line 1: '[2J' is no MAC address such as 52:54:00:12:34:56: write 'MAC ADDRESS/PREFIX [GATEWAY]' or 'MAC dhcp'
        network.conf, line 1: the file is UTF-16: save it as plain text (UTF-8)
        "#);
    }

    #[test]
    fn one_fault_and_nothing_holds_but_all_faults_are_said() {
        let faults = parse(b"52:54:00:77:00:01 dhcp\nx\n52:54:00:77:00:02 10.0.0.1\n").unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3]);
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic_or_say_control_characters(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(faults) = parse(&bytes) {
                prop_assert!(faults.iter().all(|fault| !fault.to_string().contains(char::is_control)));
            }
        }
    }
}
