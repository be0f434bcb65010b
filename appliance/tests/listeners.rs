//! Every socket of `dayzero serve`, with all that it can be told to serve: one table of what listens where, for whom. A socket
//! more or less, on another address, device or port, fails. What each HTTP listener answers is tested beside its routes. Not
//! here: packet sockets, by which DHCP sends and ARP is asked.
//!
//! The built binary runs in a network namespace of its own, whose interfaces end in that namespace; needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DAYZERO: &str = env!("CARGO_BIN_EXE_dayzero");

/// Kind, address and device, port; what it is; who may speak to it.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const ANYBODY: &str = "whoever is on that network";
const TABLE: &[Row] = &[
    ("tcp", "127.0.0.1", "8443", "console and API, HTTPS", "operators who are logged in"),
    ("tcp", "10.77.0.2%mgmt0", "8080", "HTTP boot, nothing secret", ANYBODY),
    ("tcp", "10.77.0.2%mgmt0", "8445", "HTTP boot over TLS, nothing secret", ANYBODY),
    ("tcp", "10.77.0.2", "8444", "enrolment, HTTPS", "keys that a BMC vouched for get a certificate"),
    ("tcp", "10.77.0.2", "7443", "agents, mutual TLS", "hosts that have a certificate of the site"),
    ("tcp", "10.77.9.2", "8082", "virtual media", "the BMC that a medium was made for, once"),
    ("tcp", "10.77.0.2%mgmt0", "53", "DNS", ANYBODY),
    ("udp", "10.77.0.2%mgmt0", "53", "DNS", ANYBODY),
    ("udp", "0.0.0.0%mgmt0", "67", "DHCP", ANYBODY),
    ("udp", "0.0.0.0%bmc0", "67", "DHCP", ANYBODY),
    ("udp", "0.0.0.0%guest0", "67", "DHCP", ANYBODY),
    ("udp", "0.0.0.0%mgmt0", "4011", "proxyDHCP's boot server", ANYBODY),
    ("udp", "[::]%bmc0", "547", "DHCPv6", ANYBODY),
    ("udp", "10.77.0.2%mgmt0", "69", "TFTP", ANYBODY),
    ("raw6", "any", "58", "router advertisements (ICMPv6), on a device that a plan boots from", ANYBODY),
    ("unix", "dayzero.sock", "-", "the command line", "root, by the file's mode"),
];

