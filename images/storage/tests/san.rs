//! Shared storage for real: an installed host, two storage networks, an iSCSI target, paths that are taken away.
//!
//! `cargo xtask test --lab storage` sets what it needs: `DAYZERO_HOST_IMAGE`, a directory with manifest.json and chunks/; root,
//! qemu-system-x86_64, tgt, busybox, mtools, a kernel with loop devices and ext4. Makes the network namespace `dzt-net-san`
//! and removes it.

// All of this file is a test; clippy knows only functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use dayzero_model::ids::Sha256;
use dayzero_model::install::{ImageManifest, PartitionRole};
use dayzero_storage::StorageError;
use dayzero_storage::block::{Access, Device};
use dayzero_storage::source::ChunkSource;
use dayzero_storage::writer::Writer;
use futures::future::BoxFuture;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const NETNS: &str = "dzt-net-san";

struct Files(PathBuf);

impl ChunkSource for Files {
    fn fetch<'a>(&'a self, blake3: &'a str, _: usize) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        let path = self.0.join("chunks").join(&blake3[..2]).join(blake3);
        Box::pin(async move { Ok(Bytes::from(std::fs::read(path).unwrap())) })
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Processes and the namespace, gone at the end whatever happens.
#[derive(Default)]
struct Rack(Vec<Child>);

impl Rack {
    fn start(
        &mut self,
        program: &str,
        args: &[&str],
        stdout: Stdio,
        environment: &[(&str, &Path)],
    ) -> &mut Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NETNS, program]).args(args);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(stdout);
        self.0.push(command.spawn().unwrap());
        self.0.last_mut().unwrap()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", NETNS]).status();
    }
}

/// Writes the image, and puts the test's service into its root; the root's GUID and the offset of the ESP.
fn install(image: &Path, disk: &Path, work: &Path) -> (String, u64) {
    let manifest: ImageManifest =
        serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    std::fs::File::create(disk).unwrap().set_len(3 << 30).unwrap();
    let device = Arc::new(Device::open(disk, Access::Direct).unwrap());
    let writer = Writer::begin(device, Arc::new(manifest), Sha256::of(b"plan")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(writer.content(&Files(image.to_owned()), &|_| {})).unwrap();
    let place = |role| writer.place(role).unwrap().1.start;
    let (esp, root) = (place(PartitionRole::Esp), place(PartitionRole::Root));
    let guid = writer.place(PartitionRole::Root).unwrap().1.guid.to_string();
    writer.finish().unwrap();
    let at = work.join("root");
    std::fs::create_dir(&at).unwrap();
    let (at_text, options) = (at.to_str().unwrap(), format!("loop,offset={root}"));
    run("mount", &["-o", &options, disk.to_str().unwrap(), at_text]);
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/sanhost");
    let put = || -> std::io::Result<()> {
        std::fs::copy(&program, at.join("usr/lib/dayzero/sanhost"))?;
        let unit = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/usr/lib/dayzero/sanhost\n";
        std::fs::write(at.join("etc/systemd/system/sanhost.service"), unit)?;
        std::fs::write(at.join("etc/machine-id"), "da7ae0000000400000000000000000aa\n")?;
        std::fs::write(at.join("etc/iscsi/initiatorname.iscsi"), "InitiatorName=iqn.2026-11.example:host1\n")
    };
    let done = put();
    run("umount", &[at_text]);
    done.unwrap();
    (guid, esp)
}

fn target(rack: &mut Rack, work: &Path) {
    run("ip", &["netns", "add", NETNS]);
    let ip = |args: &str| run("ip", &[&["-n", NETNS][..], &args.split(' ').collect::<Vec<_>>()].concat());
    ip("link set lo up");
    for (tap, net) in [("sta0", 11), ("stb0", 12)] {
        ip(&format!("tuntap add {tap} mode tap"));
        ip(&format!("addr add 10.77.{net}.1/24 dev {tap}"));
        ip(&format!("addr add 10.77.{net}.10/24 dev {tap}"));
        ip(&format!("link set {tap} up"));
    }
    let socket = work.join("tgtd.sock");
    let environment = [("TGT_IPC_SOCKET", socket.as_path())];
    rack.start("tgtd", &["-f", "--iscsi", "portal=10.77.11.10:3260"], Stdio::null(), &environment);
    let start = Instant::now();
    while !work.join("tgtd.sock.0").exists() && !socket.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "tgtd does not start");
        std::thread::yield_now();
    }
    let admin = |args: &str| {
        let tool = ["tgtadm", "--lld", "iscsi"];
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut command = Command::new("ip");
            command
                .args(["netns", "exec", NETNS])
                .args(tool)
                .args(args.split(' '))
                .env("TGT_IPC_SOCKET", &socket);
            let output = command.output().unwrap();
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < end, "{args}: {}", String::from_utf8_lossy(&output.stderr));
        }
    };
    admin("--op new --mode portal --param portal=10.77.12.10:3260");
    admin("--op new --mode target --tid 14 -T iqn.2026-11.example:lun0");
    for (number, size) in [(1, 256 << 20), (2, 64 << 20)] {
        let file = work.join(format!("lun{number}"));
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        if number == 2 {
            run("mkfs.ext4", &["-q", "-F", file.to_str().unwrap()]);
        }
        admin(&format!("--op new --mode logicalunit --tid 14 --lun {number} -b {}", file.display()));
    }
    admin("--op bind --mode target --tid 14 -I ALL");
    std::fs::create_dir(work.join("www")).unwrap();
    std::fs::write(work.join("www/template.raw"), vec![0x5a; 3 << 20]).unwrap();
    let www = work.join("www").display().to_string();
    rack.start("busybox", &["httpd", "-f", "-p", "10.77.11.1:8081", "-h", &www], Stdio::null(), &[]);
}

