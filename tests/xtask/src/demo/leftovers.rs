//! What a run leaves on the machine: nothing. Every process is written down as it starts, ended by the kernel when xtask ends
//! however that ends, and what is left all the same is found by comparison and cleared by the next run.
//!
//! Only what is provably ours is ended: processes whose id and start time stand in our own file, of this boot; namespaces and
//! machines that the lab daemon's own file proves to be the lab's.

use crate::{build, packages, paths, shell};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A process by id and start time, which together name it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pid: i32,
    start: u64,
}

/// One run's processes, written before they are used.
#[derive(Default, Serialize, Deserialize)]
struct Ours {
    /// Of another boot no id below means anything.
    boot: String,
    /// The xtask that runs the demo.
    owner: Option<Process>,
    /// What it started, with the signal that ends it.
    processes: Vec<(Process, Ending)>,
}

/// How a process of ours is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// SIGTERM: it takes down what it made.
    Asked,
    /// SIGKILL: the first process of a pid namespace, which ends with it.
    Killed,
}

impl Ending {
    fn signal(self) -> Signal {
        match self {
            Self::Asked => Signal::SIGTERM,
            Self::Killed => Signal::SIGKILL,
        }
    }
}

/// Held while a process is started and while all are ended, so that none slips in between.
static GATE: Mutex<()> = Mutex::new(());

fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file() -> std::path::PathBuf {
    paths::demo().join("ours.json")
}

fn boot() -> Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the kernel's boot id")
}

/// Starts a process of the demo in a group of its own, so that Ctrl-C reaches xtask alone, and writes it down. It gets its
/// ending signal from the kernel when the calling thread ends: call it on one that lives as long as xtask.
pub fn start(command: &mut Command, ending: Ending) -> Result<Child> {
    let _none_is_being_ended = gate();
    let shown = format!("{command:?}");
    // SAFETY: between fork and exec one system call is made (prctl), and nothing is allocated.
    unsafe {
        command.pre_exec(move || Ok(nix::sys::prctl::set_pdeathsig(ending.signal())?));
    }
    let child = command.process_group(0).spawn().with_context(|| format!("starting {shown}"))?;
    let process = Process::of(i32::try_from(child.id())?).context("the process ended at once")?;
    write(|ours| ours.processes.push((process, ending)))?;
    Ok(child)
}

/// Writes down that this xtask runs a demo now.
pub fn claim() -> Result<()> {
    let _none_is_being_started = gate();
    write(|_| ())
}

fn write(edit: impl FnOnce(&mut Ours)) -> Result<()> {
    let mut ours = read()?;
    ours.boot = boot()?;
    ours.owner = Process::of(i32::try_from(std::process::id())?);
    edit(&mut ours);
    fs::create_dir_all(paths::demo())?;
    let fresh = file().with_extension("new");
    fs::write(&fresh, serde_json::to_vec(&ours)?)?;
    fs::rename(fresh, file()).context("writing down what runs")
}

