//! `dayzero why`.

use super::wrap;
use dayzero_control::view::WhyView;

/// Standing, findings, and the boot flight recorder.
pub(crate) fn why(view: &WhyView) -> String {
    let mut text = wrap(&format!("{}: ", view.subject), 2, &view.standing);
    if let Some(verdict) = view.findings.first().filter(|verdict| !verdict.hop.is_empty()) {
        text.push_str(&format!("Failing hop: {}\n", verdict.hop));
    }
    for (number, finding) in view.findings.iter().enumerate() {
        text.push('\n');
        text.push_str(&wrap(
            &format!("{}. ", number + 1),
            3,
            &format!("{} [{}]", finding.sentence, finding.rule),
        ));
        for evidence in &finding.evidence {
            text.push_str(&wrap("   - ", 5, evidence));
        }
        text.push_str(&wrap("   -> ", 6, &finding.next_action));
    }
    if view.findings.is_empty() {
        text.push_str("\nNothing seems wrong.\n");
    }
    text.push_str("\nBoot flight recorder\n");
    if view.text.is_empty() {
        text.push_str("  nothing recorded\n");
    }
    for line in &view.text {
        text.push_str(&wrap("  ", 6, line));
    }
    text
}
