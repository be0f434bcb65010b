//! Child processes that die with the lab: each is recorded with its start time before anything relies on it, and
//! gets `SIGKILL` from the kernel when the lab ends, however it ends.
//!
//! Invariant: a pid alone proves nothing, only pid and start time together name a process that is ours.
//! It does not decide what to start, and does not restart anything.

use crate::netns::Netns;
use crate::state::StateFile;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use tokio::sync::oneshot;

/// A process that could not be started or recorded.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program did not start.
    #[error("cannot start {what} ({program}): is its Debian package installed?")]
    Start {
        /// What it is in the lab.
        what: String,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state file could not be written.
    #[error("cannot record {what} in the lab's state file")]
    Record {
        /// What it is in the lab.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lab is shutting down.
    #[error("{0} is not started: the lab is shutting down")]
    Closed(String),
}

/// A process by pid and by the moment it began, so that a reused pid is never taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Pid in the root pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since the machine's start.
    pub start: u64,
}

impl ProcessId {
    /// The process that has `pid` now; none if there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_start(&stat).map(|start| Self { pid, start })
    }

    /// The calling process.
    pub fn own() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn alive(self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        let zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
        !zombie && parse_start(&stat) == Some(self.start)
    }

    /// Sends a signal if this very process still runs.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), signal);
        }
    }
}

fn parse_start(stat: &str) -> Option<u64> {
    // The command's name, in brackets, may hold anything: fields are counted from the last bracket.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// A running child. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    /// Its pid and start time.
    pub id: ProcessId,
    /// tokio's handle: wait, stdin and stdout if they were piped.
    pub process: tokio::process::Child,
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts children from one thread that lives as long as this value: the kernel's parent-death signal is bound to
/// the *thread* that forked, and tokio's threads come and go.
#[derive(Clone, Debug)]
pub struct Processes {
    jobs: std_mpsc::Sender<Job>,
    state: Arc<StateFile>,
}

impl Processes {
    /// Starts the forking thread. Children are recorded in `state`.
    pub fn new(state: Arc<StateFile>) -> io::Result<Self> {
        let (jobs, inbox) = std_mpsc::channel::<Job>();
        std::thread::Builder::new().name("lab-spawn".into()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                job();
            }
        })?;
        Ok(Self { jobs, state })
    }

    /// Starts `command` as `what`, in `netns` if one is given; stdin is null unless the command says otherwise by
    /// `Stdio::piped()` before. The child is recorded, killed on drop, and dies with the lab.
    pub async fn spawn(
        &self,
        mut command: Command,
        what: &str,
        netns: Option<&Netns>,
    ) -> Result<Child, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let netns = match netns.map(Netns::duplicate).transpose() {
            Ok(netns) => netns,
            Err(source) => return Err(ProcessError::Start { what: what.into(), program, source }),
        };
        let parent = std::process::id();
        // SAFETY: between fork and exec only async-signal-safe system calls are made (setns, prctl, getppid), and
        // nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                if let Some(fd) = &netns {
                    nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET)?;
                }
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if nix::unistd::getppid().as_raw() as u32 != parent {
                    return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
                }
                Ok(())
            });
        }
        let (answer, started) = oneshot::channel();
        let handle = tokio::runtime::Handle::current();
        let job = Box::new(move || {
            let _in_runtime = handle.enter();
            let mut command = tokio::process::Command::from(command);
            let _gave_up = answer.send(command.kill_on_drop(true).spawn());
        });
        self.jobs.send(job).map_err(|_| ProcessError::Closed(what.into()))?;
        let process = started
            .await
            .map_err(|_| ProcessError::Closed(what.into()))?
            .map_err(|source| ProcessError::Start { what: what.into(), program: program.clone(), source })?;
        let id = process.id().and_then(|pid| ProcessId::of(i32::try_from(pid).ok()?)).ok_or_else(|| {
            ProcessError::Start { what: what.into(), program, source: io::Error::other("it ended at once") }
        })?;
        self.state
            .add_child(what, id)
            .map_err(|source| ProcessError::Record { what: what.into(), source })?;
        Ok(Child { id, process })
    }

    /// Forgets a child that has ended.
    pub fn forget(&self, id: ProcessId) {
        if let Err(error) = self.state.drop_child(id) {
            tracing::warn!(pid = id.pid, %error, "cannot take an ended process out of the lab's state file");
        }
    }
}

/// A command without stdin, its output appended to `log`.
pub fn logged(program: &str, log: &std::path::Path) -> io::Result<Command> {
    let file = std::fs::File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_an_odd_command_name() {
        let tail = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2";
        assert_eq!(parse_start(&format!("42 (a) b) {tail}")), Some(987_654));
        assert_eq!(parse_start("42 (a"), None);
    }

    #[test]
    fn a_reused_pid_is_not_the_process() {
        let own = ProcessId::own().unwrap();
        assert!(own.alive());
        assert!(!ProcessId { start: own.start + 1, ..own }.alive());
    }

    #[tokio::test]
    async fn a_child_is_recorded_and_ends_with_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateFile::create(dir.path()).unwrap());
        let processes = Processes::new(state.clone()).unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut child = processes.spawn(command, "sleeper", None).await.unwrap();
        assert_eq!(state.read().unwrap().children[0].process, child.id);
        child.process.kill().await.unwrap();
        assert!(!child.id.alive());
        processes.forget(child.id);
        assert!(state.read().unwrap().children.is_empty());
    }
}
