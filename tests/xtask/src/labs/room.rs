//! A room for one lab: its own mounts, network, names of network namespaces and process ids.
//!
//! Whatever is found there was made by the lab, since nobody else can make anything there; what other work on the machine
//! makes meanwhile lies outside. Loop devices alone belong to the whole machine: one is the lab's if the file behind it
//! lies in the temporary directory that the lab was given. The room ends with all processes in it, also when its owner is
//! killed.

use crate::demo::leftovers::{self, Snapshot};
use crate::shell;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use tempfile::TempDir;

/// What the room's first process does: it furnishes the room, waits for a word, runs the lab, tells its exit code, and keeps
/// the room until its input ends. `$0` is the lab's log.
const FIRST: &str = r#"set -e
mount -t sysfs sysfs /sys
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
echo furnished
read -r word
code=0
"$@" >"$0" 2>&1 </dev/null || code=$?
echo "$code"
read -r word || true
"#;
/// A room is furnished within this time.
const FURNISHED: Duration = Duration::from_secs(60);

/// An open room.
pub struct Room {
    /// `unshare`, which ends with the first process and takes it along.
    outside: Child,
    tell: Option<ChildStdin>,
    said: Receiver<String>,
    /// The first process, as it is numbered outside.
    first: i32,
    temporary: TempDir,
}

impl Room {
    /// Opens a room for a program that does not run yet; what it prints goes to the log.
    pub fn open(lab: &Command, log: &Path) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("dzl-").tempdir().context("a temporary directory")?;
        let mut outside = Command::new("setpriv");
        // It must not outlive us: the kernel ends `unshare` with this thread, and with `unshare` the room.
        outside.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork"]);
        outside.args(["--kill-child=SIGKILL", "--mount-proc", "sh", "-c", FIRST]);
        outside.arg(log).arg(lab.get_program()).args(lab.get_args());
        for (name, value) in lab.get_envs() {
            match value {
                Some(value) => outside.env(name, value),
                None => outside.env_remove(name),
            };
        }
        if let Some(dir) = lab.get_current_dir() {
            outside.current_dir(dir);
        }
        // Ctrl-C reaches xtask alone.
        outside.env("TMPDIR", temporary.path()).process_group(0);
        // Not the lab's log, which is the lab's alone.
        let errors = temporary.path().join("errors");
        outside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&errors)?);
        let mut outside = outside.spawn().context("starting setpriv and unshare")?;
        let tell = outside.stdin.take();
        let said = lines(BufReader::new(outside.stdout.take().context("standard output")?));
        let mut room = Self { outside, tell, said, first: 0, temporary };
        let furnished = room.said.recv_timeout(FURNISHED);
        ensure!(
            furnished.as_deref() == Ok("furnished"),
            "no room for a lab (it needs root's rights and the packages util-linux and iproute2): {furnished:?} {}",
            fs::read_to_string(errors).unwrap_or_default().trim()
        );
        let inside = leftovers::descendants(i32::try_from(room.outside.id())?);
        room.first = *inside.first().context("the room's first process is not there")?;
        Ok(room)
    }

    /// Runs the lab. Its exit code; none = it did not end, and the room was ended with all that is in it.
    pub fn play(&mut self, patience: Duration) -> Result<Option<i32>> {
        self.tell.as_mut().context("the room is closed")?.write_all(b"begin\n")?;
        match self.said.recv_timeout(patience) {
            Ok(code) => Ok(Some(code.parse().with_context(|| format!("the room's word is '{code}'"))?)),
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.outside.wait()?;
                anyhow::bail!(
                    "the room's first process ended ({status}): the lab, or the kernel for memory, killed it"
                )
            }
        }
    }

    /// What is in the room, and the loop devices of its lab.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let names: Vec<String> = match fs::read_dir(format!("/proc/{}/root/run/netns", self.first)) {
            Ok(entries) => {
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).context("the room's namespaces"),
        };
        let mounts =
            fs::read_to_string(format!("/proc/{}/mounts", self.first)).context("the room's mounts")?;
        let links = shell::read(self.network().args(["ip", "-o", "link"]))?;
        let rules = shell::read(self.network().args(["nft", "list", "ruleset"]))?;
        Ok(Snapshot::of([
            ("namespace", names.join("\n")),
            ("link", leftovers::links(&links)),
            ("mount", mounts),
            ("loop device", with_file_below(&leftovers::loop_devices()?, self.temporary.path())),
            ("rule", rules),
            ("process", self.running()),
        ]))
    }

    /// Processes beside the first; those in namespaces below the room's descend from it too.
    pub fn running(&self) -> String {
        leftovers::running(&leftovers::descendants(self.first))
    }

    fn network(&self) -> Command {
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--net=/proc/{}/ns/net", self.first));
        enter
    }

    /// The kernel ends every process of the room before `unshare` sees the end of the first.
    fn end(&mut self) {
        if self.tell.take().is_none() {
            return;
        }
        let first = nix::unistd::Pid::from_raw(self.first);
        let _ended_already = match self.first {
            0 => self.outside.kill().is_err(),
            _ => nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).is_err(),
        };
        let _reaped = self.outside.wait();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.end();
    }
}

fn lines(reader: impl BufRead + Send + 'static) -> Receiver<String> {
    let (sender, said) = channel();
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    said
}

/// Of loop devices, one a line, those with a file below a directory.
fn with_file_below(devices: &str, dir: &Path) -> String {
    let below = |line: &&str| {
        let file = line.trim().split_once(' ').map_or("", |(_, file)| file.trim());
        Path::new(file).starts_with(dir)
    };
    devices.lines().filter(below).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_is_its_labs_whose_temporary_file_it_shows() {
        let devices = "/dev/loop0 /tmp/dzl-abcdef/disk.raw\n/dev/loop1 /var/lib/other.img\n/dev/loop2\n\
            /dev/loop3 /tmp/dzl-abcdef/gone.raw (deleted)\n/dev/loop4 /tmp/dzl-abcdefg/disk.raw\n";
        let own = with_file_below(devices, Path::new("/tmp/dzl-abcdef"));
        let names: Vec<&str> = own.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["/dev/loop0", "/dev/loop3"]);
    }
}
