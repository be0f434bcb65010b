//! A network segment with our services on it, and a namespace for clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dayzero_model::boot::{BootAction, BootWindow, Client};
use dayzero_model::datagram::{Datagram, Wire};
use dayzero_model::event::{Event, What};
use dayzero_model::facts::{HostFacts, WindowFacts};
use dayzero_model::site::{AddressRange, NetworkRole};
use dayzero_model::{BootId, MacAddr, Timestamp};
use dayzero_pxe::{
    BootDirector, BootFiles, Ipv4Prefix, LeasePool, LeaseStore, Loaders, MemoryLeases, PxeConfig, PxeEvent,
    PxeServer, ScriptQuery, SeenClient, ServedInterface, ServedNetwork,
};
use dayzero_timeline::{Finding, Timeline, WhyContext};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const GUESTS: Ipv4Addr = Ipv4Addr::new(10, 77, 100, 2);
/// A relay's address on our side, where a lab has one.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 88);

/// What is waited for, and what is done when it comes.
type Hook = (Box<dyn Fn(&PxeEvent) -> bool + Send>, Box<dyn FnOnce() + Send>);

/// Plays the control plane, with the real recorder.
pub(crate) struct Director {
    pub(crate) clients: Mutex<BTreeMap<MacAddr, Client>>,
    /// Who stands at a relay's port, by circuit id.
    pub(crate) ports: Mutex<BTreeMap<Vec<u8>, Client>>,
    /// Done when the next script is asked for, before it is served.
    pub(crate) on_script: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Done when the first event that fits is told, before the service goes on.
    on_event: Mutex<Option<Hook>>,
    /// The machines' firmware holds the authority for HTTPS boot, as far as the plan knows.
    pub(crate) trusting: AtomicBool,
    /// Milliseconds that the recorder's clock is ahead: what lies between two boots of a machine.
    ahead: AtomicU64,
    /// ARP probes that were sent: from which MAC, and their octets.
    pub(crate) probes: Mutex<Vec<(MacAddr, Vec<u8>)>>,
    /// Datagrams that came in and were told to the recorder.
    heard: AtomicU64,
    seen: Mutex<Vec<(Instant, PxeEvent)>>,
    more: Condvar,
    timeline: Timeline,
    _store: TempDir,
}

impl Default for Director {
    fn default() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dayzero_store::Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        Self {
            clients: Mutex::default(),
            ports: Mutex::default(),
            on_script: Mutex::default(),
            on_event: Mutex::default(),
            trusting: AtomicBool::default(),
            ahead: AtomicU64::default(),
            probes: Mutex::default(),
            heard: AtomicU64::default(),
            seen: Mutex::default(),
            more: Condvar::new(),
            timeline: Timeline::open(&store).unwrap(),
            _store: dir,
        }
    }
}

