//! A client has its address and was told its loader, and never asked for it.

use super::answer_not_sent::unsent;
use super::{Finding, Hop, PATIENCE, WhyContext, is_script, overdue, told};
use crate::text;
use dayzero_model::event::{Event, What};

pub(super) fn apply(events: &[Event], context: &WhyContext<'_>) -> Option<Finding> {
    let (at, answer) = told(events, |file| !is_script(file))?;
    let asked = |what: &What| {
        super::stage(what) > super::ADDRESSED
            || matches!(
                what,
                What::TftpBroken { .. }
                    | What::HttpFile { .. }
                    | What::HttpBroken { .. }
                    | What::DhcpIgnored { .. }
            )
    };
    if super::follows(events, at, asked) || unsent(events, answer) || !overdue(answer, context, PATIENCE) {
        return None;
    }
    Some(Finding {
        rule: "loader-not-asked",
        hop: Hop::Loader,
        sentence: "the client has its address and never asked for its loader".to_owned(),
        evidence: vec![text::line(answer)],
        next_action: "look for a filter of UDP 69 (or, for UEFI HTTP boot, TCP 8080) between host and appliance; and at the host's screen: another offer, without boot options, may have been first".into(),
    })
}
