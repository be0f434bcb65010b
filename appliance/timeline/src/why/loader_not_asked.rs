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
    if let What::DhcpOut { kind, file: Some(file), .. } = &answer.what
        && kind == "OFFER"
    {
        return Some(beside(answer, file));
    }
    Some(Finding {
        rule: "loader-not-asked",
        hop: Hop::Loader,
        sentence: "the client has its address and never asked for its loader".to_owned(),
        evidence: vec![text::line(answer)],
        next_action: "look for a filter of UDP 69 (or, for UEFI HTTP boot, TCP 8080) between host and appliance; and at the host's screen: another offer, without boot options, may have been first".into(),
    })
}

/// [`told`] names an offer only where it was a proxy's: another server gave the address, and the client took that alone.
fn beside(offer: &Event, file: &str) -> Finding {
    Finding {
        rule: "loader-not-asked",
        hop: Hop::Loader,
        sentence: format!(
            "the client took its address from another server, and never asked for {file}, which our offer beside it named"
        ),
        evidence: vec![text::line(offer)],
        next_action: format!(
            "its firmware may ignore proxyDHCP (some does, and some where the other server names a boot file of its own): in \
             the site's DHCP server set for this client {}, or plan `dhcp: serve` on this network; if it does heed it, look for \
             a filter of UDP 4011 and 69 (or, for UEFI HTTP boot, TCP 8080) between host and appliance",
            by_the_other(file)
        )
        .into(),
    }
}

/// What the other server must say in our place.
fn by_the_other(file: &str) -> String {
    if file.contains("://") {
        return format!("the boot file name (option 67) {file} and the vendor class (option 60) HTTPClient");
    }
    format!(
        "the appliance's address on this network as next-server (siaddr, option 66) and {file} as boot file (option 67)"
    )
}
