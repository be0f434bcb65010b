//! Finding and running the labs: one process each in a room of its own, timed, and judged by what it leaves there too.

use super::room::Room;
use crate::demo::leftovers::Snapshot;
use crate::workspace::{BUILT_VARIABLE, TestProgram};
use crate::{paths, shell};
use anyhow::Result;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A lab that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// What a lab made may need a moment to vanish after its process.
const SETTLE: Duration = Duration::from_secs(5);

/// One ignored test of one test binary.
pub struct Lab {
    /// `package binary: path::of::the_test`.
    pub name: String,
    test: String,
    binary: PathBuf,
    package: PathBuf,
}

/// The ignored tests of these programs.
pub fn find(programs: &[TestProgram]) -> Result<Vec<Lab>> {
    let mut labs = Vec::new();
    for program in programs {
        let room =
            program.package.strip_prefix(paths::root()).unwrap_or(&program.package).display().to_string();
        let mut list = Command::new(&program.path);
        let listed = shell::read(list.args(["--list", "--ignored", "--format", "terse"]))?;
        for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
            labs.push(Lab {
                name: format!("{room} {}: {test}", program.name),
                test: test.to_owned(),
                binary: program.path.clone(),
                package: program.package.clone(),
            });
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

impl Lab {
    /// Runs it and prints one line. True if it passed and left nothing.
    pub fn hold(&self, environment: &[(&'static str, OsString)]) -> Result<bool> {
        let log = self.log()?;
        let mut command = Command::new(&self.binary);
        command
            .args(["--ignored", "--exact", &self.test, "--nocapture", "--test-threads=1"])
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package)
            .env(BUILT_VARIABLE, "")
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let began = Instant::now();
        let (ended, left) = watched(&command, &log, PATIENCE, SETTLE)?;
        let seconds = began.elapsed().as_secs_f64();
        let fault = match ended {
            None => Some(format!("did not end within {} s", PATIENCE.as_secs())),
            Some(code) if code != 0 => Some(format!("exit code {code}")),
            Some(_) if !left.is_empty() => Some(format!("left behind: {}", left.join("; "))),
            Some(_) => None,
        };
        match &fault {
            None => println!("held     {seconds:>6.1} s  {}", self.name),
            Some(fault) => {
                println!("NOT HELD {seconds:>6.1} s  {}: {fault}; the end of {}:", self.name, log.display());
                println!("{}", tail(&log));
            }
        }
        Ok(fault.is_none())
    }

    fn log(&self) -> Result<PathBuf> {
        let dir = paths::cache().join("labs/logs");
        fs::create_dir_all(&dir)?;
        let name: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
        Ok(dir.join(format!("{name}.log")))
    }
}

/// Runs a program in a room of its own. Its exit code (none = it took too long, and all of it was killed), and what it left.
fn watched(
    command: &Command,
    log: &Path,
    patience: Duration,
    settle: Duration,
) -> Result<(Option<i32>, Vec<String>)> {
    let mut room = Room::open(command, log)?;
    let before = room.snapshot()?;
    let Some(code) = room.play(patience)? else { return Ok((None, Vec::new())) };
    Ok((Some(code), left_since(&room, &before, settle)?))
}

fn left_since(room: &Room, before: &Snapshot, settle: Duration) -> Result<Vec<String>> {
    let until = Instant::now() + settle;
    loop {
        let left = room.snapshot()?.added_since(before);
        if left.is_empty() || Instant::now() > until {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell's script as a lab; what the lab left.
    fn left_by(script: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut lab = Command::new("sh");
        let (code, left) =
            watched(lab.args(["-ec", script]), &log, PATIENCE, Duration::from_secs(1)).unwrap();
        assert_eq!(code, Some(0), "{}", tail(&log));
        left
    }

    #[test]
    fn a_lab_that_leaves_something_is_told_each_thing() {
        for (script, thing) in [
            ("ip netns add left", "namespace left"),
            ("mkdir $TMPDIR/m && mount -t tmpfs left $TMPDIR/m", "mount left "),
            ("ip link add left type dummy || ip tuntap add left mode tap", "link left"),
            ("nft add table inet left", "rule table inet left"),
            ("setsid sleep 1000 >/dev/null 2>&1 & exit 0", "process "),
            // Neither a namespace of its own nor an orphan hides.
            ("setsid unshare --pid --net --fork sleep 1000 >/dev/null 2>&1 & exit 0", "process "),
        ] {
            let left = left_by(script);
            assert!(left.iter().any(|line| line.starts_with(thing)), "{script}: {left:?}");
        }
    }

    #[test]
    fn a_loop_device_that_a_lab_leaves_is_told() {
        let left = left_by("truncate -s 1M $TMPDIR/disk && losetup -f $TMPDIR/disk");
        let device = left.iter().find_map(|line| line.strip_prefix("loop device ")?.split(' ').next());
        let device = device.unwrap_or_else(|| panic!("{left:?}"));
        shell::read(Command::new("losetup").args(["-d", device])).unwrap();
    }

    #[test]
    fn a_lab_that_tidies_up_leaves_nothing() {
        let tidy =
            "ip netns add mine; ip link add name mine type bridge; sleep 1000 & kill $!; wait $! || true
            ip link del mine; ip netns del mine";
        assert_eq!(left_by(tidy), [""; 0]);
    }

    #[test]
    fn what_others_make_meanwhile_is_not_the_labs() {
        let name = format!("dzt-labs-{}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let script =
            format!("until test -e {}; do sleep 0.05; done; ! test -e /run/netns/{name}", go.display());
        let lab = std::thread::spawn(move || left_by(&script));
        shell::read(Command::new("ip").args(["netns", "add", &name])).unwrap();
        let mut others = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(go, "").unwrap();
        let left = lab.join();
        others.kill().unwrap();
        others.wait().unwrap();
        shell::read(Command::new("ip").args(["netns", "del", &name])).unwrap();
        assert_eq!(left.unwrap(), [""; 0]);
    }

    #[test]
    fn a_lab_that_hangs_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let (pids, log) = (dir.path().join("pids"), dir.path().join("log"));
        let script = format!("setsid sleep 1000 & echo started > {}; wait", pids.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let mut room = Room::open(&command, &log).unwrap();
        // Long enough for the script to begin on a machine that is busy.
        let ended = room.play(Duration::from_secs(3)).unwrap();
        assert_eq!(ended, None);
        assert!(pids.exists());
        assert_eq!(room.running(), "", "all of it is gone");
    }

    #[test]
    fn a_labs_failure_is_its_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo to the log; exit 7"]);
        let log = dir.path().join("log");
        assert_eq!(watched(&command, &log, PATIENCE, SETTLE).unwrap(), (Some(7), Vec::new()));
        assert_eq!(tail(&log), "to the log");
    }
}
