//! A TFTP transfer stopped in the middle.

use super::{Finding, WhyContext, follows, last};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let (at, event) = last(events, |what| matches!(what, What::TftpEnd { .. }))?;
    let What::TftpEnd { file, bytes, error: Some(_), .. } = &event.what else { return None };
    if follows(events, at, |what| matches!(what, What::Script { .. } | What::TftpStart { .. })) {
        return None;
    }
    let (sentence, next_action) = if *bytes == 0 {
        let sentence = format!("TFTP of {file} began, but no block was ever acknowledged");
        (
            sentence,
            "look for a firewall or relay between host and appliance that lets UDP 69 pass but not the transfer's own port",
        )
    } else {
        let sentence = format!("TFTP of {file} stopped after {bytes} bytes");
        (
            sentence,
            "compare the MTU of host port, switches and appliance: blocks of 1468 bytes need 1500; then look for packet loss",
        )
    };
    Some(Finding {
        rule: "tftp-stopped",
        sentence,
        evidence: vec![text::line(event)],
        next_action: next_action.to_owned(),
    })
}