#[test]
#[ignore = "boots a QEMU machine; see the file's header"]
fn a_lun_over_two_paths() {
    let image = PathBuf::from(
        std::env::var("DAYZERO_HOST_IMAGE").expect("DAYZERO_HOST_IMAGE: see the file's header"),
    );
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk");
    let (root, esp) = install(&image, &disk, work.path());
    for file in ["vmlinuz", "initrd.img"] {
        let from = format!("{}@@{esp}", disk.display());
        run("mcopy", &["-i", &from, &format!("::/dayzero/{file}"), work.path().join(file).to_str().unwrap()]);
    }
    let mut rack = Rack::default();
    target(&mut rack, work.path());
    let path = |name: &str| work.path().join(name).display().to_string();
    let drive = format!("if=none,id=d,format=raw,cache=unsafe,file={}", path("disk"));
    let append = format!(
        "root=PARTUUID={root} rw console=ttyS0 quiet no_timer_check systemd.mask=dayzero-agent.service \
         systemd.mask=serial-getty@ttyS0.service systemd.wants=sanhost.service systemd.gpt_auto=0"
    );
    let mut args: Vec<String> =
        "-nodefaults -display none -vga none -machine q35 -accel tcg -cpu max -smp 2 -m 1024 -no-reboot -serial stdio"
            .split(' ')
            .map(str::to_owned)
            .collect();
    args.extend(
        ["-device", "virtio-scsi-pci", "-drive", &drive, "-device", "scsi-hd,drive=d"].map(str::to_owned),
    );
    args.extend(["-kernel".to_owned(), path("vmlinuz"), "-initrd".to_owned(), path("initrd.img")]);
    args.extend(["-append".to_owned(), append]);
    args.extend(
        ["-netdev", "hubport,id=n1,hubid=1", "-device", "virtio-net-pci,netdev=n1,mac=52:54:00:77:01:01"]
            .map(str::to_owned),
    );
    for (tap, number) in [("sta0", 3), ("stb0", 4)] {
        let netdev = format!("tap,id=n{number},ifname={tap},script=no,downscript=no");
        let device = format!("virtio-net-pci,netdev=n{number},mac=52:54:00:77:01:{number:02x}");
        args.extend(["-netdev".to_owned(), netdev, "-device".to_owned(), device]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let machine = rack.start("qemu-system-x86_64", &args, Stdio::piped(), &[]);
    let stdout = machine.stdout.take().unwrap();
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if to.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                return;
            }
        }
    });
    let mut checks = Vec::new();
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let line = lines.recv_timeout(end.saturating_duration_since(Instant::now()));
        let line = line.unwrap_or_else(|_| panic!("the host does not end; {checks:#?}"));
        println!("{line}");
        // A dead switch: the carrier stays, nothing passes.
        let tap = |path: &str| if path == "a" { "sta0" } else { "stb0" };
        if let Some(path) = line.strip_prefix("PULL ") {
            run("ip", &["-n", NETNS, "link", "set", tap(path), "down"]);
        } else if let Some(path) = line.strip_prefix("PLUG ") {
            run("ip", &["-n", NETNS, "link", "set", tap(path), "up"]);
        } else if line.starts_with("CHECK ") {
            checks.push(line);
        } else if line == "HOST DONE" {
            break;
        }
    }
    let bad: Vec<_> = checks.iter().filter(|c| c.split_whitespace().nth(2) != Some("ok")).collect();
    assert!(bad.is_empty() && checks.len() == 23, "{} checks, {bad:#?}", checks.len());
}
