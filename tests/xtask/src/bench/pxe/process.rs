//! Servers as processes: each in its namespace and in a control group of its own, which counts the CPU time of all its
//! threads and children (a forking server's too), to the microsecond. What a killed run left in our groups is ended first.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GROUP: &str = "dayzero-bench";

/// The groups of a run.
pub struct Groups {
    root: PathBuf,
}

impl Groups {
    /// Our part of the unified control-group tree.
    pub fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let tree = mounts.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        });
        let root = tree
            .context("no cgroup2 tree is mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified`")?
            .join(GROUP);
        let groups = Self { root };
        groups.clear();
        fs::create_dir_all(&groups.root).with_context(|| groups.root.display().to_string())?;
        Ok(groups)
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                end_all(&entry.path());
            }
        }
        let _ = fs::remove_dir(&self.root);
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.clear();
    }
}

/// SIGKILL to what is in a group, until it is empty; then the group goes.
fn end_all(group: &Path) {
    use nix::sys::signal::{Signal, kill};
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.parse::<i32>().ok()) {
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        if fs::remove_dir(group).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running server.
pub struct Server {
    pub name: String,
    child: Child,
    group: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts `program` in `namespace`; what it says goes to `log`.
    pub fn start(
        groups: &Groups,
        name: &str,
        namespace: &str,
        program: &Path,
        args: &[String],
        log: &Path,
    ) -> Result<Self> {
        let group = groups.root.join(name);
        end_all(&group);
        fs::create_dir_all(&group)?;
        let out = File::create(log)?;
        // The shell enters the group, then becomes the server: nothing of it is counted elsewhere.
        let child = Command::new("sh")
            .args(["-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh"])
            .arg(group.join("cgroup.procs"))
            .args(["ip", "netns", "exec", namespace])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, group, log: log.to_owned() })
    }

    /// CPU time of the server and all its children so far, seconds.
    pub fn cpu(&self) -> Result<f64> {
        let text = fs::read_to_string(self.group.join("cpu.stat")).context("reading the CPU time")?;
        let usec = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse::<u64>().ok());
        Ok(usec.context("no usage_usec in cpu.stat")? as f64 / 1e6)
    }

    /// Memory of its processes that is resident now, MiB.
    pub fn rss_mib(&self) -> Result<f64> {
        let pids = fs::read_to_string(self.group.join("cgroup.procs"))?;
        let mut kib = 0;
        for pid in pids.lines() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            kib += line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        }
        ensure!(kib > 0, "{} does not run", self.name);
        Ok(kib as f64 / 1024.0)
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for `ready`, as long as the server lives.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut(&Self) -> bool) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        while !ready(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, last_lines(&self.said()));
            }
            ensure!(
                Instant::now() < until,
                "{}: {what} not after 30 s: {}",
                self.name,
                last_lines(&self.said())
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until a socket of this kind listens on the port.
    pub fn wait_for_port(&mut self, namespace: &str, kind: &str, port: u16) -> Result<()> {
        let namespace = namespace.to_owned();
        let flag = if kind == "udp" { "-lnuH" } else { "-lntH" };
        self.wait_until(&format!("{kind} port {port} is open"), |_| {
            let said = shell::ask(Command::new("ip").args(["netns", "exec", &namespace, "ss", flag]));
            let port = format!(":{port}");
            said.is_ok_and(|said| {
                said.stdout
                    .lines()
                    .any(|line| line.split_ascii_whitespace().nth(3).is_some_and(|at| at.ends_with(&port)))
            })
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end_all(&self.group);
        let _ = self.child.wait();
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
