//! A network with our boot services, the product's files under Secure Boot, and what the recorder saw.

use crate::forge;
use dayzero_control::Images;
use dayzero_control::secure::SecureFiles;
use dayzero_images::{Cache, SECURE_CMDLINE};
use dayzero_model::boot::{BootAction, BootWindow, Chain, Client};
use dayzero_model::event::{Event, What};
use dayzero_model::facts::{BmcFacts, HostFacts, SecureBootFacts};
use dayzero_model::site::{BmcProtocol, NetworkRole};
use dayzero_model::units::{Millis, Timestamp};
use dayzero_model::{BootId, HostName, MacAddr};
use dayzero_pxe::{
    BootDirector, BootFiles, Ipv4Prefix, MemoryLeases, PxeConfig, PxeEvent, PxeServer, ScriptQuery,
    SeenClient, ServedInterface, ServedNetwork,
};
use dayzero_store::{Options, Store};
use dayzero_timeline::{Finding, WhyContext, text, why};
use dayzero_trust::{KeySource, LoaderCa, SiteCa, Vault, boot_server_config};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Emulated firmware on a loaded machine is slow; on an idle one a whole boot takes 15 to 40 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(420);
pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 5, 1]);
const APPLIANCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

pub(crate) fn must(command: &str) {
    let done = Command::new("sh").arg("-ec").arg(command).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

fn name() -> HostName {
    "host1".parse().unwrap()
}

/// Whether an event is this loader, fetched whole.
pub(crate) fn got(what: &What, name: &str) -> bool {
    matches!(what, What::TftpEnd { file, error: None, .. } if file == name)
}

/// One planned host with an open window, and all that it does.
struct Director {
    chain: Chain,
    seen: Mutex<Vec<Event>>,
    more: Condvar,
}

impl BootDirector for Director {
    fn client(&self, seen: &SeenClient) -> Client {
        if seen.mac != MAC {
            return Client::Unknown;
        }
        let window = Some(BootWindow { boot: BootId(0xd15c), host: name() });
        Client::Host { host: name(), address: HOST, window, uuid: None, chain: self.chain }
    }

    fn boot_script(&self, query: &ScriptQuery) -> BootAction {
        if query.mac != MAC {
            return BootAction::Refuse;
        }
        let words = [
            "console=ttyS0".to_owned(),
            "dayzero.boot=000000000000d15c".to_owned(),
            format!("dayzero.mac={MAC}"),
            format!("dayzero.ip={HOST}/24"),
            format!("dayzero.enrol=https://{APPLIANCE}:8444"),
            format!("dayzero.agent={APPLIANCE}:7443"),
        ];
        BootAction::Discovery { boot: BootId(0xd15c), cmdline: words.to_vec() }
    }

    fn event(&self, event: PxeEvent) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        let PxeEvent { mac, host, boot, what, .. } = event;
        self.seen.lock().unwrap().push(Event { at: Timestamp(now), host, mac, boot, what });
        self.more.notify_all();
    }
}

pub(crate) struct Site {
    pub(crate) netns: String,
    pub(crate) dir: tempfile::TempDir,
    director: Arc<Director>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

fn kernel() -> PathBuf {
    let base = std::env::var("DAYZERO_TEST_KERNEL").expect(
        "DAYZERO_TEST_KERNEL: an unpacked linux-image package; `cargo xtask test --lab secure_boot` makes it",
    );
    let files = std::fs::read_dir(Path::new(&base).join("boot")).unwrap().flatten().map(|entry| entry.path());
    let mut kernels = files.filter(|path| path.to_string_lossy().contains("/vmlinuz-"));
    kernels.next().expect("boot/vmlinuz-… in DAYZERO_TEST_KERNEL")
}

fn discovery() -> PathBuf {
    std::env::var("DAYZERO_TEST_DISCOVERY")
        .expect("DAYZERO_TEST_DISCOVERY: the discovery image's initial RAM disk; `cargo xtask test --lab secure_boot` makes it")
        .into()
}

/// The initial RAM disk with one more file in it, as an attacker on the network would serve it.
fn changed(dir: &Path) -> PathBuf {
    let (tree, out) = (dir.join("more"), dir.join("changed.img"));
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("implant"), "not of the site").unwrap();
    std::fs::copy(discovery(), &out).unwrap();
    must(&format!(
        "cd {}; echo implant | cpio -o -H newc --quiet | zstd -q >> {}",
        tree.display(),
        out.display()
    ));
    out
}

impl Site {
    /// A host that boots by this chain.
    pub(crate) fn new(chain: Chain) -> Self {
        Self::serving(chain, false)
    }

    /// The same, but what is served has another initial RAM disk: under the old signature, where it is signed.
    pub(crate) fn forged(chain: Chain) -> Self {
        Self::serving(chain, true)
    }

