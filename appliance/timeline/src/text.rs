//! Events as text: one line each, the same in CLI, console and reports.

use dayzero_model::boot::{Arch, BootAction};
use dayzero_model::event::{Event, TftpFault, What};

/// One event as a line: moment, source, what.
pub fn line(event: &Event) -> String {
    let who = match (&event.host, event.mac) {
        (Some(host), Some(mac)) => format!("{host} {mac}"),
        (Some(host), None) => host.to_string(),
        (None, Some(mac)) => mac.to_string(),
        (None, None) => "-".to_owned(),
    };
    clean(&format!("{}  {who}  {}", event.at, what(&event.what)))
}

/// Text from the network is shown without control characters, and not without end.
fn clean(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    shown.take(500).collect()
}

pub(crate) fn arch(arch: Option<Arch>) -> String {
    match arch {
        None => String::new(),
        Some(Arch::Bios) => " PXE client (BIOS)".to_owned(),
        Some(Arch::UefiX64) => " PXE client (UEFI x86-64)".to_owned(),
        Some(Arch::UefiX86) => " PXE client (UEFI x86, 32 bits)".to_owned(),
        Some(Arch::UefiArm64) => " PXE client (UEFI arm64)".to_owned(),
        Some(Arch::UefiX86Http) => " HTTP boot client (UEFI x86, 32 bits)".to_owned(),
        Some(Arch::UefiArm64Http) => " HTTP boot client (UEFI arm64)".to_owned(),
        Some(Arch::UefiX64Http) => " HTTP boot client (UEFI x86-64)".to_owned(),
        Some(Arch::Other(code)) => format!(" PXE client (architecture {code})"),
    }
}

