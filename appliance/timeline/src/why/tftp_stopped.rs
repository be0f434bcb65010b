//! A TFTP transfer broke off.

use super::{ASKED, Finding, Hop, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, TftpFault, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let broke = |what: &What| matches!(what, What::TftpBroken { .. } | What::TftpEnd { error: Some(_), .. });
    let (at, event) = last(events, broke)?;
    // Another transfer is under way, or a later hop was reached.
    if reached(events, at, ASKED) {
        return None;
    }
    let (sentence, next_action) = match &event.what {
        What::TftpBroken { file, fault, after_block, block, message, .. } => {
            words(file, *fault, *after_block, *block, message)
        }
        What::TftpEnd { file, bytes, .. } => (format!("TFTP of {file} stopped after {bytes} bytes"), LOSS),
        _ => return None,
    };
    let evidence = vec![text::line(event)];
    Some(Finding {
        rule: "tftp-stopped",
        hop: Hop::Loader,
        sentence,
        evidence,
        next_action: next_action.into(),
    })
}

const FILTER: &str = "look for a firewall or relay between host and appliance that lets UDP 69 pass but not the transfer's own port";
const MTU: &str = "compare the MTU of host port, switches and appliance: a block of that size with its headers must pass whole; then look for a filter";
const LOSS: &str = "look for packet loss and errors on the host's port and cable; a switch port that goes down just then restarts by itself (spanning tree, LACP)";
const RESET: &str = "look at the host's screen: its firmware gave up or was reset; power and BMC events of that moment stand in the timeline";
const NAMED: &str = "somebody else told it this name (a second DHCP server, a boot order entry), or the appliance lacks the loader: `dayzero doctor` says which";

fn words(file: &str, fault: TftpFault, after: u64, block: u16, message: &str) -> (String, &'static str) {
    match fault {
        TftpFault::Silent if after == 0 && block > 512 => (
            format!("TFTP of {file} began, but its first block of {block} bytes was never acknowledged"),
            MTU,
        ),
        TftpFault::Silent if after == 0 => {
            (format!("TFTP of {file} began, but no block was ever acknowledged"), FILTER)
        }
        TftpFault::Silent => {
            (format!("TFTP of {file} stopped: the client fell silent after block {after}"), LOSS)
        }
        TftpFault::Aborted { code } => (
            format!("TFTP of {file}: the client gave up after block {after} ({message}, code {code})"),
            RESET,
        ),
        TftpFault::PortClosed => {
            (format!("TFTP of {file}: the client's port was closed after block {after}"), RESET)
        }
        TftpFault::Refused { .. } => (format!("TFTP of '{file}' was refused: {message}"), NAMED),
        TftpFault::Busy => (
            format!("TFTP of {file} was not begun: too many transfers at once"),
            "wait: the client asks again; power racks on in smaller waves",
        ),
    }
}
