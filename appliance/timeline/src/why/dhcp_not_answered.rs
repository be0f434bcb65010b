//! DHCP messages came in and were not answered.

use super::{Finding, WhyContext, follows, last};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let (at, event) = last(events, |what| matches!(what, What::DhcpIgnored { .. }))?;
    if follows(events, at, |what| matches!(what, What::DhcpOut { .. })) {
        return None;
    }
    let What::DhcpIgnored { reason } = &event.what else { return None };
    let count = events.iter().filter(|event| matches!(event.what, What::DhcpIgnored { .. })).count();
    Some(Finding {
        rule: "dhcp-not-answered",
        sentence: format!("{count} DHCP message(s) were not answered: {reason}"),
        evidence: vec![text::line(event)],
        next_action:
            "if this machine belongs here, put its MAC into the plan and apply it; else find out whose it is"
                .to_owned(),
    })
}
