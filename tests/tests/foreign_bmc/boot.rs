//! Our boot services over made-up plans, and a small system that they give to machines.

use dayzero_model::MacAddr;
use dayzero_model::boot::{BootAction, Client};
use dayzero_model::event::What;
use dayzero_model::site::NetworkRole;
use dayzero_pxe::{
    BootDirector, BootFiles, Ipv4Prefix, MemoryLeases, PxeConfig, PxeEvent, PxeServer, ScriptQuery,
    SeenClient, ServedInterface, ServedNetwork,
};
use dayzero_rehearsal::netns::path_of;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Of one step. Emulated machines are slow beside others: idle, a whole boot takes 10 to 20 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
pub(crate) const BOOT: u64 = 0xd15c;

/// Says who it is each second until a line is typed, then what it heard.
const INIT: &str = r#"#!/busybox sh
/busybox mount -t proc proc /proc
echo 1 > /proc/sys/kernel/printk
(while :; do echo; echo "DZT-INIT $(/busybox cat /proc/cmdline)"; /busybox sleep 1; done) &
while read -r line; do echo "DZT-HEARD $line"; done
/busybox sleep 1000
"#;

/// Kernel and initramfs on disk.
pub(crate) struct Boot {
    pub(crate) dir: tempfile::TempDir,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Boot {
    pub(crate) fn new() -> Self {
        let base = std::env::var("DAYZERO_TEST_KERNEL")
            .expect("DAYZERO_TEST_KERNEL: a directory with an unpacked linux-image package; `cargo xtask test --all` makes it");
        let files = std::fs::read_dir(Path::new(&base).join("boot")).unwrap().flatten();
        let kernel = files.map(|file| file.path()).find(|path| path.to_string_lossy().contains("/vmlinuz-"));
        // Short: the lab's sockets lie below it.
        let dir = tempfile::Builder::new().prefix("dzf").tempdir().unwrap();
        let initrd = initramfs(dir.path());
        Self { dir, kernel: kernel.expect("boot/vmlinuz-… in DAYZERO_TEST_KERNEL"), initrd }
    }
}

fn initramfs(dir: &Path) -> PathBuf {
    let (tree, out) = (dir.join("tree"), dir.join("initrd.img"));
    ["proc", "dev", "bin"].iter().for_each(|sub| std::fs::create_dir_all(tree.join(sub)).unwrap());
    std::fs::write(tree.join("init"), INIT).unwrap();
    std::fs::copy("/bin/busybox", tree.join("busybox")).unwrap();
    let script = format!(
        "chmod 755 init; mknod dev/console c 5 1; mknod dev/null c 1 3; find . | cpio -o -H newc --quiet | zstd -q -3 -o {}",
        out.display()
    );
    let done = Command::new("sh").arg("-ec").arg(script).current_dir(&tree).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

fn interface(device: &str, address: Ipv4Addr, role: NetworkRole) -> ServedInterface {
    let prefix = Ipv4Prefix { address, len: 24 };
    let network = ServedNetwork::new(device.parse().unwrap(), role, prefix);
    ServedInterface { device: device.into(), address, network }
}

/// The appliance's leg in the management network.
pub(crate) fn management(device: &str) -> ServedInterface {
    interface(device, Ipv4Addr::new(10, 77, 0, 2), NetworkRole::Management)
}

/// The appliance's leg in the BMC network.
pub(crate) fn bmcs(device: &str) -> ServedInterface {
    interface(device, Ipv4Addr::new(10, 77, 9, 2), NetworkRole::Bmc)
}

/// Plays the control plane: a plan of MACs, and what was seen.
#[derive(Default)]
pub(crate) struct Director {
    planned: Mutex<BTreeMap<MacAddr, Client>>,
    seen: Mutex<Vec<(Instant, PxeEvent)>>,
    more: Condvar,
}

impl Director {
    pub(crate) fn plan(&self, mac: MacAddr, client: Client) {
        self.planned.lock().unwrap().insert(mac, client);
    }

    /// When an event of this MAC first fitted; waits for it. What was seen stands in the failure.
    pub(crate) fn wait(&self, what: &str, mac: MacAddr, fits: &dyn Fn(&What) -> bool) -> Instant {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.seen.lock().unwrap();
        loop {
            let found = seen.iter().find(|(_, event)| event.mac == Some(mac) && fits(&event.what));
            if let Some((at, _)) = found {
                return *at;
            }
            let left = end.saturating_duration_since(Instant::now());
            let all: Vec<_> =
                seen.iter().map(|(_, event)| format!("{:?} {:?}", event.mac, event.what)).collect();
            assert!(!left.is_zero(), "no {what} of {mac} within {PATIENCE:?}; seen:\n{}", all.join("\n"));
            seen = self.more.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl BootDirector for Director {
    fn client(&self, seen: &SeenClient) -> Client {
        self.planned.lock().unwrap().get(&seen.mac).cloned().unwrap_or(Client::Unknown)
    }

    fn boot_script(&self, query: &ScriptQuery) -> BootAction {
        match self.planned.lock().unwrap().get(&query.mac) {
            Some(Client::Host { window: Some(window), .. }) => BootAction::Discovery {
                boot: window.boot,
                cmdline: ["console=ttyS0", "quiet", "no_timer_check"].map(String::from).into(),
            },
            _ => BootAction::Refuse,
        }
    }

    fn event(&self, event: PxeEvent) {
        self.seen.lock().unwrap().push((Instant::now(), event));
        self.more.notify_all();
    }
}

/// DHCP, TFTP and HTTP in a namespace, on a thread of their own; ended when dropped.
pub(crate) struct Services {
    pub(crate) director: Arc<Director>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    pub(crate) fn start(netns: &str, interfaces: &[ServedInterface], boot: &Boot) -> Self {
        let loaders = std::env::var("DAYZERO_IPXE")
            .expect("DAYZERO_IPXE: a directory of loaders; `cargo xtask test --all` makes it");
        let loader = |name: &str| {
            let bytes = std::fs::read(Path::new(&loaders).join(name)).unwrap();
            (name.to_owned(), bytes.into())
        };
        let files = [("vmlinuz", &boot.kernel), ("initrd.img", &boot.initrd)];
        let config = PxeConfig {
            interfaces: interfaces.to_vec(),
            tftp: ["undionly.kpxe", "snponly.efi"].map(loader).into(),
            boot: BootFiles {
                files: files.map(|(name, path)| (name.to_owned(), path.clone())).into(),
                kernel: "vmlinuz".into(),
                initrd: "initrd.img".into(),
                images: None,
            },
            ..PxeConfig::default()
        };
        let (director, stop) = (Arc::new(Director::default()), CancellationToken::new());
        let (ready, started) = std::sync::mpsc::channel();
        let (path, end, asked) = (path_of(netns), stop.clone(), Arc::clone(&director));
        let thread = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = PxeServer::bind(config, asked, Arc::new(MemoryLeases::default())).await;
                ready.send(server.as_ref().err().map(|error| format!("{error:?}"))).unwrap();
                if let Ok(server) = server {
                    server.run(end).await.unwrap();
                }
            });
        });
        assert_eq!(started.recv().unwrap(), None, "the services start");
        Self { director, stop, thread: Some(thread) }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the services end when told to");
        }
    }
}

/// Waits for a condition; the last observation stands in the failure.
pub(crate) async fn poll(what: &str, observe: impl Fn() -> Result<(), String>) {
    let end = Instant::now() + PATIENCE;
    while let Err(last) = observe() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}; last seen: {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
