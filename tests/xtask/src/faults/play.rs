//! The play: both hosts are watched at once; each meets its faults one after the other, and each fault is planted before
//! the host can get to where it matters.

use super::bench::{Bench, HOSTS};
use super::stop::{self, Stop};
use super::{Fault, Told};
use crate::build::Images;
use crate::demo::client::{Client, HostView};
use crate::demo::progress::Progress;
use crate::demo::rack::Rack;
use anyhow::{Context, Result, bail, ensure};
use dayzero_model::condition::{Cause, Condition, State};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The whole run, at most.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Where a host is in its faults.
enum Stage {
    /// The fault with this number is planted; the host must stop by it.
    Planted(usize),
    /// It is mended; the host must get past its condition.
    Mended(usize),
    /// All are over; the host must start from its disk.
    Last,
    Done,
}

struct Part {
    host: &'static str,
    faults: Vec<&'static Fault>,
    stage: Stage,
    since: Instant,
}

/// Plays the faults; one line for each.
pub fn play(rack: &mut Rack, images: &Images, faults: &[&'static Fault]) -> Result<Vec<String>> {
    let mut play =
        Play { bench: Bench::new(&rack.plan, images), progress: Progress::new(rack.zero), lines: Vec::new() };
    let of = |host: &'static str| {
        let faults: Vec<_> = faults.iter().filter(|fault| fault.host == host).copied().collect();
        let stage = if faults.is_empty() { Stage::Last } else { Stage::Planted(0) };
        Part { host, faults, stage, since: Instant::now() }
    };
    let mut parts = HOSTS.map(of);
    for part in &parts {
        if let Some(fault) = part.faults.first() {
            play.plant(fault)?;
        }
    }
    play.bench.apply(&play.bench.first_plan)?;
    let until = Instant::now() + PATIENCE;
    while !parts.iter().all(|part| matches!(part.stage, Stage::Done)) {
        ensure!(Instant::now() < until, "the hosts are not done after {} s", PATIENCE.as_secs());
        rack.check_alive()?;
        play.progress.show(&play.bench.client.status()?);
        for at in 0..parts.len() {
            let planted: Vec<_> = parts
                .iter()
                .filter_map(|part| match part.stage {
                    Stage::Planted(n) => Some((part.host, part.faults[n].code)),
                    _ => None,
                })
                .collect();
            play.look(&mut parts[at], &planted)?;
        }
        std::thread::sleep(Duration::from_millis(400));
    }
    for part in &parts {
        play.nothing_else(part)?;
    }
    Ok(play.lines)
}

/// What a person would look at next.
pub fn diagnose() {
    for args in [&["status"][..], &["why", HOSTS[0]], &["why", HOSTS[1]]] {
        if let Ok(said) = Client.call(args) {
            println!("{}", said.stdout);
        }
    }
}

struct Play {
    bench: Bench,
    progress: Progress,
    lines: Vec<String>,
}

impl Play {
    fn plant(&mut self, fault: &Fault) -> Result<()> {
        (fault.plant)(&mut self.bench).with_context(|| format!("planting {}", fault.name))?;
        self.progress.say(&format!("planted on {}: {}", fault.host, fault.name));
        Ok(())
    }

    fn look(&mut self, part: &mut Part, planted: &[(&str, &str)]) -> Result<()> {
        if matches!(part.stage, Stage::Done) {
            return Ok(());
        }
        let view = self.bench.client.host(part.host)?;
        let failed = stop::failed(&view.conditions);
        match part.stage {
            Stage::Planted(n) => match failed {
                Some(_) => {
                    let fault = part.faults[n];
                    let stopped = part.since.elapsed();
                    let seen =
                        self.stopped(fault, planted).with_context(|| format!("fault {}", fault.name))?;
                    self.lines.push(format!(
                        "{:<15} {} stopped at {} ({}) after {:.0} s; {seen}",
                        fault.name,
                        part.host,
                        fault.condition,
                        fault.code,
                        stopped.as_secs_f64()
                    ));
                    self.mend(part, n)?;
                }
                None if is_met(&view, part.faults[n].condition) => {
                    bail!(
                        "{} went past {} in spite of {}",
                        part.host,
                        part.faults[n].condition,
                        part.faults[n].name
                    )
                }
                None if part.faults[n].told == Told::Why => self.told(part, n, planted)?,
                None => {}
            },
            Stage::Mended(n) => {
                let fault = part.faults[n];
                if let Some((condition, cause)) =
                    failed.filter(|(condition, _)| *condition <= fault.condition)
                    && part.faults.get(n + 1).is_none_or(|next| next.code != cause.code)
                {
                    bail!("{} was mended, and {} stopped at {condition}: {cause:?}", fault.name, part.host);
                }
                let next = n + 1;
                // A second fault at the same condition shows before that condition is met.
                let same = part.faults.get(next).is_some_and(|next| next.condition == fault.condition);
                if same || is_met(&view, fault.condition) {
                    self.progress.say(&format!("{} carries on past {}", part.host, fault.name));
                    let took = part.since.elapsed().as_secs_f64();
                    self.lines.push(format!(
                        "{:<15} {} carried on past {} {took:.0} s after it was mended",
                        fault.name, part.host, fault.condition
                    ));
                    part.stage = if next < part.faults.len() { Stage::Planted(next) } else { Stage::Last };
                    part.since = Instant::now();
                }
            }
            Stage::Last => match failed {
                Some((condition, cause)) => bail!("{} stopped at {condition}: {cause:?}", part.host),
                None if is_met(&view, Condition::Imaged) => {
                    let evidence = view.conditions.iter().find_map(|record| match &record.state {
                        State::Met { evidence, .. } if record.condition == Condition::Imaged => {
                            Some(evidence)
                        }
                        _ => None,
                    });
                    self.lines.push(format!(
                        "{} started from disk: {}",
                        part.host,
                        evidence.cloned().unwrap_or_default()
                    ));
                    part.stage = Stage::Done;
                }
                None => {}
            },
            Stage::Done => {}
        }
        Ok(())
    }

