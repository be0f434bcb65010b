//! Every way in which a demo can end early leaves nothing: the built xtask, its rack and its machines, ended by signals.

use super::leftovers::{Process, Snapshot};
use crate::paths;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Checks, no builds: those are done when this runs.
const PATIENCE: Duration = Duration::from_secs(180);

fn until<T>(what: &str, mut observe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match observe() {
            Ok(seen) => return seen,
            Err(last) => assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}; last seen: {last}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A demo whose machines are on.
struct Demo {
    xtask: Child,
    before: Snapshot,
    out: PathBuf,
    _dir: tempfile::TempDir,
}

fn xtask(args: &[&str]) -> Command {
    let mut command = Command::new(paths::binary("xtask"));
    command.arg("demo").args(args).current_dir(paths::root()).stdin(Stdio::null());
    command
}

impl Demo {
    fn running() -> Self {
        let stopped = xtask(&["--stop"]).output().unwrap();
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
        let before = Snapshot::take().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let log = File::create(&out).unwrap();
        let xtask = xtask(&[]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut demo = Self { xtask, before, out, _dir: dir };
        until("both machines are on", || {
            if let Some(status) = demo.xtask.try_wait().unwrap() {
                panic!("the demo ended ({status}): {}", demo.said());
            }
            let children = demo.lab().map(|state| state["children"].to_string()).unwrap_or_default();
            let on = ["qemu host1", "qemu host2"].iter().all(|machine| children.contains(machine));
            if on { Ok(()) } else { Err(format!("{children} {}", demo.said())) }
        });
        demo
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What the lab daemon wrote down.
    fn lab(&self) -> Option<Value> {
        let bytes = fs::read(paths::demo().join("rack/lab-state.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn daemon(&self) -> i32 {
        i32::try_from(self.lab().unwrap()["daemon"]["pid"].as_i64().unwrap()).unwrap()
    }

    fn ends(&mut self) -> ExitStatus {
        until("the demo ends", || match self.xtask.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err(format!("it runs; it said {}", fs::read_to_string(&self.out).unwrap_or_default())),
        })
    }

    fn left(&self) -> Vec<String> {
        Snapshot::take().unwrap().added_since(&self.before)
    }

    fn nothing_is_left(&self) {
        until("nothing is left", || {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}; xtask said {}", self.said())) }
        });
    }

    /// `demo --stop`, and what it said.
    fn stop(&self) -> String {
        let done = xtask(&["--stop"]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(!paths::demo().exists(), "its directory is gone");
        said
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_by_the_test = self.xtask.kill();
        let _reaped = self.xtask.wait();
        let _for_the_next_test = xtask(&["--stop"]).stdout(Stdio::null()).status();
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[test]
#[ignore = "raises the rack: `cargo xtask test --all` sets it up"]
fn ctrl_c_in_the_middle_takes_the_rack_down() {
    let mut demo = Demo::running();
    let seen = demo.left().join("\n");
    assert!(
        seen.contains("namespace dz-ctl") && seen.contains("process"),
        "the comparison sees a rack: {seen}"
    );
    signal(demo.xtask.id() as i32, Signal::SIGINT);
    assert_eq!(demo.ends().code(), Some(130), "{}", demo.said());
    demo.nothing_is_left();
    assert!(!paths::demo().exists());
}

#[test]
#[ignore = "raises the rack: `cargo xtask test --all` sets it up"]
fn a_killed_xtask_takes_its_rack_with_it() {
    let mut demo = Demo::running();
    signal(demo.xtask.id() as i32, Signal::SIGKILL);
    demo.ends();
    demo.nothing_is_left();
    demo.stop();
    demo.nothing_is_left();
}

#[test]
#[ignore = "raises the rack: `cargo xtask test --all` sets it up"]
fn what_a_killed_xtask_and_a_killed_lab_leave_is_cleared_by_stop() {
    let mut demo = Demo::running();
    let (daemon, xtask) = (demo.daemon(), demo.xtask.id() as i32);
    // Nobody is asked, nobody can tidy up.
    signal(xtask, Signal::SIGSTOP);
    signal(daemon, Signal::SIGKILL);
    signal(xtask, Signal::SIGKILL);
    demo.ends();
    assert!(
        demo.left().iter().any(|thing| thing == "namespace dz-ctl" || thing.starts_with("namespace dz-ctl "))
    );
    let said = demo.stop();
    assert!(said.contains("a rack whose daemon was killed"), "{said}");
    demo.nothing_is_left();
}

#[test]
#[ignore = "raises the rack: `cargo xtask test --all` sets it up"]
fn a_demo_whose_lab_is_killed_fails_and_leaves_nothing() {
    let mut demo = Demo::running();
    signal(demo.daemon(), Signal::SIGKILL);
    let status = demo.ends();
    assert!(!status.success() && status.code() != Some(130), "{status}: {}", demo.said());
    assert!(demo.said().contains("the lab daemon ended"), "{}", demo.said());
    demo.nothing_is_left();
}

/// The report of a demo that ended, with the names of the checks that did not hold.
fn failed_checks(report: &std::path::Path) -> (Value, Vec<String>) {
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["ok"] == false);
    let failed = failed.map(|check| check["name"].as_str().unwrap().to_owned()).collect();
    (report, failed)
}

#[test]
fn a_rack_that_cannot_be_raised_is_reported_with_the_reason_at_each_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let error = anyhow::anyhow!("exit code 1").context("the lab daemon ended");
    let before = Snapshot::take().unwrap();
    let code = super::not_raised(&error, (2.5, 1.5), &before, Some(&file)).unwrap();
    assert_eq!(code, std::process::ExitCode::FAILURE);
    let (report, failed) = failed_checks(&file);
    assert_eq!(
        [&report["schema"], &report["ok"], &report["build_s"], &report["seconds"]],
        [&Value::from(1), &false.into(), &2.5.into(), &1.5.into()]
    );
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 21);
    // What is left was looked at all the same; whatever it says, it is no other check's business.
    assert!(failed.len() >= 20 && failed.iter().filter(|name| *name != "nothing-left").count() == 20);
    for check in checks.iter().filter(|check| check["name"] != "nothing-left") {
        assert_eq!(check["evidence"], "not reached: the lab daemon ended: exit code 1", "{check}");
    }
    assert!(!checks[20]["evidence"].as_str().unwrap().contains("not reached"), "{}", checks[20]);
}

#[test]
#[ignore = "raises the rack: `cargo xtask test --all` sets it up"]
fn a_demo_whose_lab_does_not_start_writes_its_report() {
    let stopped = xtask(&["--stop"]).output().unwrap();
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    // Somebody else's namespace has the name that the rack's first one needs: it is not taken over.
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    ip(&["netns", "add", "dz-ctl"]);
    let ended = xtask(&["--once", "--report", &file.display().to_string()]).output().unwrap();
    ip(&["netns", "del", "dz-ctl"]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let (report, failed) = failed_checks(&file);
    assert_eq!((&report["schema"], &report["ok"], failed.len()), (&1.into(), &false.into(), 20), "{said}");
    let evidence = report["checks"][0]["evidence"].as_str().unwrap();
    assert!(evidence.contains("not reached") && evidence.contains("'dz-ctl' exists"), "{evidence}");
    let last = &report["checks"][20];
    assert!(last["name"] == "nothing-left" && last["ok"] == true, "{last}");
    assert!(!paths::demo().exists());
}

#[test]
#[ignore = "raises the rack: `cargo xtask test --all` sets it up"]
fn a_second_demo_is_refused_and_stop_ends_the_first() {
    let mut demo = Demo::running();
    let second = xtask(&["--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("a demo runs already"), "{said}");
    let first = Process::of(demo.xtask.id() as i32).unwrap();
    assert!(first.alive(), "the first goes on");
    assert!(demo.stop().contains("stopped"));
    assert_eq!(demo.ends().code(), Some(130), "{}", demo.said());
    demo.nothing_is_left();
}
