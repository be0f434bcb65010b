//! The whole crate against a real kernel with bonding, VLANs and bridges: a QEMU machine (TCG) with four virtio NICs,
//! whose cables end in this test, which answers LACP, LLDP and ARP as a stack of switches would.
//!
//! `cargo xtask test --lab netconf` sets what it needs: `DAYZERO_TEST_KERNEL`, a directory with an unpacked linux-image package
//! that depmod has indexed; qemu-system-x86_64, cpio, modprobe.

// All of this file is a test; clippy knows only functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MODULES: [&str; 5] = ["virtio_pci", "virtio_net", "bonding", "8021q", "bridge"];
const SYSTEM: [u8; 6] = [2, 0, 0, 0xaa, 0xbb, 1];

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The test program, built as an example beside this test.
fn guest_program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples/guest");
    assert!(path.exists(), "build it first: cargo build -p dayzero-netconf --example guest");
    path
}

fn initramfs(work: &Path, kernel: &Path) -> PathBuf {
    let release = std::fs::read_dir(kernel.join("lib/modules")).unwrap().next().unwrap().unwrap().file_name();
    let tree = work.join("tree");
    std::fs::create_dir_all(tree.join("modules")).unwrap();
    let mut order = Vec::new();
    for module in MODULES {
        let shown = output(
            Command::new("modprobe")
                .arg("-d")
                .arg(kernel)
                .arg("-S")
                .arg(&release)
                .args(["--show-depends", module]),
        );
        for path in shown.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.split_whitespace().next().unwrap());
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !order.contains(&name) {
                std::fs::copy(path, tree.join("modules").join(&name)).unwrap();
                order.push(name);
            }
        }
    }
    std::fs::write(tree.join("modules/order"), order.join("\n")).unwrap();
    std::fs::copy(guest_program(), tree.join("init")).unwrap();
    let image = work.join("initrd");
    let script = format!("find . | cpio -o -H newc --quiet > {}", image.display());
    output(Command::new("sh").arg("-c").arg(script).current_dir(&tree));
    image
}

/// One switch port: answers LACPDUs with the stack's system id, ARP for the gateway, and speaks LLDP each second.
struct Port {
    socket: UnixDatagram,
    guest: PathBuf,
    number: u8,
    announced: Arc<AtomicUsize>,
}

impl Port {
    fn send(&self, frame: &[u8]) {
        let mut frame = frame.to_vec();
        frame.resize(frame.len().max(60), 0);
        // The machine may not be there yet.
        let _ = self.socket.send_to(&frame, &self.guest);
    }

    fn lldp(&self) -> Vec<u8> {
        let mut frame = vec![1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, self.number, 0x88, 0xcc];
        let name = format!("sw-{}", self.number);
        for (kind, value) in [
            (1_u8, [&[4][..], &SYSTEM].concat()),
            (2, b"\x051".to_vec()),
            (3, vec![0, 20]),
            (5, name.into_bytes()),
            (0, Vec::new()),
        ] {
            frame.extend([kind << 1, value.len() as u8]);
            frame.extend(value);
        }
        frame
    }

    /// IEEE 802.1AX 6.4.2.3: our actor TLV with all of active, short, aggregation, sync, collecting, distributing.
    fn lacp(&self, heard: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, self.number, 0x88, 0x09, 1, 1];
        let actor = |frame: &mut Vec<u8>, kind: u8, body: &[u8]| {
            frame.extend([kind, 20]);
            frame.extend(body);
            frame.extend([0; 3]);
        };
        let mut own = vec![0, 100];
        own.extend(SYSTEM);
        own.extend([0, 7, 0, 255, 0, self.number, 0x3f]);
        actor(&mut frame, 1, &own);
        actor(&mut frame, 2, &heard[18..33]);
        frame.extend([3, 16, 0, 0]);
        frame.resize(124, 0);
        frame
    }

    fn arp_reply(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let request = asked.get(20..22) == Some(&[0, 1]) && asked.get(38..42) == Some(&[10, 77, 0, 1]);
        let own = [2, 0, 0, 0, 0xcc, 1];
        request.then(|| {
            let mut frame = [&asked[6..12], &own, &asked[12..20], &[0, 2], &own, &[10, 77, 0, 1]].concat();
            frame.extend(&asked[22..32]);
            frame
        })
    }

    fn run(&self, others: &[(UnixDatagram, PathBuf)], stop: &AtomicBool) {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut spoken = Instant::now() - Duration::from_secs(9);
        let mut frame = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if spoken.elapsed() > Duration::from_secs(1) {
                spoken = Instant::now();
                self.send(&self.lldp());
            }
            let Ok(length) = self.socket.recv(&mut frame) else { continue };
            let frame = &frame[..length];
            match frame.get(12..14) {
                Some([0x88, 0x09]) if frame.get(14) == Some(&1) => self.send(&self.lacp(frame)),
                Some([0x88, 0xcc]) => {
                    self.announced
                        .fetch_add(usize::from(frame.windows(5).any(|w| w == b"host1")), Ordering::Relaxed);
                }
                Some([0x08, 0x06]) => {
                    // A backup leg sees the active leg's requests, as on a real segment; a VLAN's are not ours.
                    for (socket, guest) in others {
                        let _ = socket.send_to(frame, guest);
                    }
                    if let Some(reply) = self.arp_reply(frame) {
                        self.send(&reply);
                    }
                }
                _ => {}
            }
        }
    }
}

