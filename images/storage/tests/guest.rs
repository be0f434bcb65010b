//! A whole installation on a real kernel, by BIOS and by UEFI, and the first start from the disk that it wrote.
//!
//! `cargo xtask test --lab storage` sets what it needs: `DAYZERO_TEST_KERNEL`, a directory with an unpacked linux-image package
//! that depmod has indexed; `DAYZERO_HOST_IMAGE`, a directory with manifest.json and chunks/; qemu-system-x86_64, OVMF, cpio,
//! modprobe, mkfs.ext4, sgdisk.

// All of this file is a test; clippy knows only functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use sha2::Digest;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const MODULES: [&str; 12] = [
    "virtio_pci",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "ext4",
    "crc32c_generic",
    "crc32c_intel",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "efivarfs",
];

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn directory(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var(variable).unwrap_or_else(|_| panic!("{variable}: see the file's header")))
}

fn initramfs(work: &Path, kernel: &Path) -> PathBuf {
    let release = std::fs::read_dir(kernel.join("lib/modules")).unwrap().next().unwrap().unwrap().file_name();
    let tree = work.join("tree");
    std::fs::create_dir_all(tree.join("modules")).unwrap();
    let mut order = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(kernel).arg("-S").arg(&release).args(["--show-depends", module]);
        for path in output(&mut modprobe).lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.split_whitespace().next().unwrap());
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !order.contains(&name) {
                std::fs::copy(path, tree.join("modules").join(&name)).unwrap();
                order.push(name);
            }
        }
    }
    std::fs::write(tree.join("modules/order"), order.join("\n")).unwrap();
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/installer");
    assert!(program.exists(), "build it first: cargo build -p dayzero-storage --example installer");
    std::fs::copy(program, tree.join("init")).unwrap();
    let image = work.join("initrd");
    let script = format!("find . | cpio -o -H newc --quiet > {}", image.display());
    output(Command::new("sh").arg("-c").arg(script).current_dir(&tree));
    image
}

/// Files below a directory, by HTTP/1.1.
fn serve(root: PathBuf) -> u16 {
    fn one(mut stream: TcpStream, root: &Path) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut path = None;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if let Some(rest) = line.strip_prefix("GET ") {
                    path = rest.split(' ').next().map(|path| path.trim_start_matches('/').to_owned());
                }
                if line == "\r\n" {
                    break;
                }
            }
            let (status, body) = match path.map(|path| std::fs::read(root.join(path))) {
                Some(Ok(body)) => ("200 OK", body),
                _ => ("404 Not Found", Vec::new()),
            };
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body)?;
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || one(stream, &root));
        }
    });
    port
}

/// A machine with the disk; its console comes line by line.
struct Machine {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Machine {
    fn start(work: &Path, uefi: bool, more: &[String]) -> Self {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args("-nodefaults -display none -vga none -machine q35 -accel tcg -cpu max -m 1024".split(' '));
        command.args(
            "-no-reboot -serial stdio -device virtio-scsi-pci -netdev user,id=n,restrict=off".split(' '),
        );
        command.args(["-device", "virtio-net-pci,netdev=n,mac=52:54:00:77:01:01,romfile="]);
        let drive = format!("if=none,id=d,format=raw,cache=unsafe,file={}", work.join("disk").display());
        command.args(["-drive", &drive]);
        command.args(["-device", "scsi-hd,drive=d,serial=DZDISK0001,wwn=0x5000c50077000001"]);
        if uefi {
            let code = "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
            let vars = format!("if=pflash,unit=1,format=raw,file={}", work.join("vars").display());
            command.args(["-drive", code, "-drive", &vars]);
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (to, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            for byte in BufReader::new(stdout).bytes().map_while(Result::ok) {
                line.push(byte);
                // A login prompt ends without a newline.
                if byte == b'\n' || line.ends_with(b"login: ") {
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    line.clear();
                    if to.send(text).is_err() {
                        return;
                    }
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    fn wait_for(&mut self, what: &str, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            println!("{line}");
            self.seen.push(line);
            if self.seen.last().is_some_and(|line| line.contains(what)) {
                return;
            }
        }
        panic!(
            "no '{what}' within {seconds} s; last lines: {:#?}",
            self.seen.iter().rev().take(20).collect::<Vec<_>>()
        );
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn install_and_start(uefi: bool) {
    let (kernel, image) = (directory("DAYZERO_TEST_KERNEL"), directory("DAYZERO_HOST_IMAGE"));
    let work = tempfile::tempdir().unwrap();
    let initrd = initramfs(work.path(), &kernel);
    let digest = sha2::Sha256::digest(std::fs::read(image.join("manifest.json")).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let port = serve(image);
    let disk = work.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(3 << 30).unwrap();
    output(Command::new("mkfs.ext4").args(["-q", "-F", "-L", "payroll"]).arg(&disk));
    if uefi {
        std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", work.path().join("vars")).unwrap();
    }
    let boot = std::fs::read_dir(kernel.join("boot")).unwrap().map(|entry| entry.unwrap().path());
    let vmlinuz = boot.into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("vmlinuz"));
    let append = format!(
        "console=ttyS0 quiet no_timer_check net.ifnames=0 panic=-1 test.url=http://10.0.2.2:{port} test.manifest={digest}"
    );
    let arguments = [
        "-kernel".to_owned(),
        vmlinuz.unwrap().display().to_string(),
        "-initrd".to_owned(),
        initrd.display().to_string(),
        "-append".to_owned(),
        append,
    ];
    let mut machine = Machine::start(work.path(), uefi, &arguments);
    machine.wait_for("GUEST DONE", 400);
    let checks: Vec<&String> = machine.seen.iter().filter(|line| line.starts_with("CHECK ")).collect();
    let bad: Vec<_> = checks.iter().filter(|c| c.split_whitespace().nth(2) != Some("ok")).collect();
    assert!(bad.is_empty() && checks.len() == 4, "{checks:#?}");
    // BIOS keeps no order that an installer could write.
    assert_eq!(checks[2].contains("Boot0"), uefi, "{}", checks[2]);
    let ended = Instant::now();
    while machine.child.try_wait().unwrap().is_none() {
        assert!(ended.elapsed() < Duration::from_secs(60), "the machine does not power off");
        std::thread::yield_now();
    }
    drop(machine);
    let verdict = output(Command::new("/usr/sbin/sgdisk").arg("-v").arg(&disk));
    assert!(verdict.contains("No problems found"), "{verdict}");

    let mut machine = Machine::start(work.path(), uefi, &[]);
    machine.wait_for("host1 login:", 400);
}

#[test]
#[ignore = "boots QEMU machines; see the file's header"]
fn a_host_that_starts_by_bios() {
    install_and_start(false);
}

#[test]
#[ignore = "boots QEMU machines; see the file's header"]
fn a_host_that_starts_by_uefi() {
    install_and_start(true);
}
