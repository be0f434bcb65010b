//! A stop as a person sees it, and whether it says what it must: pure functions of what the commands printed.

use super::Fault;
use crate::demo::client::Status;
use anyhow::{Result, ensure};
use dayzero_model::condition::{Cause, Condition, ConditionRecord, State};
use dayzero_model::event::{Event, What};
use std::collections::BTreeSet;

/// What was seen of a host that stopped.
#[derive(Clone, Debug)]
pub struct Stop {
    pub host: String,
    /// Its phase: the condition at which it stopped.
    pub condition: Condition,
    pub cause: Cause,
    /// `dayzero status`, `dayzero host show` and `dayzero why`, as a person reads them.
    pub status_text: String,
    pub show_text: String,
    pub why_text: String,
    pub status: Status,
}

/// What a cause's sentences must name.
#[derive(Clone, Debug, Default)]
pub struct Words {
    pub expected: Vec<String>,
    pub observed: Vec<String>,
    pub next: Vec<String>,
}

impl Words {
    pub fn new(expected: &[&str], observed: &[&str], next: &[&str]) -> Self {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self { expected: own(expected), observed: own(observed), next: own(next) }
    }
}

/// The first condition that is not met, if it failed.
pub fn failed(conditions: &[ConditionRecord]) -> Option<(Condition, &Cause)> {
    let phase = conditions.iter().find(|record| !matches!(record.state, State::Met { .. }))?;
    match &phase.state {
        State::Failed(cause) => Some((phase.condition, cause)),
        _ => None,
    }
}

/// One space between words: what is shown is wrapped.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// False if the host stopped elsewhere or by another cause, if a sentence does not name what was expected, observed and
/// to be done, if one of the three commands leaves one of them out, or if another host stopped by what is not its own.
pub fn judge(fault: &Fault, words: &Words, stop: &Stop, planted: &[(&str, &str)]) -> Result<()> {
    let cause = &stop.cause;
    ensure!(
        stop.host == fault.host && stop.condition == fault.condition && cause.code == fault.code,
        "{} stopped at {} by {}, not {} at {} by {}",
        stop.host,
        stop.condition,
        cause.code,
        fault.host,
        fault.condition,
        fault.code
    );
    let sentences = [
        ("expected", &cause.expected, &words.expected),
        ("observed", &cause.observed, &words.observed),
        ("next action", &cause.next_action, &words.next),
    ];
    for (what, said, wanted) in sentences {
        ensure!(!said.trim().is_empty(), "the cause says nothing as {what}");
        for word in wanted {
            ensure!(said.contains(word.as_str()), "{what} does not name '{word}': {said}");
        }
    }
    for (command, text) in
        [("status", &stop.status_text), ("host show", &stop.show_text), ("why", &stop.why_text)]
    {
        let text = flat(text);
        for part in [&cause.expected, &cause.observed, &cause.next_action] {
            ensure!(text.contains(&flat(part)), "`dayzero {command}` does not say '{part}':\n{text}");
        }
        ensure!(text.contains(&cause.code), "`dayzero {command}` does not say '{}'", cause.code);
    }
    let why = flat(&stop.why_text);
    ensure!(why.contains("[condition-failed]"), "`dayzero why` does not find it by its rule:\n{why}");
    others(fault, &stop.status, planted)
}

/// False if the verdict of `dayzero why` is another one, at another condition or of another host; if it does not name what
/// was observed and is to be done, or is not what a person reads; or if another host stopped by what is not its own.
pub fn judge_told(fault: &Fault, words: &Words, stop: &Stop, planted: &[(&str, &str)]) -> Result<()> {
    let cause = &stop.cause;
    ensure!(
        stop.host == fault.host && stop.condition == fault.condition && cause.code == fault.code,
        "why says {} of {} at {}, not {} of {} at {}: {}",
        cause.code,
        stop.host,
        stop.condition,
        fault.code,
        fault.host,
        fault.condition,
        cause.observed
    );
    let said =
        [("evidence", &cause.observed, &words.observed), ("next action", &cause.next_action, &words.next)];
    for (what, said, wanted) in said {
        for word in wanted {
            ensure!(said.contains(word.as_str()), "{what} does not name '{word}': {said}");
        }
    }
    let why = flat(&stop.why_text);
    for part in [format!("[{}]", fault.code), flat(&cause.sentence), flat(&cause.next_action)] {
        ensure!(why.contains(&part), "`dayzero why` does not say '{part}':\n{why}");
    }
    others(fault, &stop.status, planted)
}

/// No other host stopped, but by a fault that was planted on it.
fn others(fault: &Fault, status: &Status, planted: &[(&str, &str)]) -> Result<()> {
    for host in status.racks.iter().flat_map(|rack| &rack.hosts).filter(|host| host.name != fault.host) {
        if host.health != "failed" && host.health != "lost" {
            continue;
        }
        let own = planted
            .iter()
            .any(|(name, code)| *name == host.name && host.detail.starts_with(&format!("{code}:")));
        ensure!(own, "{} stopped together with {}: {}", host.name, fault.host, host.detail);
    }
    Ok(())
}