/// What was seen, as text.
pub fn what(what: &What) -> String {
    match what {
        What::DhcpIn { kind, interface, arch: code, ipxe, vendor_class, .. } => {
            let ipxe = if *ipxe { " (iPXE)" } else { "" };
            let class = vendor_class.as_ref().map_or_else(String::new, |class| format!(", class {class}"));
            format!("dhcp   {kind} in on {interface}{}{ipxe}{class}", arch(*code))
        }
        What::DhcpOut { kind, address, file } => {
            let address = address.map_or_else(String::new, |address| format!(" {address}"));
            let file = file.as_ref().map_or_else(String::new, |file| format!(", boot file {file}"));
            format!("dhcp   {kind} out{address}{file}")
        }
        What::DhcpUnsent { kind, to, error } => format!("dhcp   {kind} to {to} NOT SENT: {error}"),
        What::DhcpIgnored { reason, .. } => format!("dhcp   not answered: {reason}"),
        What::TftpStart { file } => format!("tftp   {file} asked for"),
        What::TftpEnd { file, bytes, ms, error: None } => {
            format!("tftp   {file} transferred: {bytes} bytes in {ms} ms")
        }
        What::TftpEnd { file, bytes, ms, error: Some(error) } => {
            format!("tftp   {file} stopped after {bytes} bytes and {ms} ms: {error}")
        }
        What::TftpBroken { file, fault, after_block, bytes, block, message } => {
            let how = match fault {
                TftpFault::Silent if *after_block == 0 => {
                    format!("the first block ({block} bytes) was never acknowledged")
                }
                TftpFault::Silent => format!("client fell silent after block {after_block} ({bytes} bytes)"),
                TftpFault::Aborted { code } => {
                    format!("client aborted after block {after_block}: {message} (code {code})")
                }
                TftpFault::PortClosed => format!("client's port closed after block {after_block}"),
                TftpFault::Refused { code } => format!("refused: {message} (code {code})"),
                TftpFault::Busy => "too many transfers at once".to_owned(),
            };
            format!("tftp   {file} BROKE OFF: {how}")
        }
        What::WrongLoader { file, arch: code, made_for } => {
            format!("tftp   {file} is made for {made_for}, its client is a{}", arch(Some(*code)))
        }
        What::ArpSilent { address } => format!("arp    nobody answers for {address}"),
        What::Script { action: BootAction::Discovery { boot, .. }, peer } => {
            format!("script discovery image, boot {boot}, to {peer}")
        }
        What::Script { action: BootAction::LocalDisk, peer } => {
            format!("script leave to the disk, to {peer}")
        }
        What::Script { action: BootAction::Refuse, peer } => format!("script refused to {peer}"),
        What::HttpFile { path, peer, status, bytes, tls } => {
            let by = if *tls { "https " } else { "http  " };
            format!("{by} {path} to {peer}: {status}, {bytes} bytes")
        }
        What::HttpBroken { path, peer, bytes, length, error } => {
            format!("http   {path} to {peer} BROKE OFF after {bytes} of {length} bytes: {error}")
        }
        What::TlsRefused { peer, listener, reason, .. } => {
            format!("tls    {peer} at {listener}: handshake BROKEN OFF, {reason}")
        }
        What::Clock { whose, ahead } if *ahead < 0 => {
            format!("clock  {whose}'s is {} s behind ours", ahead.unsigned_abs())
        }
        What::Clock { whose, ahead } => format!("clock  {whose}'s is {ahead} s ahead of ours"),
        What::Link { nic, up, told_by } => {
            format!("link   {nic} {}, says {told_by}", if *up { "up" } else { "DOWN" })
        }
        What::Bmc { operation, result, failed } => {
            format!("bmc    {operation}{}: {result}", if *failed { " FAILED" } else { "" })
        }
        What::Enrol { granted, key, reason, peer } => {
            let decision = if *granted { "certificate given" } else { "REFUSED" };
            let key = key.to_string();
            format!("enrol  key {} from {peer}: {decision}, {reason}", &key[..16])
        }
        What::Agent { message } => format!("agent  {message}"),
        What::Condition { condition, state, detail } if detail.is_empty() => {
            format!("state  {condition} {state}")
        }
        What::Condition { condition, state, detail } => format!("state  {condition} {state}: {detail}"),
        What::Rack { message } => format!("rack   {message}"),
        What::Person { who, did } => format!("person {who}: {did}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::condition::Condition;
    use dayzero_model::event::Ignored;
    use dayzero_model::ids::{BootId, Sha256};
    use dayzero_model::units::Timestamp;

    #[test]
    fn one_line_an_event() {
        let peer = "10.77.0.11".parse().unwrap();
        let all = [
            What::DhcpIn {
                kind: "DISCOVER".into(),
                interface: "mgmt0".into(),
                arch: Some(Arch::UefiX64),
                ipxe: false,
                uuid: None,
                vendor_class: Some("PXEClient:Arch:00007\u{7}".into()),
            },
            What::DhcpOut {
                kind: "OFFER".into(),
                address: Some("10.77.0.11".parse().unwrap()),
                file: Some("snponly.efi".into()),
            },
            What::DhcpUnsent {
                kind: "OFFER".into(),
                to: "10.88.0.1".parse().unwrap(),
                error: "Network is unreachable (os error 101)".into(),
            },
            What::DhcpIgnored { reason: "not in the plan".into(), why: Ignored::Pending },
            What::TftpEnd {
                file: "snponly.efi".into(),
                bytes: 1468,
                ms: 9000,
                error: Some("timed out".into()),
            },
            What::Script { action: BootAction::Discovery { boot: BootId(1), cmdline: vec![] }, peer },
            What::HttpFile {
                path: "/boot/file/vmlinuz".into(),
                peer,
                status: 200,
                bytes: 8_000_000,
                tls: false,
            },
            What::Bmc { operation: "power on".into(), result: "reads On".into(), failed: false },
            What::Enrol { granted: false, key: Sha256([0xab; 32]), reason: "second key".into(), peer },
            What::Agent { message: "connected".into() },
            What::Condition { condition: Condition::Found, state: "met".into(), detail: "it answers".into() },
            What::Rack { message: "cable of pod-a pulled".into() },
            What::Person { who: "root".into(), did: "retry".into() },
        ];
        let shown = all.map(|what| {
            let event = Event {
                at: Timestamp(1_795_000_000_000),
                host: Some("host1".parse().unwrap()),
                mac: None,
                boot: None,
                what,
            };
            line(&event)
        });
        insta::assert_snapshot!(shown.join("\n"));
    }
}
