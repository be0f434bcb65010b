//! Whether this machine's clock can be right: certificates are made by it, and leases end by it.
//!
//! Nobody is asked: a clock is known to be wrong if it is before what was written by it, or before this program. Whether it
//! is ahead, only somebody with the time knows: the kernel says whether a time service keeps it (`adjtimex`), and else a
//! person is asked to compare, with how far it is from what was written last.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;

use super::{Finding, Severity};

/// The year in which this was written.
const YEAR_2026: u64 = 1_767_225_600;
/// Files that are looked at.
const FILES: usize = 4096;
/// Directories beneath the first.
const DEPTH: usize = 3;
/// What was written at the same moment may be later by this: file systems have clocks of their own.
const SLACK: Duration = Duration::from_secs(60);
/// An appliance that wrote nothing for longer was off, or its clock is ahead.
const LONG: Duration = Duration::from_secs(180 * 86_400);
const NTP: &str = "set up a time service (chrony, systemd-timesyncd) with servers that are near";

/// What the kernel knows of this machine's clock, and when something was last written here.
pub(super) fn clock(written: &[PathBuf]) -> Finding {
    let newest = written.iter().filter_map(|dir| newest(dir)).max();
    judge(SystemTime::now(), kept(), newest)
}

/// Whether a time service keeps the clock, as it told the kernel.
fn kept() -> bool {
    // SAFETY: a `timex` of zeros is one, and asks for nothing to be changed; the kernel fills it within the call.
    let (state, told) = unsafe {
        let mut told: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut told), told)
    };
    state >= 0 && state != libc::TIME_ERROR && told.status & libc::STA_UNSYNC == 0
}

/// When the newest file of a directory and of those beneath it was written.
fn newest(dir: &Path) -> Option<SystemTime> {
    let (mut newest, mut left) = (None, FILES);
    let mut next = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = next.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if left == 0 {
                return newest;
            }
            left -= 1;
            // Of a link itself: what it points to may be somebody else's.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() && depth < DEPTH {
                next.push((entry.path(), depth + 1));
            } else if about.is_file() {
                newest = newest.max(about.modified().ok());
            }
        }
    }
    newest
}

fn judge(now: SystemTime, kept: bool, written: Option<SystemTime>) -> Finding {
    let finding = |severity, found: String, action: &str| Finding::new("clock", severity, found, action);
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let says = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds(now)));
    if seconds(now) < YEAR_2026 {
        let found = format!("the clock says {says}: that is before Dayzero was written");
        return finding(Severity::Fault, found, "set the clock: certificates made now would be of no use");
    }
    let written = written.unwrap_or(now);
    if let Ok(ahead) = written.duration_since(now)
        && ahead > SLACK
    {
        let found = format!(
            "the clock says {says}, but the appliance wrote something {} later than that: it ran back, or was ahead then",
            span(ahead)
        );
        let action = "set the clock; if it was ahead before, leases and certificates made then hold for longer than they say";
        return finding(Severity::Fault, found, action);
    }
    if kept {
        return finding(Severity::Good, format!("the clock says {says}, and a time service keeps it"), "");
    }
    let since = now.duration_since(written).unwrap_or_default();
    if since > LONG {
        let found = format!(
            "the clock says {says}; no time service keeps it, and the appliance wrote nothing for {}: it was off for so long, or the clock is ahead",
            span(since)
        );
        return finding(Severity::Warning, found, &format!("compare it with a watch; {NTP}"));
    }
    let found = format!("the clock says {says}, and no time service keeps it");
    finding(Severity::Warning, found, &format!("compare it with a watch; {NTP}"))
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..7200 => format!("{} minutes", seconds / 60),
        seconds @ ..172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(YEAR_2026 + 400 * 86_400);
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_clock_is_good_only_if_somebody_keeps_it() {
        let now = UNIX_EPOCH + NOW;
        let rows = [
            (UNIX_EPOCH, true, None, Severity::Fault, "before Dayzero was written"),
            (now, true, None, Severity::Good, "a time service keeps it"),
            (now, true, Some(now - DAY), Severity::Good, "a time service keeps it"),
            (now, true, Some(now - 1000 * DAY), Severity::Good, "a time service keeps it"),
            // The kernel believes its service, but what is there is later.
            (now, true, Some(now + DAY), Severity::Fault, "24 hours later"),
            (now, false, Some(now + 3 * DAY), Severity::Fault, "3 days later"),
            (now, false, Some(now + SLACK), Severity::Warning, "no time service keeps it"),
            (now, false, None, Severity::Warning, "Fri, 05 Feb 2027 00:00:00 GMT"),
            // Three years ahead, nobody keeps it.
            (now + 1095 * DAY, false, Some(now), Severity::Warning, "wrote nothing for 1095 days"),
        ];
        for (now, kept, written, severity, says) in rows {
            let finding = judge(now, kept, written);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.found.contains(says), "{finding:?}, not {says}");
            assert_eq!(finding.action.is_empty(), severity == Severity::Good, "{finding:?}");
        }
    }

    #[test]
    fn what_was_written_last_is_found_beneath_and_a_link_leads_nowhere() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(newest(dir.path()), None, "nothing was written");
        let at = |path: &Path, days: u32| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = std::fs::File::create(path).unwrap();
            file.set_modified(UNIX_EPOCH + NOW + days * DAY).unwrap();
        };
        at(&dir.path().join("store/log/7"), 7);
        at(&dir.path().join("secrets"), 3);
        at(&other.path().join("not-ours"), 9);
        std::os::unix::fs::symlink(other.path(), dir.path().join("away")).unwrap();
        assert_eq!(newest(dir.path()), Some(UNIX_EPOCH + NOW + 7 * DAY));
        let told = clock(&[dir.path().to_owned(), dir.path().join("none")]);
        assert_eq!(told.check, "clock");
    }
}