/// What the file says; nothing of another boot, nothing of a file that cannot be read as one.
fn read() -> Result<Ours> {
    match fs::read(file()) {
        Ok(bytes) => {
            let ours: Ours = serde_json::from_slice(&bytes).unwrap_or_default();
            Ok(if ours.boot == boot()? { ours } else { Ours::default() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ours::default()),
        Err(error) => Err(error).context("reading what an earlier run left"),
    }
}

/// Another xtask that runs a demo now.
pub fn other_owner() -> Result<Option<Process>> {
    let own = i32::try_from(std::process::id())?;
    Ok(read()?.owner.filter(|owner| owner.pid != own && owner.alive()))
}

/// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        start_time(pid).map(|start| Self { pid, start })
    }

    /// Whether this very process runs; one that has ended and was not waited for does not.
    pub fn alive(self) -> bool {
        start_time(self.pid) == Some(self.start) && !is_zombie(self.pid)
    }

    /// Sends a signal and waits. True once it is gone.
    pub fn end(self, signal: Signal, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        if self.alive() {
            let _ended_just_now = kill(Pid::from_raw(self.pid), signal);
        }
        while self.alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.alive()
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

/// Ends what an earlier run left, removes its directory, and says what it was.
///
/// # Errors
/// When another xtask's demo runs, or something does not end.
pub fn clear() -> Result<Vec<String>> {
    if let Some(owner) = other_owner()? {
        bail!("a demo runs already ({owner}): stop it with `cargo xtask demo --stop`");
    }
    let cleared = end_all()?;
    packages::give_back();
    if paths::demo().exists() {
        fs::remove_dir_all(paths::demo()).context("removing the demo's working directory")?;
    }
    Ok(cleared)
}

/// Ends every process and namespace of the demo; logs and disks stay. Says what was ended.
pub fn end_all() -> Result<Vec<String>> {
    let _none_is_being_started = gate();
    end_all_gated()
}

/// As [`clear`], for a demo that is interrupted: no process can be started any more, by any thread.
pub fn clear_for_good() -> Result<Vec<String>> {
    std::mem::forget(gate());
    let mut cleared = end_all_gated()?;
    cleared.extend(end_descendants());
    fs::remove_dir_all(paths::demo()).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    Ok(cleared)
}

fn end_all_gated() -> Result<Vec<String>> {
    let mut cleared = Vec::new();
    // The last one first: the control plane before the rack that it runs in.
    for (process, ending) in read()?.processes.into_iter().rev() {
        if process.alive() {
            let gone = process.end(ending.signal(), Duration::from_secs(30))
                || process.end(Signal::SIGKILL, Duration::from_secs(5));
            ensure!(gone, "{process} does not end");
            cleared.push(process.to_string());
        }
    }
    // The lab daemon clears its own namespaces when it is asked to end; one that was killed left its list behind.
    let lab = paths::demo().join("rack");
    if lab.join("lab-state.json").exists() {
        if !paths::binary("dayzero").exists() {
            build::binaries()?;
        }
        let mut clean = Command::new(paths::binary("dayzero"));
        shell::read(clean.args(["rehearse", "--clean", "--dir"]).arg(&lab))?;
        cleared.push("namespaces and machines of a rack whose daemon was killed".to_owned());
    }
    Ok(cleared)
}

/// Ends what this process and its children have started and nobody wrote down: a build, a tool.
fn end_descendants() -> Vec<String> {
    let running: Vec<Process> = descendants(std::process::id() as i32)
        .into_iter()
        .filter_map(Process::of)
        .filter(|process| process.alive())
        .collect();
    for process in &running {
        let _ended_just_now = kill(Pid::from_raw(process.pid), Signal::SIGTERM);
    }
    for process in &running {
        let _no_more_can_be_done = process.end(Signal::SIGTERM, Duration::from_secs(5))
            || process.end(Signal::SIGKILL, Duration::from_secs(5));
    }
    running.iter().map(Process::to_string).collect()
}

/// Children of a process, theirs, and so on.
pub fn descendants(of: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![of];
    while let Some((pid, _)) = parents.iter().find(|(pid, of)| family.contains(of) && !family.contains(pid)) {
        family.push(*pid);
    }
    family.split_off(1)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// What of our kinds is on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    things: BTreeSet<String>,
}

impl Snapshot {
    /// Namespaces, processes of ours, mounts, loop devices, firewall rules, links of the root namespace.
    pub fn take() -> Result<Self> {
        Ok(Self::of([
            ("namespace", shell::read(Command::new("ip").args(["netns", "list"]))?),
            ("link", links(&shell::read(Command::new("ip").args(["-o", "link"]))?)),
            ("mount", fs::read_to_string("/proc/self/mounts")?),
            ("loop device", loop_devices()?),
            ("rule", shell::ask(Command::new("nft").args(["list", "ruleset"]))?.stdout),
            ("process", processes()),
        ]))
    }

    /// Things by kind, one a line.
    pub fn of(kinds: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let mut things = BTreeSet::new();
        for (kind, text) in kinds {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            things.extend(lines.map(|line| format!("{kind} {line}")));
        }
        Self { things }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.things.len()
    }

    /// What is there now and was not there before.
    pub fn added_since(&self, before: &Snapshot) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}

/// The machine's loop devices with the files behind them, one a line.
pub fn loop_devices() -> Result<String> {
    Ok(shell::ask(Command::new("losetup").args(["-n", "-O", "NAME,BACK-FILE"]))?.stdout)
}

/// Names in what `ip -o link` shows.
pub fn links(text: &str) -> String {
    text.lines().filter_map(|line| line.split(": ").nth(1)).collect::<Vec<_>>().join("\n")
}

/// Programs of ours whose arguments name neither the demo's directory nor our binary.
const STRANGERS: [&str; 3] = ["tgtd", "chromedriver", "chromium"];

/// Processes that could be ours: by what they run.
fn processes() -> String {
    let ours = [
        paths::demo().to_string_lossy().into_owned(),
        paths::binary("dayzero").to_string_lossy().into_owned(),
    ];
    let mut found = Vec::new();
    for pid in pids() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&line).replace('\0', " ");
        let named = ours.iter().any(|mark| text.contains(mark.as_str())) || is_stranger(&text);
        if named && !is_zombie(pid) {
            found.push(shown(pid, &text));
        }
    }
    found.join("\n")
}

fn is_stranger(arguments: &str) -> bool {
    let program = arguments.split(' ').next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    STRANGERS.contains(&name)
}

/// Those of these processes that run, one a line.
pub fn running(pids: &[i32]) -> String {
    let line = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        (!is_zombie(*pid)).then(|| shown(*pid, &String::from_utf8_lossy(&arguments).replace('\0', " ")))
    };
    pids.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

fn shown(pid: i32, arguments: &str) -> String {
    format!("{pid} {}", arguments.chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_racks_daemons_are_ours_whatever_their_arguments_are() {
        for (line, ours) in [
            ("tgtd -f --iscsi portal=10.77.11.10", true),
            ("/usr/bin/chromedriver --port=9515", true),
            ("/usr/lib/chromium/chromium --type=renderer", true),
            ("vi tgtd", false),
        ] {
            assert_eq!(is_stranger(line), ours, "{line}");
        }
    }

    #[test]
    fn what_was_added_is_named() {
        let set = |items: &[&str]| Snapshot { things: items.iter().map(|item| (*item).to_owned()).collect() };
        assert_eq!(set(&["a", "b"]).added_since(&set(&["a", "c"])), ["b"]);
    }

    #[test]
    fn a_process_is_ended_and_one_that_has_its_id_later_is_not_it() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        let later = Process { start: process.start + 1, ..process };
        assert!(process.alive() && !later.alive());
        assert!(later.end(Signal::SIGKILL, Duration::ZERO), "gone, since it was never there");
        assert!(process.alive(), "another process's end is not ours");
        assert!(process.end(Signal::SIGKILL, Duration::from_secs(20)));
        child.wait().unwrap();
    }
}
