//! `dayzero doctor`.

use super::wrap;
use dayzero_control::view::DoctorFinding;

/// Findings, the worst first.
pub(crate) fn findings(shown: &[DoctorFinding]) -> String {
    let mut text = String::new();
    for finding in shown {
        let place = finding.interface.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        let first = format!("{:<7}  {}{place}: ", finding.severity, finding.check);
        text.push_str(&wrap(&first, 9, &finding.found));
        if !finding.action.is_empty() {
            text.push_str(&wrap("         -> ", 12, &finding.action));
        }
    }
    text
}