    fn serving(chain: Chain, forged: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let netns = format!("dzt-secureboot-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), forged);
        must(&format!(
            "ip netns add {netns}; ip -n {netns} link set lo up
             ip -n {netns} link add mgmt0 type bridge forward_delay 0
             ip -n {netns} addr add {APPLIANCE}/24 dev mgmt0; ip -n {netns} link set mgmt0 up"
        ));
        let director = Arc::new(Director { chain, seen: Mutex::default(), more: Condvar::new() });
        let mut site = Self { netns, dir, director, stop: CancellationToken::new(), thread: None };
        site.start(config);
        site
    }

    fn start(&mut self, config: PxeConfig) {
        let (path, stop) = (format!("/var/run/netns/{}", self.netns), self.stop.clone());
        let director: Arc<dyn BootDirector> = Arc::clone(&self.director) as _;
        let (ready, started) = std::sync::mpsc::channel();
        self.thread = Some(std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = PxeServer::bind(config, director, Arc::new(MemoryLeases::default())).await;
                ready.send(server.as_ref().err().map(|error| format!("{error:?}"))).unwrap();
                if let Ok(server) = server {
                    server.run(stop).await.unwrap();
                }
            });
        }));
        assert_eq!(started.recv().unwrap(), None, "the services start");
    }

    /// The site's certificate, as the appliance leaves it for people.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("secure-boot.pem")
    }

    pub(crate) fn wait(&self, what: &str, fits: impl Fn(&What) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.director.seen.lock().unwrap();
        while !seen.iter().any(|event| fits(&event.what)) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no {what}; seen: {:?}",
                seen.iter().map(text::line).collect::<Vec<_>>()
            );
            seen = self.director.more.wait_timeout(seen, left).unwrap().0;
        }
    }

    pub(crate) fn saw(&self, fits: impl Fn(&What) -> bool) -> bool {
        self.director.seen.lock().unwrap().iter().any(|event| fits(&event.what))
    }

    pub(crate) fn show(&self) -> String {
        let seen = self.director.seen.lock().unwrap();
        seen.iter().map(text::line).collect::<Vec<_>>().join("\n")
    }

    /// What `dayzero why` says of the events two minutes after the last one, with a BMC that tells of Secure Boot.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let events = self.director.seen.lock().unwrap().clone();
        let last = events.last().map_or(Timestamp(0), |event| event.at);
        let secure_boot = Some(SecureBootFacts { enforced: true, site_key: None });
        let bmc = BmcFacts {
            address: Ipv4Addr::new(10, 77, 9, 11),
            protocol: BmcProtocol::Redfish,
            certificate: None,
            manufacturer: None,
            model: None,
            serial: None,
            board_serial: None,
            uuid: None,
            bmc_mac: None,
            nic_macs: vec![],
            power_on: true,
            secure_boot,
            https_boot: None,
            at: Timestamp(1),
        };
        let facts = HostFacts { bmc: Some(bmc), ..HostFacts::default() };
        let now = last.plus(Millis(120_000));
        why(&events, &WhyContext { now, conditions: None, facts: Some(&facts), lacp: false })
    }
}

/// The files as control serves them; `forged`: with another initial RAM disk.
fn config(dir: &Path, forged: bool) -> PxeConfig {
    let cache = Cache::of_user(Arc::new(|image, what| eprintln!("{image}: {what}"))).unwrap();
    let secure = dir.join("secure");
    dayzero_images::put_secure_files(&cache, &kernel(), &discovery(), &secure).unwrap();
    let store = Store::open(&dir.join("store"), Options::default()).unwrap();
    let vault = Vault::open(&store, &KeySource::File(dir.join("key"))).unwrap();
    let initrd = if forged { changed(dir) } else { discovery() };
    let loaders = std::env::var("DAYZERO_IPXE")
        .expect("DAYZERO_IPXE: a directory of loaders; `cargo xtask test --all` makes it");
    let loader = |name: &str| {
        let bytes = std::fs::read(Path::new(&loaders).join(name)).unwrap();
        (name.to_owned(), bytes.into())
    };
    let prefix = Ipv4Prefix { address: APPLIANCE, len: 24 };
    let network = ServedNetwork::new("mgmt0".parse().unwrap(), NetworkRole::Management, prefix);
    let mut config = PxeConfig {
        interfaces: vec![ServedInterface { device: "mgmt0".into(), address: APPLIANCE, network }],
        tftp: ["undionly.kpxe", "snponly.efi"].map(loader).into(),
        boot: BootFiles {
            files: [("vmlinuz".to_owned(), kernel()), ("initrd.img".to_owned(), initrd.clone())].into(),
            kernel: "vmlinuz".into(),
            initrd: "initrd.img".into(),
            images: None,
        },
        ..PxeConfig::default()
    };
    let images = Images { kernel: kernel(), initrd, secure: Some(secure), ..Images::default() };
    // The agent asks by HTTPS what boot it is.
    let addresses = [std::net::IpAddr::V4(APPLIANCE)];
    let agents = SiteCa::open(&vault).unwrap().listener(&[], &addresses).unwrap();
    let loaders = LoaderCa::open(&vault).unwrap().listener(&addresses).unwrap();
    config.tls = Some(boot_server_config(agents, loaders).unwrap());
    let key = dayzero_control::secure::site_key(&vault, dir).unwrap();
    config.loaders.secure = dayzero_control::secure::loaders();
    SecureFiles::prepare(&key, dir, &images).unwrap().unwrap().serve(&config.late).unwrap();
    if forged {
        let other = dayzero_images::build_uki(&cache, &kernel(), &images.initrd, SECURE_CMDLINE).unwrap();
        let forged = forge::with_signature_of(
            &config.late.get("uki.efi").unwrap(),
            &std::fs::read(other.path).unwrap(),
        );
        for name in ["uki.efi", "mok/grubx64.efi"] {
            config.late.add([(name.to_owned(), forged.clone().into())]).unwrap();
        }
    }
    config
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        drop(Command::new("ip").args(["netns", "del", &self.netns]).output());
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the services end when told to");
        }
    }
}