/// Codes by which a host ever stopped, from its timeline. Neither more nor fewer than were planted.
pub fn codes(timeline: &[Event]) -> BTreeSet<String> {
    let code = |event: &Event| match &event.what {
        What::Condition { state, detail, .. } if state == "failed" => {
            detail.split_once(':').map(|(code, _)| code.to_owned())
        }
        _ => None,
    };
    timeline.iter().filter_map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::client::{Rack, Summary, Todo};

    fn cause() -> Cause {
        Cause {
            code: "cable-swapped".into(),
            sentence: "2 cable(s) end elsewhere than planned".into(),
            expected: "pod-a at sw-a/1, pod-b at sw-b/1".into(),
            observed: "pod-a at sw-b/1, pod-b at sw-a/1".into(),
            next_action: "move the cable of pod-a from sw-b/1 to sw-a/1, then `dayzero host retry host1`"
                .into(),
        }
    }

    fn stop() -> Stop {
        let cause = cause();
        let text = format!(
            "x ({}) [condition-failed]\n expected:\n   {}\n {}\n {}",
            cause.code, cause.expected, cause.observed, cause.next_action
        );
        let host = |name: &str, health: &str, detail: &str| Summary {
            name: name.into(),
            phase: "Cabled".into(),
            health: health.into(),
            detail: detail.into(),
            progress: None,
            met: 6,
        };
        let hosts =
            vec![host("host1", "failed", "cable-swapped: x"), host("host2", "working", "waits for x")];
        Stop {
            host: "host1".into(),
            condition: Condition::Cabled,
            cause,
            status_text: text.clone(),
            show_text: text.clone(),
            why_text: text,
            status: Status { racks: vec![Rack { hosts }], todo: Vec::<Todo>::new(), pending: Vec::new() },
        }
    }

    fn fault() -> &'static Fault {
        &super::super::swapped_cable::FAULT
    }

    fn words() -> Words {
        Words::new(&["sw-a/1"], &["sw-b/1"], &["dayzero host retry host1"])
    }

    #[test]
    fn a_stop_that_says_everything_counts() {
        judge(fault(), &words(), &stop(), &[]).unwrap();
    }

    #[test]
    fn a_verdict_that_is_another_one_or_says_too_little_is_found() {
        let fault = &super::super::lacp_without_fallback::FAULT;
        let words = Words::new(&[], &["says the BMC"], &["LACP fallback"]);
        let told = || {
            let mut stop = stop();
            stop.condition = Condition::Vouched;
            stop.cause = Cause {
                code: "lacp-without-fallback".into(),
                sentence: "the ports wait for LACP".into(),
                expected: String::new(),
                observed: "52:54:00:00:00:01 has a link, says the BMC".into(),
                next_action: "switch LACP fallback on".into(),
            };
            stop.why_text = "the ports wait for LACP [lacp-without-fallback] switch LACP fallback on".into();
            stop.status.racks[0].hosts[0].health = "working".into();
            stop
        };
        judge_told(fault, &words, &told(), &[]).unwrap();
        type Spoil = fn(&mut Stop);
        let spoils: [(&str, Spoil); 5] = [
            ("another rule", |s| s.cause.code = "no-dhcp".into()),
            ("another condition", |s| s.condition = Condition::Found),
            ("without the BMC", |s| s.cause.observed = "power on since then".into()),
            ("no next action", |s| s.cause.next_action = "look".into()),
            ("not what a person reads", |s| s.why_text = "nothing is known".into()),
        ];
        for (what, spoil) in spoils {
            let mut spoiled = told();
            spoil(&mut spoiled);
            assert!(judge_told(fault, &words, &spoiled, &[]).is_err(), "{what}");
        }
    }

    #[test]
    fn each_thing_that_is_missing_or_wrong_is_found() {
        type Spoil = fn(&mut Stop);
        let spoils: [(&str, Spoil); 10] = [
            ("another condition", |s| s.condition = Condition::Matched),
            ("another cause", |s| s.cause.code = "timeout".into()),
            ("another host", |s| s.host = "host2".into()),
            ("expected without its word", |s| s.cause.expected = "cables as planned".into()),
            ("observed without its word", |s| s.cause.observed = "otherwise".into()),
            ("no next action", |s| s.cause.next_action = " ".into()),
            ("not in status", |s| s.status_text = "2 hosts".into()),
            ("not in why", |s| s.why_text = s.why_text.replace("pod-b at sw-a/1", "")),
            ("by another rule", |s| s.why_text = s.why_text.replace("[condition-failed]", "[no-dhcp]")),
            ("the other host stopped too", |s| {
                let other = &mut s.status.racks[0].hosts[1];
                (other.health, other.detail) = ("failed".into(), "foreign-disk: x".into());
            }),
        ];
        for (what, spoil) in spoils {
            let mut spoiled = stop();
            spoil(&mut spoiled);
            assert!(judge(fault(), &words(), &spoiled, &[]).is_err(), "{what}");
        }
        let mut own = stop();
        let other = &mut own.status.racks[0].hosts[1];
        (other.health, other.detail) = ("failed".into(), "foreign-disk: x".into());
        judge(fault(), &words(), &own, &[("host2", "foreign-disk")]).unwrap();
    }
}
