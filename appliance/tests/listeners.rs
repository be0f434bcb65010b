//! Every socket of `dayzero serve`, with all that it can be told to serve: one table of what listens where, for whom. A socket
//! more or less, on another address, device or port, fails. What each HTTP listener answers is tested beside its routes. Not
//! here: packet sockets, by which DHCP sends and ARP is asked. And what becomes of these sockets, and of a transfer, when a plan
//! comes that needs no others.
//!
//! The built binary runs in a network namespace of its own, whose interfaces end in that namespace; needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DAYZERO: &str = env!("CARGO_BIN_EXE_dayzero");

/// Kind, address and device, port; what it is; who may speak to it.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// Kind, address and device, port.
type Socket = (String, String, String);

/// Which boot file there is, in five blocks.
const FILE: &str = "a file that hosts boot";
const TIMES: usize = 100;

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
    ("raw", "any", "255", "DHCP's answers to clients of other segments; it takes nothing", "nobody"),
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
            std::fs::write(file, FILE.repeat(TIMES)).unwrap();
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
        plan(dir.path(), "proxy", "");
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

    /// What others can send to: listening, or bound and not connected; by its inode.
    fn sockets(&self) -> BTreeMap<String, Socket> {
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
                let (inode, socket) = (words.get(9)?, (kind.to_owned(), any.to_owned(), protocol));
                own.contains(*inode).then(|| ((*inode).to_owned(), socket))
            };
            text.lines().filter_map(row).collect::<Vec<_>>()
        });
        listening.chain(raw.into_iter().flatten()).collect()
    }

    /// Of a line of `ss`: kind, state, two queues, local address, peer, more; a Unix socket's inode is its port.
    fn socket(&self, line: &str, own: &BTreeSet<String>) -> Option<(String, Socket)> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words[0].starts_with("u_") {
            let file = words[4].strip_prefix(&*format!("{}/data/", self.dir.path().display()));
            let name = file.unwrap_or(words[4]).to_owned();
            let socket = ("unix".to_owned(), name, "-".to_owned());
            return own.contains(words[5]).then(|| (words[5].to_owned(), socket));
        }
        let inode = words.iter().find_map(|word| word.strip_prefix("ino:"))?;
        let (address, port) = words[4].rsplit_once(':').unwrap();
        let socket = (words[0].to_owned(), address.to_owned(), port.to_owned());
        own.contains(inode).then(|| (inode.to_owned(), socket))
    }

    fn apply(&self) {
        self.call(&["apply", &self.dir.path().join("lab.yaml").display().to_string(), "--yes"]);
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

/// The lab's plan with every service that a network can be given; what DHCP does on the management network, and more keys of it.
fn plan(dir: &Path, dhcp: &str, keys: &str) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("plan/examples");
    let text = std::fs::read_to_string(examples.join("lab.yaml")).unwrap();
    let mut plan = text.clone();
    for (own, more) in [
        ("    appliance: 10.77.0.2\n", format!("    dhcp: {dhcp}\n    dns: [10.77.0.2]\n{keys}")),
        ("    appliance: 10.77.9.2\n", "    cidr6: fd77:9::/64\n".to_owned()),
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
    let wanted: BTreeSet<Socket> =
        rows.iter().map(|row| (row.0.to_owned(), row.1.to_owned(), row.2.to_owned())).collect();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let seen: BTreeSet<Socket> = lab.sockets().into_values().collect();
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

    lab.apply();
    comes_to(&lab, TABLE);
    // Nobody is waiting for a port that he did not get, and so it stays.
    assert!(!lab.call(&["status", "-o", "json"]).contains("listener-failed"));
    comes_to(&lab, TABLE);
}

/// This thread gets a network of its own, with a NIC of a machine on the lab's management network.
fn become_machine(lab: &Lab) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let script = format!(
        "nsenter --net=/proc/{}/ns/net ip link set mgmt0-end netns {}
         ip address add 10.77.0.200/24 dev mgmt0-end; ip link set mgmt0-end up",
        lab.serve.id(),
        nix::unistd::gettid()
    );
    assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
}

/// What comes back from a port of the appliance, and from whom; asked each second, since the link has just come up.
fn ask(socket: &UdpSocket, port: u16, question: &[u8]) -> (Vec<u8>, SocketAddr) {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut answer = vec![0; 1500];
    for _ in 0..60 {
        socket.send_to(question, (Ipv4Addr::new(10, 77, 0, 2), port)).unwrap();
        if let Ok((length, from)) = socket.recv_from(&mut answer) {
            answer.truncate(length);
            return (answer, from);
        }
    }
    panic!("no answer from port {port}");
}

/// Whether DNS has an address for a name of the lab.
fn resolves(name: &str) -> bool {
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "lab", "dayzero", "example"] {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    ask(&UdpSocket::bind("0.0.0.0:0").unwrap(), 53, &question).0[6..8] != [0, 0]
}

/// A transfer at our pace.
struct Transfer {
    socket: UdpSocket,
    file: Vec<u8>,
    number: u16,
}

impl Transfer {
    fn begin() -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let (block, from) = ask(&socket, 69, b"\0\x01undionly.kpxe\0octet\0");
        assert_eq!(block[..4], [0, 3, 0, 1], "its first block");
        socket.connect(from).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, file: block[4..].to_vec(), number: 1 }
    }

    /// Acknowledges, and takes the next block; no: that was the last one.
    fn step(&mut self) -> bool {
        let [high, low] = self.number.to_be_bytes();
        self.socket.send(&[0, 4, high, low]).unwrap();
        if self.file.len() < usize::from(self.number) * 512 {
            return false;
        }
        self.number += 1;
        let mut block = [0; 600];
        // What was sent again while nobody listened comes first.
        let length = loop {
            let length = self.socket.recv(&mut block).expect("the transfer goes on");
            assert_eq!(block[..2], [0, 3], "{:?}", String::from_utf8_lossy(&block[4..length]));
            if block[2..4] == self.number.to_be_bytes() {
                break length;
            }
        };
        self.file.extend_from_slice(&block[4..length]);
        true
    }
}

fn a_reservation_is_followed() {
    let lab = Lab::new();
    lab.apply();
    comes_to(&lab, TABLE);
    let before = lab.sockets();
    become_machine(&lab);
    assert!(resolves("host1") && !resolves("pdu1"));
    let mut transfer = Transfer::begin();
    assert!(transfer.step(), "its second block waits");

    let keys = "    reservations: [{ name: pdu1, address: 10.77.0.210, mac: 52:54:00:77:99:01 }]\n";
    plan(lab.dir.path(), "proxy", keys);
    lab.apply();
    assert!(transfer.step(), "its third one");
    let until = Instant::now() + Duration::from_secs(60);
    while !resolves("pdu1") {
        assert!(Instant::now() < until, "its name is not known: {}", lab.log());
    }
    while transfer.step() {}
    assert_eq!(transfer.file, FILE.repeat(TIMES).into_bytes());
    assert_eq!(lab.sockets(), before, "the very same sockets");

    plan(lab.dir.path(), "serve", keys);
    lab.apply();
    let without: Vec<Row> = TABLE.iter().filter(|row| row.2 != "4011").copied().collect();
    comes_to(&lab, &without);
    assert!(resolves("pdu1"), "all begins anew where a socket must go");
}

#[test]
fn a_plan_that_adds_a_reservation_opens_no_socket_anew_and_breaks_no_transfer() {
    // The machine's network goes with its thread.
    std::thread::spawn(a_reservation_is_followed).join().unwrap();
}
