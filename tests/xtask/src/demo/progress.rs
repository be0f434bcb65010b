//! Live progress: on a terminal one line a host, redrawn; elsewhere a plain line for each change.

use super::client::{Status, Summary};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is shown, and what was shown last.
pub struct Progress {
    zero: Instant,
    terminal: bool,
    drawn: usize,
    shown: HashMap<String, String>,
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
                let line: String = self.line(host, true).chars().take(150).collect();
                println!("{line}");
            }
            self.drawn = hosts.len();
            let _ = std::io::stdout().flush();
            return;
        }
        for host in hosts {
            let key = format!("{} {}", host.phase, host.detail);
            if self.shown.get(&host.name) != Some(&key) {
                let line = self.line(host, false);
                println!("{} {line}", clock(self.zero.elapsed()));
                self.shown.insert(host.name.clone(), key);
            }
        }
    }

    fn line(&mut self, host: &Summary, clocked: bool) -> String {
        let now = Instant::now();
        let (phase, since) = self.since.entry(host.name.clone()).or_insert_with(|| (host.phase.clone(), now));
        if *phase != host.phase {
            (*phase, *since) = (host.phase.clone(), now);
        }
        let elapsed = since.elapsed();
        let mut line = format!("{:<8} {:>2}/12 {:<12} {}", host.name, host.met, host.phase, host.detail);
        if let Some(step) = host.progress.as_ref().filter(|step| step.total > 0) {
            let part = step.done as f64 / step.total as f64;
            line += &format!(" [{} {:.0} %{}]", step.what, part * 100.0, eta(elapsed, part));
        }
        if clocked {
            format!("{} {line} ({} in this step)", clock(self.zero.elapsed()), clock(elapsed))
        } else {
            line
        }
    }

    fn wipe(&mut self) {
        if self.terminal && self.drawn > 0 {
            print!("\x1b[{}F\x1b[J", self.drawn);
        }
        self.drawn = 0;
    }
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
