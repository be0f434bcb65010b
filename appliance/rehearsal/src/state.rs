//! `lab-state.json`: what this lab made that outlives a killed daemon, so that the next one can clear away exactly
//! that and nothing else.
//!
//! Invariants: a namespace is written down before it is made; every entry carries a proof (start time, inode, boot
//! id); the file is replaced atomically. It does not remove anything itself (see `cleanup`).

use crate::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Name of the file in the lab's directory.
pub const STATE_FILE: &str = "lab-state.json";

/// What a lab left or may leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabState {
    /// Layout of this file.
    pub schema: u32,
    /// Kernel's boot id: after a reboot no pid or inode below means anything.
    pub boot_id: String,
    /// The daemon itself.
    pub daemon: Option<ProcessId>,
    /// Its children.
    pub children: Vec<ChildEntry>,
    /// Its network namespaces.
    pub namespaces: Vec<NamespaceEntry>,
}

/// A child process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildEntry {
    /// What it is in the lab.
    pub what: String,
    /// Pid and start time.
    pub process: ProcessId,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceEntry {
    /// Its name under `/run/netns`.
    pub name: String,
    /// Inode of that file; none until it was made.
    pub inode: Option<u64>,
}

/// The state file, written through on each change.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    state: Mutex<LabState>,
}

/// The kernel's boot id.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl StateFile {
    /// Begins a new state in `dir`, with this process as the daemon.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let state =
            LabState { schema: 1, boot_id: boot_id()?, daemon: ProcessId::own(), ..Default::default() };
        let file = Self { path: dir.join(STATE_FILE), state: Mutex::new(state) };
        file.change(|_| ())?;
        Ok(file)
    }

    /// Reads what a former lab left in `dir`; none if there is no file.
    pub fn load(dir: &Path) -> io::Result<Option<LabState>> {
        match std::fs::read(dir.join(STATE_FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn change(&self, edit: impl FnOnce(&mut LabState)) -> io::Result<()> {
        let mut state = self.state.lock().map_err(|_| io::Error::other("state lock poisoned"))?;
        edit(&mut state);
        let fresh = self.path.with_extension("json.new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(&*state)?)?;
        std::fs::rename(fresh, &self.path)
    }

    /// The state now.
    pub fn read(&self) -> io::Result<LabState> {
        Ok(self.state.lock().map_err(|_| io::Error::other("state lock poisoned"))?.clone())
    }

    /// Records a child.
    pub fn add_child(&self, what: &str, process: ProcessId) -> io::Result<()> {
        self.change(|state| state.children.push(ChildEntry { what: what.to_owned(), process }))
    }

    /// Takes out a child that has ended.
    pub fn drop_child(&self, process: ProcessId) -> io::Result<()> {
        self.change(|state| state.children.retain(|child| child.process != process))
    }

    /// Records a namespace, before (inode none) and after it was made.
    pub fn set_namespace(&self, name: &str, inode: Option<u64>) -> io::Result<()> {
        self.change(|state| {
            state.namespaces.retain(|entry| entry.name != name);
            state.namespaces.push(NamespaceEntry { name: name.to_owned(), inode });
        })
    }

    /// Takes out a namespace that was removed.
    pub fn drop_namespace(&self, name: &str) -> io::Result<()> {
        self.change(|state| state.namespaces.retain(|entry| entry.name != name))
    }

    /// Removes the file: nothing is left that it could name.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::create(dir.path()).unwrap();
        file.set_namespace("dzt-a", None).unwrap();
        file.set_namespace("dzt-a", Some(7)).unwrap();
        let left = StateFile::load(dir.path()).unwrap().unwrap();
        assert_eq!(left.namespaces, [NamespaceEntry { name: "dzt-a".into(), inode: Some(7) }]);
        assert_eq!(left.daemon, ProcessId::own());
        file.drop_namespace("dzt-a").unwrap();
        file.remove().unwrap();
        assert_eq!(StateFile::load(dir.path()).unwrap(), None);
    }
}