struct Lab {
    dir: tempfile::TempDir,
    serve: Child,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for file in ["vmlinuz", "initrd", "ipxe/undionly.kpxe", "ipxe/snponly.efi"] {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "a file that hosts boot").unwrap();
        }
        std::fs::create_dir(dir.path().join("host")).unwrap();
        std::fs::write(dir.path().join("host/manifest.json"), "{}").unwrap();
        let config = format!(
            "data_dir = \"{}\"\nkey_file = \"{}\"\n[operators]\nlisten = \"127.0.0.1:8443\"\n[files]\n\
             kernel = \"{}\"\ninitrd = \"{}\"\nhost_image = \"{}\"\nipxe = \"{}\"\n",
            at("data"),
            at("master.key"),
            at("vmlinuz"),
            at("initrd"),
            at("host"),
            at("ipxe")
        );
        std::fs::write(dir.path().join("serve.toml"), config).unwrap();
        plan(dir.path());
        let mut command = Command::new("unshare");
        let script = "ip link set lo up
            for network in mgmt0/10.77.0.2 bmc0/10.77.9.2 guest0/10.77.100.2; do
                ip link add ${network%/*} type veth peer name ${network%/*}-end
                ip link set ${network%/*}-end up
                ip link set ${network%/*} up
                ip address add ${network#*/}/24 dev ${network%/*}
            done
            exec \"$0\" serve --config \"$1\"";
        command.args(["--net", "sh", "-ec", script, DAYZERO]);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut serve = command.arg(at("serve.toml")).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "ready"), "{}", std::fs::read_to_string(at("log")).unwrap());
        Self { dir, serve }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// What others can send to: listening, or bound and not connected. Kind, address and device, port.
    fn sockets(&self) -> BTreeSet<(String, String, String)> {
        let pid = self.serve.id();
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let links = links.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let own: BTreeSet<String> = links
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let mut ss = Command::new("nsenter");
        ss.arg(format!("--net=/proc/{pid}/ns/net")).args(["ss", "-Hnle", "-t", "-u", "-x"]);
        let output = ss.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let listening = text.lines().filter_map(|line| self.socket(line, &own));
        let raw = ["raw", "raw6"].map(|kind| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
            let row = |line: &str| {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                let (address, protocol) = words.get(1)?.split_once(':')?;
                let any = if address.bytes().all(|digit| digit == b'0') { "any" } else { address };
                let protocol = u16::from_str_radix(protocol, 16).ok()?.to_string();
                own.contains(*words.get(9)?).then(|| (kind.to_owned(), any.to_owned(), protocol))
            };
            text.lines().filter_map(row).collect::<Vec<_>>()
        });
        listening.chain(raw.into_iter().flatten()).collect()
    }

    /// Of a line of `ss`: kind, state, two queues, local address, peer, more; a Unix socket's inode is its port.
    fn socket(&self, line: &str, own: &BTreeSet<String>) -> Option<(String, String, String)> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words[0].starts_with("u_") {
            let file = words[4].strip_prefix(&*format!("{}/data/", self.dir.path().display()));
            let name = file.unwrap_or(words[4]).to_owned();
            return own.contains(words[5]).then(|| ("unix".to_owned(), name, "-".to_owned()));
        }
        let inode = words.iter().find_map(|word| word.strip_prefix("ino:"));
        let (address, port) = words[4].rsplit_once(':').unwrap();
        own.contains(inode?).then(|| (words[0].to_owned(), address.to_owned(), port.to_owned()))
    }

    fn call(&self, args: &[&str]) -> String {
        let mut command = Command::new(DAYZERO);
        command.env("DAYZERO_SOCKET", self.dir.path().join("data/dayzero.sock")).args(args);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?} {}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
}

/// The lab's plan with every service that a network can be given.
fn plan(dir: &Path) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples");
    let text = std::fs::read_to_string(examples.join("lab.yaml")).unwrap();
    let mut plan = text.clone();
    for (own, more) in [
        ("    appliance: 10.77.0.2\n", "    dhcp: proxy\n    dns: [10.77.0.2]\n"),
        ("    appliance: 10.77.9.2\n", "    cidr6: fd77:9::/64\n"),
    ] {
        assert!(text.contains(own));
        plan = plan.replace(own, &format!("{own}{more}"));
    }
    std::fs::write(dir.join("lab.yaml"), plan).unwrap();
    let secrets = dir.join("lab.secrets.yaml");
    std::fs::copy(examples.join("lab.secrets.yaml"), &secrets).unwrap();
    std::fs::set_permissions(secrets, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Until it is what it should be; else the differences.
fn comes_to(lab: &Lab, rows: &[Row]) {
    let wanted: BTreeSet<(String, String, String)> =
        rows.iter().map(|row| (row.0.to_owned(), row.1.to_owned(), row.2.to_owned())).collect();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = lab.sockets();
        if seen == wanted {
            return;
        }
        assert!(
            Instant::now() < until,
            "more than the table has: {:#?}\nless than it has: {:#?}\n{}",
            seen.difference(&wanted).collect::<Vec<_>>(),
            wanted.difference(&seen).collect::<Vec<_>>(),
            lab.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_listening_socket_is_in_the_table_and_no_other() {
    let lab = Lab::new();
    let alone: Vec<Row> = TABLE.iter().filter(|row| row.2 == "8443" || row.0 == "unix").copied().collect();
    comes_to(&lab, &alone);
    let socket = lab.dir.path().join("data/dayzero.sock");
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);

    lab.call(&["apply", &lab.dir.path().join("lab.yaml").display().to_string(), "--yes"]);
    comes_to(&lab, TABLE);
    // Nobody is waiting for a port that he did not get, and so it stays.
    assert!(!lab.call(&["status", "-o", "json"]).contains("listener-failed"));
    comes_to(&lab, TABLE);
}