impl Director {
    /// The recorder's time.
    pub(crate) fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp(u64::try_from(since.as_millis()).unwrap() + self.ahead.load(Ordering::Relaxed))
    }

    /// An hour goes by.
    pub(crate) fn an_hour_later(&self) {
        self.ahead.fetch_add(3_600_000, Ordering::Relaxed);
    }

    /// What `why` says of host1, or of a MAC of no host, two minutes from now.
    pub(crate) fn why(&self, mac: MacAddr) -> Vec<Finding> {
        self.why_in(Duration::from_secs(120), mac, None)
    }

    /// The same, so long from now, with what is known of the host beside.
    pub(crate) fn why_in(&self, later: Duration, mac: MacAddr, facts: Option<&HostFacts>) -> Vec<Finding> {
        let of_host = self.timeline.of_host(&"host1".parse().unwrap(), Timestamp(0));
        let events = if of_host.is_empty() { self.timeline.of_mac(mac, Timestamp(0)) } else { of_host };
        let now = Timestamp(self.now().0 + u64::try_from(later.as_millis()).unwrap());
        dayzero_timeline::why(&events, &WhyContext { now, conditions: None, facts, lacp: false })
    }

    /// What `why` says of host1 whose BMC powered it on just now, whose NIC has a link as its BMC would tell, and whose bond
    /// is planned by LACP, or not.
    pub(crate) fn why_powered(&self, mac: MacAddr, link: bool, lacp: bool) -> Vec<Finding> {
        self.why_powered_at(self.now(), mac, link, lacp)
    }

    /// The same, of a host that was powered on then.
    pub(crate) fn why_powered_at(&self, at: Timestamp, mac: MacAddr, link: bool, lacp: bool) -> Vec<Finding> {
        let host: dayzero_model::HostName = "host1".parse().unwrap();
        let window = WindowFacts {
            override_read_back: "Pxe".into(),
            powered: Some(at),
            channel: "virtual media".into(),
            ..WindowFacts::new(BootWindow { boot: BootId(0xd15c), host: host.clone() }, at)
        };
        let facts = HostFacts { window: Some(window), ..HostFacts::default() };
        let what = What::Link { nic: mac, up: link, told_by: "the BMC".into() };
        self.timeline.record(Event { at, host: Some(host.clone()), mac: None, boot: None, what });
        let now = Timestamp(self.now().0 + 180_000);
        let context = WhyContext { now, conditions: None, facts: Some(&facts), lacp };
        dayzero_timeline::why(&self.timeline.of_host(&host, at), &context)
    }

    /// The rule that `why` puts first.
    pub(crate) fn verdict(&self, mac: MacAddr) -> &'static str {
        self.why(mac).first().map_or("nothing", |finding| finding.rule)
    }

    /// The datagrams of a MAC, as `dayzero pcap` writes them.
    pub(crate) fn pcapng(&self, mac: MacAddr) -> Vec<u8> {
        self.timeline.pcapng(&[mac]).unwrap().expect("datagrams")
    }

    /// Does something when the first event that fits is told, before the service that tells it goes on.
    pub(crate) fn when(
        &self,
        fits: impl Fn(&PxeEvent) -> bool + Send + 'static,
        act: impl FnOnce() + Send + 'static,
    ) {
        *self.on_event.lock().unwrap() = Some((Box::new(fits), Box::new(act)));
    }

    /// Waits until an event fits; what was seen stands in the failure.
    pub(crate) fn wait(&self, what: &str, patience: Duration, fits: impl Fn(&PxeEvent) -> bool) -> Instant {
        let end = Instant::now() + patience;
        let mut seen = self.seen.lock().unwrap();
        loop {
            if let Some((at, _)) = seen.iter().find(|(_, event)| fits(event)) {
                return *at;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} within {patience:?}; seen:\n{}", show(&seen));
            seen = self.more.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Waits until so many datagrams were read.
    pub(crate) fn has_heard(&self, datagrams: u64, patience: Duration) {
        let end = Instant::now() + patience;
        let mut seen = self.seen.lock().unwrap();
        while self.heard.load(Ordering::Relaxed) < datagrams {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{:?} datagrams heard, not {datagrams}", self.heard);
            seen = self.more.wait_timeout(seen, left).unwrap().0;
        }
    }

    pub(crate) fn count(&self, fits: impl Fn(&What) -> bool) -> usize {
        self.seen.lock().unwrap().iter().filter(|(_, event)| fits(&event.what)).count()
    }

    pub(crate) fn show(&self) -> String {
        show(&self.seen.lock().unwrap())
    }
}

/// Where the labs leave what real clients sent, as seeds of the fuzz targets `dhcp4` and `dhcp6`: a file a client.
const SEEDS: &str = "DAYZERO_SEEDS";

/// Adds a datagram to its client's conversation: length, how it came, no time, itself (see `pxe/src/fuzzing`).
fn seed(dir: &Path, datagram: &Datagram<'_>, known: bool) {
    let (Wire::Udp { from, to }, false, Some(mac)) = (datagram.wire, datagram.sent, datagram.mac) else {
        return;
    };
    let (target, mut how) = match (to.port(), to.ip()) {
        (4011, _) => ("dhcp4", 3),
        (67, IpAddr::V4(to)) => ("dhcp4", u8::from(!to.is_broadcast())),
        (547, IpAddr::V6(to)) => ("dhcp6", u8::from(!to.is_multicast())),
        _ => return,
    };
    if from.ip() == IpAddr::V4(NEAR) {
        how |= 2 << 2;
    }
    let length = u16::try_from(datagram.bytes.len()).unwrap().to_be_bytes();
    let bytes = [&length[..], &[how | u8::from(known) << 4, 0], datagram.bytes].concat();
    std::fs::create_dir_all(dir.join(target)).unwrap();
    let file = dir.join(target).join(mac.to_string().replace(':', ""));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
}

fn show(seen: &[(Instant, PxeEvent)]) -> String {
    let Some((zero, _)) = seen.first() else { return "nothing".into() };
    let line = |(at, event): &(Instant, PxeEvent)| {
        format!("{:7.2} {:?} {:?}", (*at - *zero).as_secs_f64(), event.mac, event.what)
    };
    seen.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl BootDirector for Director {
    fn client(&self, seen: &SeenClient) -> Client {
        if let Some(client) = self.clients.lock().unwrap().get(&seen.mac) {
            return client.clone();
        }
        let ports = self.ports.lock().unwrap();
        seen.circuit.as_ref().and_then(|port| ports.get(&port.id)).cloned().unwrap_or(Client::Unknown)
    }

    fn boot_script(&self, query: &ScriptQuery) -> BootAction {
        if let Some(first) = self.on_script.lock().unwrap().take() {
            first();
        }
        match self.clients.lock().unwrap().get(&query.mac) {
            Some(Client::Host { window: Some(window), .. }) => BootAction::Discovery {
                boot: window.boot,
                cmdline: ["console=ttyS0", "quiet", "no_timer_check", "dayzero.boot=000000000000d15c"]
                    .map(String::from)
                    .into(),
            },
            Some(Client::Host { .. }) => BootAction::LocalDisk,
            _ => BootAction::Refuse,
        }
    }

    fn trusts(&self, _: MacAddr) -> bool {
        self.trusting.load(Ordering::Relaxed)
    }

    fn datagram(&self, datagram: &Datagram<'_>) {
        self.timeline.capture(datagram);
        if !datagram.sent && matches!(datagram.wire, Wire::Udp { .. }) {
            let _seen = self.seen.lock().unwrap();
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.more.notify_all();
        }
        if let Wire::Arp { from, .. } = datagram.wire
            && datagram.sent
        {
            self.probes.lock().unwrap().push((from, datagram.bytes.to_vec()));
        }
        if let Some(dir) = std::env::var_os(SEEDS) {
            let known = datagram.mac.is_some_and(|mac| self.clients.lock().unwrap().contains_key(&mac));
            seed(&PathBuf::from(dir), datagram, known);
        }
    }

    fn event(&self, event: PxeEvent) {
        let mut hook = self.on_event.lock().unwrap();
        if hook.as_ref().is_some_and(|(fits, _)| fits(&event))
            && let Some((_, act)) = hook.take()
        {
            act();
        }
        drop(hook);
        let PxeEvent { mac, host, boot, what, .. } = event.clone();
        self.timeline.record(Event { at: self.now(), host, mac, boot, what });
        self.seen.lock().unwrap().push((Instant::now(), event));
        self.more.notify_all();
    }
}

pub(crate) fn host(address: Ipv4Addr, window: bool) -> Client {
    let host: dayzero_model::HostName = "host1".parse().unwrap();
    let window = window.then(|| BootWindow { boot: BootId(0xd15c), host: host.clone() });
    Client::Host { host, address, window, uuid: None, chain: dayzero_model::boot::Chain::Ipxe }
}

/// Namespaces, our services, and a scratch directory; gone when dropped.
pub(crate) struct Rack {
    pub(crate) server: String,
    pub(crate) client: String,
    pub(crate) director: Arc<Director>,
    pub(crate) dir: TempDir,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// The loaders that the appliance's image has.
pub(crate) fn loaders() -> PathBuf {
    let path = std::env::var("DAYZERO_IPXE");
    path.expect("DAYZERO_IPXE: a directory of loaders; `cargo xtask test --lab pxe` makes it").into()
}

pub(crate) fn sh(command: &str) -> Output {
    Command::new("sh").arg("-ec").arg(command).output().unwrap()
}

pub(crate) fn must(command: &str) -> String {
    let done = sh(command);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{command}: {said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

impl Rack {
    /// With these boot files beside our loaders.
    pub(crate) fn new(files: &[(&str, PathBuf)]) -> Self {
        Self::tuned(files, |_| ())
    }

    /// The same, with another configuration.
    pub(crate) fn tuned(files: &[(&str, PathBuf)], tune: impl FnOnce(&mut PxeConfig)) -> Self {
        Self::with(files, tune, Arc::new(MemoryLeases::default()))
    }

    /// With another configuration and another store of leases.
    pub(crate) fn storing(tune: impl FnOnce(&mut PxeConfig), leases: Arc<dyn LeaseStore>) -> Self {
        Self::with(&[], tune, leases)
    }

    fn with(
        files: &[(&str, PathBuf)],
        tune: impl FnOnce(&mut PxeConfig),
        leases: Arc<dyn LeaseStore>,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (server, client) = (format!("dzt-pxe-s{id}"), format!("dzt-pxe-c{id}"));
        must(&format!(
            "ip netns add {server}; ip netns add {client}
             for ns in {server} {client}; do ip -n $ns link set lo up; done
             for net in mgmt:{SERVER} guest:{GUESTS}; do
               name=${{net%%:*}}
               ip -n {server} link add ${{name}}0 type bridge forward_delay 0
               ip -n {server} addr add ${{net#*:}}/24 dev ${{name}}0
               ip -n {server} link add p-$name type veth peer name $name netns {client}
               ip -n {server} link set p-$name master ${{name}}0 up
               ip -n {server} link set ${{name}}0 up
               ip -n {client} link set $name up
             done"
        ));
        let director = Arc::new(Director::default());
        let dir = tempfile::tempdir().unwrap();
        let mut rack = Self { server, client, director, dir, stop: CancellationToken::new(), thread: None };
        rack.serve(files, tune, leases);
        rack
    }

    fn config(&self, files: &[(&str, PathBuf)]) -> PxeConfig {
        let loader = |name: &str| (name.to_owned(), std::fs::read(loaders().join(name)).unwrap().into());
        let interface = |device: &str, address, role| ServedInterface {
            device: device.into(),
            address,
            network: ServedNetwork {
                domain: Some("lab.example".into()),
                ..ServedNetwork::new(device.parse().unwrap(), role, Ipv4Prefix { address, len: 24 })
            },
        };
        let mut guest = interface("guest0", GUESTS, NetworkRole::Guest);
        guest.network.gateway = Some(Ipv4Addr::new(10, 77, 100, 1));
        let range =
            AddressRange { first: Ipv4Addr::new(10, 77, 100, 50), last: Ipv4Addr::new(10, 77, 100, 59) };
        guest.network.pool = Some(LeasePool { range, open: true });
        let images = self.dir.path().join("images");
        let chunk = images.join("chunks/ab");
        std::fs::create_dir_all(&chunk).unwrap();
        std::fs::write(chunk.join("abcd"), vec![b'c'; 3_000_000]).unwrap();
        std::fs::write(self.dir.path().join("private"), "not for you").unwrap();
        let mut files: BTreeMap<String, PathBuf> =
            files.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
        for name in ["vmlinuz", "initrd.img"] {
            let path = self.dir.path().join(name);
            std::fs::write(&path, name.repeat(100_000)).unwrap();
            files.entry(name.to_owned()).or_insert(path);
        }
        PxeConfig {
            interfaces: vec![interface("mgmt0", SERVER, NetworkRole::Management), guest],
            loaders: Loaders { uefi_arm64: Some(Loaders::ARM64.into()), ..Loaders::default() },
            tftp: ["undionly.kpxe", "snponly.efi", Loaders::ARM64].map(loader).into(),
            boot: BootFiles {
                files,
                kernel: "vmlinuz".into(),
                initrd: "initrd.img".into(),
                images: Some(images),
            },
            ..PxeConfig::default()
        }
    }

    fn serve(
        &mut self,
        files: &[(&str, PathBuf)],
        tune: impl FnOnce(&mut PxeConfig),
        leases: Arc<dyn LeaseStore>,
    ) {
        let mut config = self.config(files);
        tune(&mut config);
        for interface in &config.interfaces {
            if let Some(six) = interface.address6() {
                must(&format!("ip -n {} addr add {six}/64 dev {} nodad", self.server, interface.device));
            }
        }
        let (path, stop) = (format!("/var/run/netns/{}", self.server), self.stop.clone());
        let director: Arc<dyn BootDirector> = Arc::clone(&self.director) as _;
        let (ready, started) = std::sync::mpsc::channel();
        self.thread = Some(std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = PxeServer::bind(config, director, leases).await;
                let server =
                    server.map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)));
                drop(ready.send(server.as_ref().err().cloned()));
                if let Ok(server) = server {
                    server.run(stop).await.expect("no service ends by itself");
                }
            });
        }));
        let failed = started.recv().expect("the server's thread lives");
        assert_eq!(failed, None, "the services start");
    }

    /// From now on nothing of IPv4 reaches our services.
    pub(crate) fn without_ipv4(&self) {
        let drop = "add table ip t; add chain ip t i { type filter hook input priority 0; policy drop; }";
        must(&format!("ip netns exec {} nft '{drop}'", self.server));
    }

    /// Runs this in the clients' namespace.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/var/run/netns/{}", self.client);
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            run()
        })
    }

    /// Runs a shell command in the clients' namespace.
    pub(crate) fn client(&self, command: &str) -> Output {
        let dir = self.dir.path().display();
        Command::new("ip")
            .args(["netns", "exec", &self.client, "sh", "-c", &format!("cd {dir}; {command}")])
            .output()
            .unwrap()
    }

    /// Starts a program in the clients' namespace.
    pub(crate) fn daemon(&self, command: &str) -> Daemon {
        let dir = self.dir.path();
        let log = dir.join(format!("daemon-{}", NEXT_DAEMON.fetch_add(1, Ordering::Relaxed)));
        let out = std::fs::File::create(&log).unwrap();
        let mut process = Command::new("ip");
        process.args(["netns", "exec", &self.client, "sh", "-c", &format!("exec {command}")]);
        let process =
            process.current_dir(dir).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Daemon { child: process.spawn().unwrap(), log }
    }

    /// One more port of the boot network, `p-two`, with the device `two` of the clients' namespace at it, which is then set
    /// as `ip` is told.
    pub(crate) fn second_port(&self, set: &str) {
        let (server, ns) = (&self.server, &self.client);
        must(&format!(
            "ip -n {server} link add p-two type veth peer name two netns {ns}
             ip -n {server} link set p-two master mgmt0 up
             ip -n {ns} {set} dev two; ip -n {ns} link set two up"
        ));
    }

    /// A device of the clients' namespace gets this MAC and loses its addresses.
    pub(crate) fn become_client(&self, device: &str, mac: MacAddr) {
        let ns = &self.client;
        must(&format!(
            "ip -n {ns} link set {device} down; ip -n {ns} link set {device} address {mac}
             ip -n {ns} addr flush dev {device}; ip -n {ns} link set {device} up"
        ));
    }
}

static NEXT_DAEMON: AtomicU32 = AtomicU32::new(0);

/// A program beside the test; ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal to it: `ip netns exec` and `sh -c exec` become the program.
    pub(crate) fn signal(&self, name: &str) {
        must(&format!("kill -{name} {}", self.child.id()));
    }

    /// Waits until it says so.
    pub(crate) fn says(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.said().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "no {text:?} ({ended:?}): {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        for namespace in [&self.server, &self.client] {
            sh(&format!("ip netns del {namespace}"));
        }
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the services end when told to");
        }
    }
}
