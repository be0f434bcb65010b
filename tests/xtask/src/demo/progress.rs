//! Live progress: on a terminal one line a host, redrawn; elsewhere a plain line for each change. Each says the same.

use super::client::{Status, Summary};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A plain line says the same again after this, with its times as they are then.
const AGAIN: Duration = Duration::from_secs(15);
/// What the long steps take on two cores without KVM (README's table), s: for those that do not count what they do.
const USUAL: [(&str, u64); 5] =
    [("Found", 4), ("Vouched", 60), ("Imaged", 60), ("Wired", 10), ("Proven", 90)];

/// What is shown, and what was shown last.
pub struct Progress {
    zero: Instant,
    terminal: bool,
    drawn: usize,
    shown: HashMap<String, (String, Instant)>,
    since: HashMap<String, (String, Instant)>,
}

impl Progress {
    /// Times count from `zero`.
    pub fn new(zero: Instant) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { zero, terminal, drawn: 0, shown: HashMap::new(), since: HashMap::new() }
    }

    /// A line that stays.
    pub fn say(&mut self, line: &str) {
        self.wipe();
        println!("{} {line}", clock(self.zero.elapsed()));
    }

    /// The hosts as they are now.
    pub fn show(&mut self, status: &Status) {
        let hosts: Vec<&Summary> = status.racks.iter().flat_map(|rack| &rack.hosts).collect();
        if self.terminal {
            self.wipe();
            for host in &hosts {
                let line: String = self.line(host).chars().take(150).collect();
                println!("{line}");
            }
            self.drawn = hosts.len();
            let _ = std::io::stdout().flush();
            return;
        }
        for host in hosts {
            let key = format!("{} {}", host.phase, host.detail);
            let moves = host.met < 12;
            let shown = self.shown.get(&host.name);
            if shown.is_none_or(|(last, at)| *last != key || moves && at.elapsed() >= AGAIN) {
                println!("{}", self.line(host));
                self.shown.insert(host.name.clone(), (key, Instant::now()));
            }
        }
    }

    fn line(&mut self, host: &Summary) -> String {
        let now = Instant::now();
        let (phase, since) = self.since.entry(host.name.clone()).or_insert_with(|| (host.phase.clone(), now));
        if *phase != host.phase {
            (*phase, *since) = (host.phase.clone(), now);
        }
        line(self.zero.elapsed(), since.elapsed(), host)
    }

    fn wipe(&mut self) {
        if self.terminal && self.drawn > 0 {
            print!("\x1b[{}F\x1b[J", self.drawn);
        }
        self.drawn = 0;
    }
}

/// Elapsed time of the run, the host, its step, time in that step, how far it is, when it may end, what it waits for: what is
/// long comes last, since a terminal's line is cut.
fn line(run: Duration, step: Duration, host: &Summary) -> String {
    let progress = host.progress.as_ref().filter(|progress| progress.total > 0).map(|progress| {
        let part = progress.done as f64 / progress.total as f64;
        format!(", {} {:.0} %{}", progress.what, part * 100.0, eta(step, part))
    });
    let progress = progress.or_else(|| {
        let (_, usual) = USUAL.iter().find(|(phase, _)| *phase == host.phase)?;
        Some(match usual.checked_sub(step.as_secs()).filter(|left| *left > 0) {
            Some(left) => format!(", about {left} s left"),
            None => format!(", longer than its usual {usual} s"),
        })
    });
    format!(
        "{} {:<8} {:>2}/12 {:<12} {} in this step{}; {}",
        clock(run),
        host.name,
        host.met,
        host.phase,
        clock(step),
        progress.unwrap_or_default(),
        host.detail
    )
}

fn eta(elapsed: Duration, part: f64) -> String {
    if part < 0.05 {
        return String::new();
    }
    format!(", about {:.0} s left", elapsed.as_secs_f64() * (1.0 - part) / part)
}

fn clock(span: Duration) -> String {
    format!("{:>2}:{:02}", span.as_secs() / 60, span.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::super::client;
    use super::*;

    fn host(phase: &str, progress: Option<(u64, u64)>) -> Summary {
        Summary {
            name: "host1".into(),
            phase: phase.into(),
            health: "working".into(),
            detail: "the image to be on its disk".into(),
            progress: progress.map(|(done, total)| client::Progress { what: "chunks".into(), done, total }),
            met: 8,
        }
    }

    #[test]
    fn a_line_has_both_times_the_share_the_end_and_what_is_waited_for() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line(seconds(95), seconds(30), &host("Imaged", Some((75, 100)))),
            " 1:35 host1     8/12 Imaged        0:30 in this step, chunks 75 %, about 10 s left; the image to be on its disk"
        );
        assert_eq!(
            line(seconds(95), seconds(3), &host("Imaged", Some((1, 100)))),
            " 1:35 host1     8/12 Imaged        0:03 in this step, chunks 1 %; the image to be on its disk"
        );
        assert_eq!(
            line(seconds(600), seconds(61), &host("Proven", None)),
            "10:00 host1     8/12 Proven        1:01 in this step, about 29 s left; the image to be on its disk"
        );
        assert_eq!(
            line(seconds(600), seconds(95), &host("Proven", None)),
            "10:00 host1     8/12 Proven        1:35 in this step, longer than its usual 90 s; the image to be on its disk"
        );
        assert_eq!(
            line(seconds(600), seconds(1), &host("Matched", None)),
            "10:00 host1     8/12 Matched       0:01 in this step; the image to be on its disk"
        );
    }

    #[test]
    fn time_in_a_step_begins_anew_with_the_next_one() {
        let mut progress = Progress::new(Instant::now());
        let long = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        progress.since.insert("host1".into(), ("Imaged".into(), long));
        assert!(progress.line(&host("Imaged", None)).contains(" 1:30 in this step"));
        assert!(progress.line(&host("Wired", None)).contains(" 0:00 in this step"));
    }
}