    /// Asks why a host is silent, and once there is a verdict, judges it.
    fn told(&mut self, part: &mut Part, n: usize, planted: &[(&str, &str)]) -> Result<()> {
        let (fault, bench) = (part.faults[n], &self.bench);
        let view = bench.client.host(fault.host)?;
        let phase = view.conditions.iter().find(|record| !matches!(record.state, State::Met { .. }));
        let Some(condition) = phase.map(|phase| phase.condition).filter(|phase| *phase == fault.condition)
        else {
            return Ok(());
        };
        let Some(verdict) = bench.client.why(fault.host)?.findings.into_iter().next() else { return Ok(()) };
        let cause = Cause {
            code: verdict.rule,
            sentence: verdict.sentence,
            expected: String::new(),
            observed: verdict.evidence.join("; "),
            next_action: verdict.next_action,
        };
        let stop = Stop {
            host: fault.host.to_owned(),
            condition,
            cause,
            status: bench.client.status()?,
            status_text: String::new(),
            show_text: String::new(),
            why_text: bench.must(&["why", fault.host])?,
        };
        stop::judge_told(fault, &(fault.words)(bench), &stop, planted)
            .with_context(|| format!("fault {}", fault.name))?;
        let seen = (fault.also)(bench, &stop)?;
        let Cause { sentence, observed, next_action, .. } = &stop.cause;
        self.progress.say(&format!(
            "{} is silent, and why says: {sentence}\n        observed: {observed}\n        next: {next_action}\n        {seen}",
            fault.host
        ));
        self.lines.push(format!(
            "{:<15} {} told by why at {} ({}) after {:.0} s; {seen}",
            fault.name,
            part.host,
            fault.condition,
            fault.code,
            part.since.elapsed().as_secs_f64()
        ));
        self.mend(part, n)
    }

    /// Looks at a stopped host by every command that shows it, and judges what they say.
    fn stopped(&mut self, fault: &Fault, planted: &[(&str, &str)]) -> Result<String> {
        let bench = &self.bench;
        let view = bench.client.host(fault.host)?;
        let (condition, cause) = stop::failed(&view.conditions).context("it goes on by itself")?;
        let stop = Stop {
            host: fault.host.to_owned(),
            condition,
            cause: cause.clone(),
            status: bench.client.status()?,
            status_text: bench.must(&["status"])?,
            show_text: bench.must(&["host", "show", fault.host])?,
            why_text: bench.must(&["why", fault.host])?,
        };
        stop::judge(fault, &(fault.words)(bench), &stop, planted)?;
        let seen = (fault.also)(bench, &stop)?;
        self.progress.say(&format!(
            "{} stopped: {}\n        expected: {}\n        observed: {}\n        next: {}\n        {seen}",
            fault.host, cause.sentence, cause.expected, cause.observed, cause.next_action
        ));
        Ok(seen)
    }

    /// A person mends the fault; the next one is planted before the host goes on.
    fn mend(&mut self, part: &mut Part, n: usize) -> Result<()> {
        let fault = part.faults[n];
        if let Some(next) = part.faults.get(n + 1) {
            self.plant(next)?;
        }
        (fault.mend)(&mut self.bench).with_context(|| format!("mending {}", fault.name))?;
        self.bench.must(&["host", "retry", part.host])?;
        self.progress.say(&format!("mended on {}: {}; retry", part.host, fault.name));
        part.stage = Stage::Mended(n);
        part.since = Instant::now();
        Ok(())
    }

    /// False if a host ever stopped by something that was not planted on it.
    fn nothing_else(&self, part: &Part) -> Result<()> {
        let seen = stop::codes(&self.bench.client.host(part.host)?.timeline);
        let planted: BTreeSet<String> = part
            .faults
            .iter()
            .filter(|fault| fault.told == Told::Stop)
            .map(|fault| fault.code.to_owned())
            .collect();
        ensure!(seen == planted, "{} stopped by {seen:?}, and planted was {planted:?}", part.host);
        Ok(())
    }
}

fn is_met(view: &HostView, condition: Condition) -> bool {
    view.conditions
        .iter()
        .any(|record| record.condition == condition && matches!(record.state, State::Met { .. }))
}
