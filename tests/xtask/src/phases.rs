//! How long each part of a task took: wall time, and CPU time of the programs that it ran.

use anyhow::Result;
use std::time::{Duration, Instant};

/// The parts so far, in order.
#[derive(Default)]
pub struct Phases {
    done: Vec<(&'static str, Duration, Duration)>,
}

impl Phases {
    /// Runs one part and notes it, whether it fails or not.
    pub fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (began, cpu) = (Instant::now(), children_cpu());
        let result = work();
        self.done.push((name, began.elapsed(), children_cpu().saturating_sub(cpu)));
        result
    }

    /// The table, with the sum.
    pub fn table(&self) -> String {
        let row = |name: &str, wall: Duration, cpu: Duration| {
            format!("{name:<28} {:>8.1} {:>8.1}\n", wall.as_secs_f64(), cpu.as_secs_f64())
        };
        let mut text = format!("{:<28} {:>8} {:>8}\n", "phase", "wall s", "CPU s");
        self.done.iter().for_each(|(name, wall, cpu)| text += &row(name, *wall, *cpu));
        text + &row("all", self.done.iter().map(|p| p.1).sum(), self.done.iter().map(|p| p.2).sum())
    }
}

/// Of the children that have ended and were waited for: fields 16 and 17 of `/proc/PID/stat`, in hundredths of a second.
fn children_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    Duration::from_millis(
        10 * fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_is_in_the_table_too() {
        let mut phases = Phases::default();
        assert_eq!(phases.run("good", || Ok(7)).unwrap(), 7);
        assert!(phases.run("bad", || -> Result<()> { anyhow::bail!("no") }).is_err());
        let table = phases.table();
        let names: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["phase", "good", "bad", "all"], "{table}");
    }

    #[test]
    fn the_cpu_time_of_a_program_is_counted() {
        let mut phases = Phases::default();
        let mut busy = std::process::Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
        phases.run("busy", || crate::shell::run(&mut busy)).unwrap();
        assert!(phases.done[0].2 > Duration::ZERO, "{}", phases.table());
    }
}
