//! A loader that this machine cannot start, or no loader at all for it.

use super::{Finding, Hop, SCRIPTED, WhyContext, last, reached};
use crate::text;
use dayzero_model::event::{Event, Ignored, What};

pub(super) fn apply(events: &[Event], _: &WhyContext<'_>) -> Option<Finding> {
    let none = |what: &What| matches!(what, What::DhcpIgnored { why: Ignored::NoLoader { .. }, .. });
    let (at, event) = last(events, |what| matches!(what, What::WrongLoader { .. }) || none(what))?;
    if reached(events, at, SCRIPTED) {
        return None;
    }
    let evidence = vec![text::line(event)];
    Some(match &event.what {
        What::WrongLoader { file, arch, made_for } => Finding {
            rule: "wrong-architecture",
            hop: Hop::Firmware,
            sentence: format!(
                "{file} is made for {made_for}, and was fetched by a{}: its firmware drops it without a word",
                text::arch(Some(*arch))
            ),
            evidence,
            next_action: format!("look what the appliance has as {file}: the loader of each architecture lies in its iPXE directory (`dayzero doctor` names it)").into(),
        },
        _ => Finding {
            rule: "no-loader",
            hop: Hop::Dhcp,
            sentence: "this machine's firmware says that it is of an architecture that we have no loader for".to_owned(),
            evidence,
            next_action: "switch its firmware's network boot to UEFI (x86-64), or give the appliance a loader for it".into(),
        },
    })
}
