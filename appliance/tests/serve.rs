//! The built binary as a person uses it: it serves, takes a plan, is killed, carries on, ends in order. Everything runs
//! in a network namespace of its own without any interface up, so that no packet leaves it; needs root (`unshare`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const DAYZERO: &str = env!("CARGO_BIN_EXE_dayzero");

struct Appliance {
    dir: tempfile::TempDir,
    serve: Option<Child>,
    ready: Vec<String>,
}

fn isolated() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", DAYZERO]);
    command
}

impl Appliance {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "data_dir = \"{}\"\nkey_file = \"{}\"\n[operators]\nlisten = \"127.0.0.1:0\"\n",
            at("data"),
            at("master.key")
        );
        std::fs::write(dir.path().join("serve.toml"), config).unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples");
        for name in ["lab.yaml", "lab.secrets.yaml"] {
            std::fs::copy(examples.join(name), dir.path().join(name)).unwrap();
        }
        std::fs::set_permissions(dir.path().join("lab.secrets.yaml"), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        Self { dir, serve: None, ready: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self) {
        let mut command = isolated();
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.args(["serve", "--config"]).arg(self.path("serve.toml")).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        self.ready = lines.take_while(|line| line != "ready").collect();
        self.serve = Some(child);
        assert_eq!(self.call(&["status"]).status.code(), Some(0), "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    fn signal(&mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        let mut child = self.serve.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap().code()
    }

    fn call(&self, args: &[&str]) -> Output {
        let mut command = Command::new(DAYZERO);
        command.env("DAYZERO_SOCKET", self.path("data/dayzero.sock")).args(args).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.call(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"))
    }

    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let output = self.call(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} said: {said}");
    }

    fn told(&self, key: &str) -> Option<&str> {
        self.ready.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if let Some(mut child) = self.serve.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_plan_survives_a_kill_and_every_fault_has_its_exit_code() {
    let mut appliance = Appliance::new();
    appliance.fails(&["status"], 1, "is `dayzero serve` running?");
    appliance.start();
    let claim = appliance.told("claim").expect("a claim code at the first start").to_owned();
    assert!(appliance.told("console").unwrap().starts_with("https://127.0.0.1:"));
    assert_eq!(appliance.told("fingerprint").unwrap().len(), 64);
    let mode = std::fs::metadata(appliance.path("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let plan = appliance.path("lab.yaml").display().to_string();
    appliance.fails(&["host", "show", "host1"], 2, "there is no host 'host1'");
    appliance.fails(&["apply", &plan], 2, "add --yes");
    let applied = appliance.json(&["apply", &plan, "--yes"]);
    assert_eq!(applied["changed"], true);
    assert_eq!(appliance.json(&["apply", &plan, "--yes"])["changed"], false);
    assert_eq!(appliance.json(&["status"])["racks"][0]["hosts"][1]["name"], "host1");
    assert_eq!(appliance.json(&["host", "show", "host1"])["conditions"].as_array().unwrap().len(), 12);
    assert_eq!(appliance.json(&["vm", "list"]), serde_json::json!([]));
    appliance.fails(
        &["vm", "create", "--offering", "no", "--template", "tiny", "--name", "x"],
        2,
        "offering",
    );
    appliance.fails(&["prove", "nohost"], 2, "nohost");
    appliance.fails(&["host", "show", "NO"], 2, "NO");
    appliance.fails(&["why", "../status"], 2, "../status");
    let second = isolated().args(["serve", "--config"]).arg(appliance.path("serve.toml")).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "a data directory is served once");

    let fingerprint = appliance.told("fingerprint").unwrap().to_owned();
    appliance.signal(nix::sys::signal::Signal::SIGKILL);
    appliance.start();
    assert_eq!(appliance.told("fingerprint"), Some(&*fingerprint), "people have compared it");
    let next = appliance.told("claim").expect("a new code until somebody has claimed it").to_owned();
    assert_ne!(next, claim);
    assert_eq!(appliance.json(&["status"])["plan"], applied["hash"]);
    assert!(appliance.json(&["store", "verify"])["records"].as_u64().unwrap() > 5);
    let fresh = appliance.json(&["claim"])["claim"].as_str().unwrap().to_owned();
    assert_ne!(fresh, claim);
    assert_eq!(appliance.signal(nix::sys::signal::Signal::SIGTERM), Some(0), "{}", appliance.log());
    assert!(!appliance.path("data/dayzero.sock").exists());
    let data = appliance.path("data").display().to_string();
    assert!(appliance.json(&["store", "verify", "--data-dir", &data])["records"].as_u64().unwrap() > 5);
    for secret in [claim, next, fresh, "calvin-lab".to_owned()] {
        assert!(!appliance.log().contains(&secret), "a secret is in the log");
    }
}

#[test]
fn a_secret_file_that_others_may_read_is_refused() {
    let mut appliance = Appliance::new();
    appliance.start();
    let secrets = appliance.path("lab.secrets.yaml");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o644)).unwrap();
    let plan = appliance.path("lab.yaml").display().to_string();
    appliance.fails(&["apply", &plan, "--yes"], 2, "chmod 600");
    assert_eq!(appliance.json(&["status"])["site"], Value::Null);
}

#[test]
fn plans_are_checked_without_an_appliance() {
    let appliance = Appliance::new();
    let plan = appliance.path("lab.yaml").display().to_string();
    let good = appliance.call(&["plan", "check", &plan]);
    assert_eq!(
        (good.status.code(), String::from_utf8_lossy(&good.stdout).contains("0 errors")),
        (Some(0), true)
    );
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace("cidr: 10.77.12.0/24", "cidr: 10.77.11.0/24")).unwrap();
    let bad = appliance.call(&["plan", "check", &plan, "-o", "json"]);
    assert_eq!(bad.status.code(), Some(2));
    let found: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert!(found["errors"].as_u64().unwrap() > 0);
    appliance.fails(&["apply", &plan, "--yes"], 2, "error[");
    let switches = appliance.call(&["plan", "init"]);
    assert_eq!(switches.status.code(), Some(0), "every answer has a default");
    assert!(String::from_utf8_lossy(&switches.stdout).contains("hosts:"));
    appliance.fails(&["serve", "--config", &plan], 2, "serve.toml");
    appliance.fails(&["lab", "status", "--dir", "/nonexistent"], 1, "no lab answers");
}
