//! Arguments and environments of the run's processes, looked at several times a second while it goes on, since many of them
//! live for a moment only. One that lives shorter than a look is missed.

use crate::paths;
use nix::sys::signal::SigSet;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(200);
/// Bytes that are kept.
const MOST: usize = 64 << 20;

/// Pid by place (`arguments of NAME`) and content: what many processes of one program share is kept once.
type Seen = BTreeMap<(String, Vec<u8>), i32>;

/// Watches until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn begin() -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::new())), Arc::new(AtomicBool::new(false)));
        let (into, end) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            // Ctrl-C is the main thread's.
            let _ = SigSet::all().thread_block();
            let mut looks = HashMap::new();
            while !end.load(Ordering::Relaxed) {
                look(&mut looks, &into);
                std::thread::sleep(LOOK);
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// All that was seen so far: place and content.
    pub fn seen(&self) -> Vec<(String, Vec<u8>)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|((place, content), pid)| (format!("{place} ({pid})"), content.clone())).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Parent and start time, from `/proc/PID/stat`.
fn about(pid: i32) -> Option<(i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// A process is looked at when it is new, and once more: it may have been about to become another program.
fn look(looks: &mut HashMap<(i32, u64), u8>, into: &Mutex<Seen>) {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let known: HashMap<i32, (i32, u64)> = pids.filter_map(|pid| Some((pid, about(pid)?))).collect();
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    looks.retain(|(pid, start), _| known.get(pid).is_some_and(|(_, now)| now == start));
    for (pid, (_, start)) in &known {
        let count = looks.entry((*pid, *start)).or_insert(0);
        if *count > 1 || *pid == me {
            continue;
        }
        *count += 1;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !descends(&known, *pid, me) && !ours(&arguments) {
            continue;
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(program).rsplit('/').next().unwrap_or_default().to_owned();
        let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.keys().map(|(_, content)| content.len()).sum::<usize>() > MOST {
            return;
        }
        for (what, content) in [("arguments", arguments), ("environment", environment)] {
            seen.entry((format!("{what} of {name}"), content)).or_insert(*pid);
        }
    }
}

fn descends(known: &HashMap<i32, (i32, u64)>, pid: i32, from: i32) -> bool {
    let mut at = pid;
    for _ in 0..64 {
        match known.get(&at) {
            Some((parent, _)) if *parent == from => return true,
            Some((parent, _)) if *parent > 1 => at = *parent,
            _ => return false,
        }
    }
    false
}

/// One that no longer descends from us, and still works in the run's directory.
fn ours(arguments: &[u8]) -> bool {
    String::from_utf8_lossy(arguments).contains(&*paths::demo().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn arguments_and_environment_of_a_child_are_seen() {
        let watch = Watch::begin();
        let mut child = Command::new("cat");
        child.arg("-").env("PLANTED", "in-the-environment");
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let text = |place: &str, word: &str| {
            watch
                .seen()
                .iter()
                .any(|(at, content)| at.starts_with(place) && String::from_utf8_lossy(content).contains(word))
        };
        while !(text("arguments of cat", "-") && text("environment of cat", "in-the-environment")) {
            assert!(Instant::now() < until, "{:?}", watch.seen().iter().map(|s| &s.0).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
