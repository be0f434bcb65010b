//! Removes what a former lab left: only processes and namespaces that its state file proves to be the lab's.
//!
//! Invariants: a running lab is never touched; a pid with another start time, a namespace with another inode, and
//! anything from before a reboot are left alone. What lives inside a namespace of the lab is the lab's.

use crate::netns::{self, NetnsError};
use crate::process::ProcessId;
use crate::state::{LabState, STATE_FILE, StateFile, boot_id};
use nix::sys::signal::Signal;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);

/// A cleaning that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A lab runs there.
    #[error("a lab runs already, as pid {0}: stop it first ('cargo xtask demo --stop')")]
    Running(i32),
    /// The state file cannot be read.
    #[error("cannot read the former lab's state file: look into it and remove it by hand")]
    State(#[source] io::Error),
    /// A process did not go away.
    #[error("{what} (pid {pid}) of a former lab does not end")]
    Stuck {
        /// What it was.
        what: String,
        /// Its pid.
        pid: i32,
    },
    /// A namespace did not go away.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Cleans up after a lab that ended without doing so itself. Nothing to do is fine.
pub fn former(dir: &Path) -> Result<(), CleanupError> {
    let Some(state) = StateFile::load(dir).map_err(CleanupError::State)? else { return Ok(()) };
    let same_boot = boot_id().map_err(CleanupError::State)? == state.boot_id;
    if same_boot {
        if let Some(daemon) = state.daemon
            && Some(daemon) != ProcessId::own()
            && daemon.alive()
        {
            return Err(CleanupError::Running(daemon.pid));
        }
        everything(&state)?;
    }
    std::fs::remove_file(dir.join(STATE_FILE)).map_err(CleanupError::State)
}

/// Ends the children and removes the namespaces that a state names.
pub fn everything(state: &LabState) -> Result<(), CleanupError> {
    for child in &state.children {
        child.process.signal(Signal::SIGKILL);
    }
    for child in &state.children {
        wait_gone(child.process, &child.what)?;
    }
    for namespace in &state.namespaces {
        let Some(inode) = netns::inode_of(&namespace.name) else { continue };
        // Without an inode the lab died between writing the name down and making it: the name was free before.
        if namespace.inode.is_none_or(|recorded| recorded == inode) {
            for process in inside(inode) {
                process.signal(Signal::SIGKILL);
                wait_gone(process, &format!("a process in {}", namespace.name))?;
            }
            netns::remove(&namespace.name)?;
        }
    }
    Ok(())
}

/// Processes whose network namespace has this inode.
fn inside(inode: u64) -> Vec<ProcessId> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id();
    pids.filter(|pid| pid.unsigned_abs() != own)
        .filter(|pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == inode))
        .filter_map(ProcessId::of)
        .collect()
}

fn wait_gone(process: ProcessId, what: &str) -> Result<(), CleanupError> {
    let deadline = Instant::now() + PATIENCE;
    while process.alive() {
        if Instant::now() > deadline {
            return Err(CleanupError::Stuck { what: what.to_owned(), pid: process.pid });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ChildEntry;

    fn sleeper() -> (std::process::Child, ProcessId) {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        (child, id)
    }

    fn leave(dir: &Path, edit: impl FnOnce(&mut LabState)) {
        let mut state = LabState { schema: 1, boot_id: boot_id().unwrap(), ..Default::default() };
        edit(&mut state);
        std::fs::write(dir.join(STATE_FILE), serde_json::to_vec(&state).unwrap()).unwrap();
    }

    #[test]
    fn only_what_is_proven_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ours, ours_id) = sleeper();
        let (mut reused, reused_id) = sleeper();
        leave(dir.path(), |state| {
            let entry = |process| ChildEntry { what: "sleeper".into(), process };
            state.children =
                vec![entry(ours_id), entry(ProcessId { start: reused_id.start + 1, ..reused_id })];
        });
        former(dir.path()).unwrap();
        assert!(!ours_id.alive());
        assert!(reused_id.alive(), "a reused pid is somebody else's process");
        assert!(!dir.path().join(STATE_FILE).exists());
        former(dir.path()).unwrap();
        ours.wait().unwrap();
        reused.kill().unwrap();
        reused.wait().unwrap();
    }

    #[test]
    fn a_running_lab_is_not_touched_and_another_boot_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut other, id) = sleeper();
        leave(dir.path(), |state| state.daemon = Some(id));
        assert!(matches!(former(dir.path()), Err(CleanupError::Running(pid)) if pid == id.pid));
        leave(dir.path(), |state| {
            state.boot_id = "before".into();
            state.children = vec![ChildEntry { what: "x".into(), process: id }];
        });
        former(dir.path()).unwrap();
        assert!(id.alive());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