fn qemu(work: &Path, kernel: &Path, initrd: &Path) -> Command {
    let boot = std::fs::read_dir(kernel.join("boot")).unwrap().map(|entry| entry.unwrap().path());
    let vmlinuz = boot.into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("vmlinuz"));
    let mut command = Command::new("qemu-system-x86_64");
    command.args(
        "-nodefaults -display none -vga none -machine q35 -accel tcg -cpu max -m 512 -no-reboot".split(' '),
    );
    command.args(["-serial", "stdio"]).arg("-kernel").arg(vmlinuz.unwrap()).arg("-initrd").arg(initrd);
    command.args(["-append", "console=ttyS0 quiet no_timer_check net.ifnames=0 panic=-1"]);
    for number in 1..=4 {
        let (own, peer) = (work.join(format!("g{number}")), work.join(format!("s{number}")));
        let netdev = format!(
            "dgram,id=n{number},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            own.display(),
            peer.display()
        );
        let device = format!("virtio-net-pci,netdev=n{number},mac=52:54:00:77:01:{number:02x},romfile=");
        command.arg("-netdev").arg(netdev).arg("-device").arg(device);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

#[test]
#[ignore = "boots a QEMU machine; see the file's header"]
fn a_host_wires_itself() {
    let kernel = std::env::var("DAYZERO_TEST_KERNEL").expect("DAYZERO_TEST_KERNEL: see the file's header");
    let (kernel, work) = (PathBuf::from(kernel), tempfile::tempdir().unwrap());
    let initrd = initramfs(work.path(), &kernel);
    let (stop, announced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let path = |letter: &str, number: u8| work.path().join(format!("{letter}{number}"));
    let sockets: Vec<UnixDatagram> = (1..=4).map(|n| UnixDatagram::bind(path("s", n)).unwrap()).collect();
    let threads: Vec<_> = (1..=4_u8)
        .map(|number| {
            let socket = |n: u8| sockets[usize::from(n) - 1].try_clone().unwrap();
            let port = Port {
                socket: socket(number),
                guest: path("g", number),
                number,
                announced: announced.clone(),
            };
            let others = match number {
                1 => vec![(socket(2), path("g", 2))],
                2 => vec![(socket(1), path("g", 1))],
                _ => Vec::new(),
            };
            let stop = stop.clone();
            std::thread::spawn(move || port.run(&others, &stop))
        })
        .collect();
    let mut machine = qemu(work.path(), &kernel, &initrd).spawn().unwrap();
    // A machine that hangs is ended, so that the console below comes to its end.
    let (id, over) = (machine.id(), stop.clone());
    let watchdog = std::thread::spawn(move || {
        let start = Instant::now();
        while !over.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(300) {
            std::thread::sleep(Duration::from_millis(100));
        }
        if !over.load(Ordering::Relaxed) {
            let _ = Command::new("kill").arg(id.to_string()).status();
        }
    });
    let mut console = Vec::new();
    machine.stdout.take().unwrap().read_to_end(&mut console).unwrap();
    machine.wait().unwrap();
    stop.store(true, Ordering::Relaxed);
    watchdog.join().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let console = String::from_utf8_lossy(&console);
    println!("{console}");
    let checks: Vec<&str> = console.lines().filter_map(|line| line.strip_prefix("CHECK ")).collect();
    let bad: Vec<&&str> = checks.iter().filter(|c| c.split_whitespace().nth(1) != Some("ok")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(console.contains("GUEST DONE") && checks.len() == 30, "{} checks", checks.len());
    assert!(announced.load(Ordering::Relaxed) >= 2, "our LLDP frames did not reach the switch");
}
