//! The built binary against an appliance elsewhere: login by claim code and by password, a pinned certificate, every kind
//! of refusal. Server and client share a network namespace of their own with nothing but loopback; needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const DAYZERO: &str = env!("CARGO_BIN_EXE_dayzero");
const PASSWORD: &str = "correct horse battery";

struct Lab {
    dir: tempfile::TempDir,
    serve: Child,
    ready: Vec<String>,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "data_dir = \"{}\"\nkey_file = \"{}\"\n[operators]\nlisten = \"127.0.0.1:8443\"\n",
            at("data"),
            at("master.key")
        );
        std::fs::write(dir.path().join("serve.toml"), config).unwrap();
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && exec \"$0\" serve --config \"$1\"",
            DAYZERO,
        ]);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut serve = command.arg(at("serve.toml")).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = BufReader::new(serve.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ready = lines.take_while(|line| line != "ready").collect();
        Self { dir, serve, ready }
    }

    fn told(&self, key: &str) -> &str {
        self.ready.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).unwrap()
    }

    fn session(&self) -> PathBuf {
        self.dir.path().join("home/session.json")
    }

    /// A call from a machine that has no socket of the appliance; `typed` is its standard input.
    fn call(&self, args: &[&str], typed: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.serve.id())).arg(DAYZERO).args(args);
        command
            .env("DAYZERO_SESSION", self.session())
            .env_remove("DAYZERO_SOCKET")
            .env_remove("DAYZERO_SERVER");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _may_not_read = child.stdin.take().unwrap().write_all(typed.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn works(&self, args: &[&str], typed: &str) -> String {
        let output = self.call(args, typed);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, args: &[&str], typed: &str, code: i32, says: &str) {
        let output = self.call(args, typed);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} said: {said}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
}

#[test]
fn an_appliance_elsewhere_is_claimed_and_used() {
    let lab = Lab::new();
    let url = "https://127.0.0.1:8443";
    let (print, code) = (lab.told("fingerprint").to_owned(), lab.told("claim").to_owned());
    let claim = format!("{code}\n{PASSWORD}\n");
    let wrong = "0".repeat(64);

    // Nothing is typed into a connection that is not the right one.
    lab.fails(&["login", url, "--claim"], &claim, 2, "add --fingerprint");
    lab.fails(
        &["login", url, "--claim", "--fingerprint", &wrong],
        &claim,
        1,
        &format!("shows the certificate {print}"),
    );
    lab.fails(&["login", "https://127.0.0.1:1", "--fingerprint", &print], "x\n", 1, "no appliance answers");
    lab.fails(&["login", "http://127.0.0.1"], "", 2, "https://ADDRESS:PORT");
    lab.fails(
        &["login", url, "--claim", "--fingerprint", &print],
        "AAAA\nlong enough for it\n",
        2,
        "claim code is wrong",
    );
    lab.fails(
        &["login", url, "--claim", "--fingerprint", &print],
        &format!("{code}\nshort\n"),
        2,
        "12 to 256 characters",
    );
    lab.fails(&["login", url, "--fingerprint", &print], "", 2, "nothing was typed");
    assert!(!lab.session().exists());

    let colons: Vec<String> =
        print.to_uppercase().as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
    lab.works(&["login", url, "--claim", "--fingerprint", &colons.join(":")], &claim);
    let mode = std::fs::metadata(lab.session()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    every_command(&lab);

    // The session file alone says where; a name says where too; the socket is this machine's.
    let status = |args: &[&str]| {
        serde_json::from_str::<Value>(&lab.works(&[args, &["status", "-o", "json"]].concat(), "")).unwrap()
    };
    assert_eq!(status(&[])["site"], "lab");
    assert_eq!(status(&["--server", url])["site"], "lab");
    assert_eq!(
        status(&["--socket", &lab.dir.path().join("data/dayzero.sock").display().to_string()])["site"],
        "lab"
    );
    lab.fails(
        &["--server", "https://127.0.0.2:8443", "status"],
        "",
        2,
        "nobody is logged in to https://127.0.0.2:8443",
    );

    // A second login needs no fingerprint: it is known.
    lab.fails(&["login", url, "--user", "admin"], "wrong password 1\n", 2, "do not match");
    lab.works(&["login", url], &format!("{PASSWORD}\n"));
    let before = std::fs::read_to_string(lab.session()).unwrap();
    lab.works(&["logout"], "");
    lab.fails(&["logout"], "", 2, "nobody is logged in");
    std::fs::write(lab.session(), before).unwrap();
    lab.fails(&["status"], "", 2, "the session at https://127.0.0.1:8443 is over");

    let log = std::fs::read_to_string(lab.dir.path().join("log")).unwrap();
    for secret in [code.as_str(), PASSWORD] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

/// Before a plan is applied, the appliance looks at its own disk and its own addresses, not at this machine's.
fn examines_itself(lab: &Lab, plan: &str) {
    let output = lab.call(&["doctor", "--plan", plan, "--config", "serve.toml", "-o", "json"], "");
    assert_eq!(output.status.code(), Some(2), "a configuration that is not there is said");
    let output = lab.call(&["doctor", "--plan", plan, "-o", "json"], "");
    assert_eq!(output.status.code(), Some(1), "no interface has the plan's addresses");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of =
        |check: &str| found.as_array().unwrap().iter().find(|finding| finding["check"] == check).unwrap();
    let data = lab.dir.path().join("data").display().to_string();
    assert!(of("disk")["found"].as_str().unwrap().starts_with(&data), "{found}");
    assert_eq!((&of("address")["severity"], &found[0]["severity"]), (&"fault".into(), &"fault".into()));
    let text = lab.call(&["doctor", "--plan", plan], "");
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("fault    "), "{text:?}");
}

/// What works on the socket works here.
fn every_command(lab: &Lab) {
    let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples/lab.yaml");
    for name in ["lab.yaml", "lab.secrets.yaml"] {
        std::fs::copy(plan.with_file_name(name), lab.dir.path().join(name)).unwrap();
    }
    let secrets = lab.dir.path().join("lab.secrets.yaml");
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).unwrap();
    let plan = lab.dir.path().join("lab.yaml").display().to_string();
    examines_itself(lab, &plan);
    lab.works(&["apply", &plan, "--yes"], "");
    for args in [
        &["status"][..],
        &["host", "show", "host1"],
        &["why", "host1"],
        &["vm", "list"],
        &["store", "verify"],
        &["health"],
    ] {
        lab.works(args, "");
    }
    let health: Value = serde_json::from_str(&lab.works(&["health", "-o", "json"], "")).unwrap();
    assert!(health["peak_memory"].as_u64().unwrap() > 1 << 20, "{health}");
    lab.fails(&["host", "show", "nobody"], "", 2, "there is no host 'nobody'");
    lab.fails(&["claim"], "", 2, "at the machine only");
}
