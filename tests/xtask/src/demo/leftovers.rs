//! What a run leaves on the machine: nothing. Found by comparison, and cleared when an earlier run was killed.
//!
//! Only what is provably ours is ended: processes whose id and start time stand in our own file, namespaces with the
//! lab's names that this file says were made by us.

use crate::{paths, shell};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Processes and namespaces of one run, written before they are used.
#[derive(Default, Serialize, Deserialize)]
struct Ours {
    processes: Vec<(i32, u64)>,
}

fn file() -> std::path::PathBuf {
    paths::demo().join("ours.json")
}

/// Writes a process of ours down: its id and start time, which together name it for good.
pub fn note_process(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid)?;
    let mut ours = read()?;
    ours.processes.push((pid, start_time(pid).context("the process ended at once")?));
    fs::create_dir_all(paths::demo())?;
    fs::write(file(), serde_json::to_vec(&ours)?)?;
    Ok(())
}

fn read() -> Result<Ours> {
    match fs::read(file()) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ours::default()),
        Err(error) => Err(error).context("reading what an earlier run left"),
    }
}

/// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Ends what an earlier run left; says what.
pub fn clear() -> Result<Vec<String>> {
    let mut cleared = Vec::new();
    for (pid, start) in read()?.processes {
        if start_time(pid) == Some(start) && end(pid, start) {
            cleared.push(format!("process {pid}"));
        }
    }
    // The lab daemon clears its own namespaces when it is asked to end; one that was killed left its list behind.
    let lab = paths::demo().join("rack");
    if lab.join("lab-state.json").exists() && paths::binary("dayzero").exists() {
        let said = shell::ask(
            Command::new(paths::binary("dayzero")).arg("rehearse").arg("--dir").arg(&lab).arg("--clean"),
        )?;
        cleared.extend(said.stdout.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    }
    if paths::demo().exists() {
        fs::remove_dir_all(paths::demo()).context("removing the demo's working directory")?;
    }
    Ok(cleared)
}

/// SIGTERM, then SIGKILL after 20 s. True once it is gone.
fn end(pid: i32, start: u64) -> bool {
    use nix::sys::signal::{Signal, kill};
    let target = nix::unistd::Pid::from_raw(pid);
    for (signal, seconds) in [(Signal::SIGTERM, 20), (Signal::SIGKILL, 5)] {
        let _ = kill(target, signal);
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            if start_time(pid) != Some(start) || is_zombie(pid) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    false
}

/// What of our kinds is on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    things: BTreeSet<String>,
}

impl Snapshot {
    /// Namespaces, processes of ours, mounts, loop devices, firewall rules, links of the root namespace.
    pub fn take() -> Result<Self> {
        let mut things = BTreeSet::new();
        let mut add = |kind: &str, text: String| {
            things.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(|line| format!("{kind} {line}")),
            );
        };
        add("namespace", shell::read(Command::new("ip").args(["netns", "list"]))?);
        add("link", links(&shell::read(Command::new("ip").args(["-o", "link"]))?));
        add("mount", fs::read_to_string("/proc/self/mounts")?);
        add("loop device", shell::ask(Command::new("losetup").args(["-n", "-O", "NAME,BACK-FILE"]))?.stdout);
        add("rule", shell::ask(Command::new("nft").args(["list", "ruleset"]))?.stdout);
        add("process", processes());
        Ok(Self { things })
    }

    /// What is there now and was not there before.
    pub fn added_since(&self, before: &Snapshot) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}

fn links(text: &str) -> String {
    text.lines().filter_map(|line| line.split(": ").nth(1)).collect::<Vec<_>>().join("\n")
}

/// Processes that could be ours: by what they run, not by what they are called.
fn processes() -> String {
    let ours = [
        paths::demo().to_string_lossy().into_owned(),
        paths::binary("dayzero").to_string_lossy().into_owned(),
    ];
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&line).replace('\0', " ");
        if ours.iter().any(|mark| text.contains(mark.as_str())) && !is_zombie(pid) {
            found.push(format!("{pid} {}", text.chars().take(100).collect::<String>()));
        }
    }
    found.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_named() {
        let set = |items: &[&str]| Snapshot { things: items.iter().map(|item| (*item).to_owned()).collect() };
        assert_eq!(set(&["a", "b"]).added_since(&set(&["a", "c"])), ["b"]);
    }

    #[test]
    fn a_process_has_one_start_time() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(start_time(me), start_time(me));
        assert!(start_time(me).is_some());
    }
}
