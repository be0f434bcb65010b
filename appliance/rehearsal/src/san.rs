//! The SAN: one tgtd in its namespace, one target with one LUN, a portal on each storage network, closed to all but
//! the planned initiators.
//!
//! Invariants: tgtd's control socket is private to the lab; a host that the plan does not name cannot log in. The
//! LUN's data is kept in one sparse file. It knows nothing of multipath.

use crate::blueprint::SanPlan;
use crate::netns::Netns;
use crate::process::{Child, ProcessError, Processes, logged};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const READY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);

/// A SAN that did not come up.
#[derive(Debug, thiserror::Error)]
pub enum SanError {
    /// tgtd did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of it.
    #[error("cannot {doing} for the SAN")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// tgtadm said no.
    #[error("'tgtadm {command}' failed: {said}")]
    Refused {
        /// Its arguments.
        command: String,
        /// Its words.
        said: String,
    },
    /// The plan names no portal.
    #[error("the SAN has no portal: the plan's primary storage names none")]
    NoPortal,
}

/// Starts the SAN; the files lie in `dir`. Ready when this returns.
pub async fn start(
    plan: &SanPlan,
    dir: &Path,
    processes: &Processes,
    netns: &Netns,
) -> Result<Child, SanError> {
    let io = |doing| move |source| SanError::Io { doing, source };
    let lun = lun(dir);
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&lun);
    file.and_then(|file| file.set_len(plan.size)).map_err(io("size the LUN's file"))?;
    let socket = dir.join("tgtd");
    let mut command = logged("tgtd", &dir.join("tgtd.log")).map_err(io("open tgtd's log"))?;
    let Some(first) = plan.portals.first() else { return Err(SanError::NoPortal) };
    command.env("TGT_IPC_SOCKET", &socket).args(["-f", "--iscsi", &format!("portal={first}")]);
    let child = processes.spawn(command, "tgtd", Some(netns)).await?;

    let admin = Admin { socket: &socket };
    admin.ready().await?;
    // A second --iscsi option would replace the first portal: the others are added.
    for portal in &plan.portals[1..] {
        admin.run(&["--op", "new", "--mode", "portal", "--param", &format!("portal={portal}")]).await?;
    }
    let tid = plan.tid.to_string();
    admin.run(&["--op", "new", "--mode", "target", "--tid", &tid, "-T", &plan.target]).await?;
    let lun = lun.to_string_lossy();
    admin.run(&["--op", "new", "--mode", "logicalunit", "--tid", &tid, "--lun", "1", "-b", &lun]).await?;
    for initiator in &plan.initiators {
        admin.run(&["--op", "bind", "--mode", "target", "--tid", &tid, "-I", &initiator.to_string()]).await?;
    }
    Ok(child)
}

/// The LUN's file in the lab's directory.
pub fn lun(dir: &Path) -> PathBuf {
    dir.join("lun0.img")
}

struct Admin<'a> {
    socket: &'a Path,
}

impl Admin<'_> {
    async fn run(&self, arguments: &[&str]) -> Result<(), SanError> {
        let refused = |said: String| SanError::Refused { command: arguments.join(" "), said };
        let output = tokio::process::Command::new("tgtadm")
            .env("TGT_IPC_SOCKET", self.socket)
            .args(["--lld", "iscsi"])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| refused(error.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
    }

    async fn ready(&self) -> Result<(), SanError> {
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            match self.run(&["--op", "show", "--mode", "target"]).await {
                Err(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(RETRY).await,
                result => return result,
            }
        }
    }
}
