//! A rack in memory: BMCs with accounts and power, hosts that boot, enrol, install and answer orders, cables and pings.
//! It outlives the control plane, as a real one does.

mod paths;

use crate::control::Control;
use crate::view::Progress;
use crate::world::{AgentFault, Agents, Bmcs, Profiles, WriterWatch};
use async_trait::async_trait;
use axum::extract::connect_info::MockConnectInfo;
use base64::Engine;
use dayzero_bmc::*;
use dayzero_lifecycle::boot::Asked;
use dayzero_model::boot::{BootAction, Client};
use dayzero_model::event::What;
use dayzero_model::facts::{AgentFacts, Capacity, SecureBootFacts};
use dayzero_model::ids::{BootId, HostName, MacAddr, Name, Sha256};
use dayzero_model::install::InstallReport;
use dayzero_model::inventory::*;
use dayzero_model::media::read_iso;
use dayzero_model::network::{BondState, HostNetwork, LegState, NetworkReport};
use dayzero_model::proof::WriterProgress;
use dayzero_model::secret::Secret;
use dayzero_model::site::{BmcProtocol, Host, Placed, Site};
use dayzero_model::startup::{BootDevice, BootEntry, RootDisk, StartReport};
use dayzero_model::storage::{LunReport, LunSpec, PathState, VolumeWarrant};
use dayzero_model::units::{Bytes, MebiBytes, Mhz};
use dayzero_model::vm::{VmReport, VmSpec};
use dayzero_model::wire::*;
use dayzero_pxe::PxeEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tower::ServiceExt;

pub(super) const FACTORY: &str = "factory-password-1";

/// A host's key pair with its request.
pub(super) struct Key {
    pub(super) pair: rcgen::KeyPair,
}

impl Key {
    pub(super) fn new() -> Self {
        Self { pair: rcgen::KeyPair::generate().unwrap() }
    }

    pub(super) fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.spki())
    }

    fn spki(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.pair.subject_public_key_info()
    }

    pub(super) fn request(&self, boot: BootId, mac: MacAddr, nonce: Option<String>) -> EnrolRequest {
        let csr = rcgen::CertificateParams::default().serialize_request(&self.pair).unwrap().pem().unwrap();
        let public_key = base64::engine::general_purpose::STANDARD.encode(self.spki());
        EnrolRequest { version: VERSION, boot, mac, public_key, csr, nonce }
    }
}

/// What runs on a machine.
#[derive(Default)]
enum Runs {
    #[default]
    Nothing,
    /// The firmware asks by DHCP.
    Pxe,
    /// The discovery image, with a key of its own.
    Discovery { boot: BootId, key: Box<Key>, enrolled: bool },
    /// The installed system.
    Disk,
}

pub(super) struct Machine {
    plan: Host,
    accounts: BTreeMap<String, String>,
    power: bool,
    pxe_once: bool,
    medium: Option<Vec<u8>>,
    runs: Runs,
    boots: u32,
    connected: bool,
    /// Connections so far: the number of the one that is there.
    connections: u64,
    ca_told: bool,
    /// The installed system's disk.
    pub(super) disk: Option<Sha256>,
    pub(super) foreign: Vec<String>,
    network: Option<HostNetwork>,
    luns: Vec<LunSpec>,
    /// Roles whose path is broken, and since when none of the bond's legs is left.
    pub(super) broken: BTreeSet<Name>,
    dark: Option<Instant>,
    /// The longest such time.
    darkest: Duration,
    writing: bool,
    blocks: u64,
    volume_group: bool,
    vms: BTreeMap<Name, VmSpec>,
    /// The pings rest.
    resting: bool,
    /// The firmware starts from the network before the disk.
    pub(super) network_first: bool,
    /// Ports as LLDP shows them.
    pub(super) cabling: BTreeMap<MacAddr, String>,
    pub(super) serial: String,
    pub(super) installs: u32,
    /// What its BMC tells of the links of its NICs.
    pub(super) links: Vec<(MacAddr, bool)>,
    /// What its BMC tells of Secure Boot.
    pub(super) secure_boot: Option<SecureBootFacts>,
    /// What it tells of the authorities for HTTPS boot.
    pub(super) https_boot: Option<bool>,
}

/// The rack.
pub(super) struct Rack {
    machines: Mutex<BTreeMap<HostName, Machine>>,
    writers: BTreeMap<HostName, watch::Sender<Option<(Instant, WriterProgress)>>>,
    control: Mutex<Weak<Control>>,
    pub(super) pulls: Mutex<Vec<String>>,
    /// After so many effects on a BMC's accounts the control plane is dead.
    pub(super) effects_left: AtomicI64,
    me: Weak<Rack>,
}

impl Rack {
    pub(super) fn new(site: &Site) -> Arc<Self> {
        let machine = |host: &Host| Machine {
            plan: host.clone(),
            accounts: [("root".to_owned(), FACTORY.to_owned())].into(),
            power: false,
            pxe_once: false,
            medium: None,
            runs: Runs::Nothing,
            boots: 0,
            connected: false,
            connections: 0,
            ca_told: false,
            disk: None,
            foreign: Vec::new(),
            network: None,
            luns: Vec::new(),
            broken: BTreeSet::new(),
            dark: None,
            darkest: Duration::ZERO,
            writing: false,
            blocks: 0,
            volume_group: false,
            vms: BTreeMap::new(),
            resting: false,
            network_first: false,
            cabling: host.nics().map(|(_, mac, port)| (mac, port.to_string())).collect(),
            serial: host.serial.clone(),
            links: Vec::new(),
            secure_boot: None,
            https_boot: None,
            installs: 0,
        };
        let machines: BTreeMap<_, _> = site.hosts().map(|p| (p.host.name.clone(), machine(p.host))).collect();
        let writers = machines.keys().map(|name| (name.clone(), watch::Sender::new(None))).collect();
        Arc::new_cyclic(|me| Self {
            machines: Mutex::new(machines),
            writers,
            control: Mutex::default(),
            pulls: Mutex::default(),
            effects_left: AtomicI64::new(i64::MAX),
            me: me.clone(),
        })
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<HostName, Machine>> {
        self.machines.lock().unwrap()
    }

    pub(super) fn with<T>(&self, host: &HostName, act: impl FnOnce(&mut Machine) -> T) -> T {
        act(self.machines().get_mut(host).unwrap())
    }

    /// A BMC's accounts were changed; who asked for it may be dead before it hears so, and commits nothing any more.
    async fn changed_accounts(&self) {
        if self.effects_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            if let Some(control) = self.control.lock().unwrap().upgrade() {
                control.commits_left.store(0, Ordering::SeqCst);
                control.cancel.cancel();
            }
            std::future::pending::<()>().await;
        }
    }

    /// A control plane starts: nobody is connected to it yet.
    pub(super) fn power_control(&self, control: &Arc<Control>) {
        *self.control.lock().unwrap() = Arc::downgrade(control);
        for machine in self.machines().values_mut() {
            machine.connected = false;
        }
    }

    pub(super) fn account(&self, host: &HostName, user: &str) -> Option<String> {
        self.with(host, |machine| machine.accounts.get(user).cloned())
    }

    pub(super) fn set_account(&self, host: &HostName, user: &str, password: &str) {
        self.with(host, |machine| machine.accounts.insert(user.to_owned(), password.to_owned()));
    }

    /// The machines do what machines do, for as long as this control plane lives.
    pub(super) fn live(self: Arc<Self>, control: Arc<Control>) {
        let hosts: Vec<_> = self.machines().keys().cloned().collect();
        let tasks = control.tasks.clone();
        tasks.spawn(async move {
            while !control.cancel.is_cancelled() {
                for host in &hosts {
                    self.beat(&control, host).await;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
    }

    async fn beat(&self, control: &Arc<Control>, host: &HostName) {
        self.write(host);
        let (pxe, enrol, connect) = self.with(host, |machine| {
            let pxe = matches!(machine.runs, Runs::Pxe);
            let enrol = match &machine.runs {
                Runs::Discovery { enrolled: false, boot, key } => {
                    let medium = machine
                        .medium
                        .as_ref()
                        .and_then(|iso| read_iso(iso).ok())
                        .filter(|file| file.boot == *boot);
                    let nonce = medium.map(|file| file.nonce);
                    let mac = machine.plan.bond.nics[0].mac;
                    (nonce.is_some() || machine.ca_told).then(|| key.request(*boot, mac, nonce))
                }
                _ => None,
            };
            let connect = match machine.runs {
                Runs::Discovery { enrolled, .. } => (enrolled && !machine.connected).then_some(false),
                Runs::Disk => (!machine.connected).then_some(true),
                _ => None,
            };
            (pxe, enrol, connect.map(|installed| (installed, machine.boots)))
        });
        if pxe {
            self.boot(control, host).await;
        }
        if let Some(request) = enrol {
            self.enrol(control, host, &request).await;
        }
        if let Some((installed, boots)) = connect {
            self.with(host, |machine| {
                machine.connected = true;
                machine.connections += 1;
            });
            let kernel_boot = format!("boot-{boots}");
            let facts = AgentFacts {
                installed,
                version: "1".into(),
                kernel_boot,
                connected: true,
                since: control.now(),
            };
            control.agent_came(host, facts).await;
        }
    }

    async fn boot(&self, control: &Arc<Control>, host: &HostName) {
        let mac = self.with(host, |machine| machine.plan.bond.nics[0].mac);
        let Client::Host { window: Some(window), .. } =
            control.client(&Asked::mac(mac, &"mgmt".parse().unwrap()))
        else {
            return;
        };
        let peer = "10.77.0.11".parse().unwrap();
        let cmdline = Vec::new();
        for what in [
            What::TftpEnd { file: "snponly.efi".into(), bytes: 1, ms: 1, error: None },
            What::Script { action: BootAction::Discovery { boot: window.boot, cmdline }, peer },
            What::HttpFile { path: "/boot/file/initrd.img".into(), peer, status: 200, bytes: 1, tls: false },
        ] {
            let event = PxeEvent { mac: Some(mac), host: Some(host.clone()), boot: Some(window.boot), what };
            control.note_event(event).await.unwrap();
        }
        self.with(host, |machine| {
            machine.boots += 1;
            machine.ca_told = false;
            machine.runs = Runs::Discovery { boot: window.boot, key: Box::new(Key::new()), enrolled: false };
        });
    }

    async fn enrol(&self, control: &Arc<Control>, host: &HostName, request: &EnrolRequest) {
        if let EnrolAnswer::Granted { .. } = post_enrol(control, request, "10.77.0.11").await {
            self.with(host, |machine| {
                if let Runs::Discovery { enrolled, boot, .. } = &mut machine.runs
                    && *boot == request.boot
                {
                    *enrolled = true;
                }
            });
        }
    }

    fn write(&self, host: &HostName) {
        let progress = self.with(host, |machine| {
            let paths =
                machine.plan.storage_nics.iter().filter(|nic| !machine.broken.contains(&nic.role)).count();
            if machine.writing && paths > 0 {
                machine.blocks += 1;
            }
            machine.writing.then_some(WriterProgress { blocks: machine.blocks, ..WriterProgress::default() })
        });
        if let Some(progress) = progress {
            self.writers[host].send_replace(Some((Instant::now(), progress)));
        }
    }

    fn network(machine: &Machine) -> NetworkReport {
        let Some(wanted) = &machine.network else { return NetworkReport::default() };
        let legs = machine.plan.bond.nics.iter().map(|nic| {
            let up = !machine.broken.contains(&nic.role);
            LegState { mac: nic.mac, kernel_name: nic.role.to_string(), up, usable: up }
        });
        let bond = BondState {
            name: "bond0".into(),
            mode: "802.3ad".into(),
            active: None,
            legs: legs.collect(),
            partner: None,
        };
        NetworkReport {
            converged: true,
            bond: Some(bond),
            addresses: vec![wanted.management.to_string()],
            neighbours: Self::neighbours(machine),
            ..NetworkReport::default()
        }
    }

    fn neighbours(machine: &Machine) -> Vec<Neighbour> {
        let one = |(mac, port): (&MacAddr, &String)| {
            let (system, port) = port.split_once('/').unwrap();
            Neighbour {
                nic_mac: *mac,
                system_name: system.into(),
                port_id: port.into(),
                port_description: None,
            }
        };
        machine.cabling.iter().map(one).collect()
    }

    fn storage(machine: &Machine) -> Vec<LunReport> {
        let report = |lun: &LunSpec| {
            let state = |path: &dayzero_model::storage::PathSpec| {
                let role =
                    machine.plan.storage_nics.iter().find(|nic| nic.mac == path.nic).map(|nic| &nic.role);
                let active = role.is_some_and(|role| !machine.broken.contains(role));
                PathState { portal: path.portal, kernel_name: "sdb".into(), active }
            };
            let paths = lun.paths.iter().map(state).collect();
            let device = Some(format!("/dev/mapper/3{}", lun.wwn));
            LunReport {
                storage: Some(lun.storage.clone()),
                device,
                size: Bytes(4 << 30),
                paths,
                problems: vec![],
            }
        };
        machine.luns.iter().map(report).collect()
    }

    fn inventory(machine: &Machine) -> Inventory {
        let nic = |(_, mac, _): (&Name, MacAddr, _)| Nic {
            kernel_name: "eth".into(),
            mac,
            slot: None,
            driver: None,
            speed_mbit: None,
            link: true,
        };
        Inventory {
            system: SystemIdentity {
                serial: Some(machine.serial.clone()),
                uuid: machine.plan.uuid.clone(),
                ..Default::default()
            },
            boot_mode: BootMode::Uefi,
            firmware: Firmware::default(),
            cpu: Cpu { threads: 2, sockets: 1, ..Cpu::default() },
            memory: MebiBytes(2048),
            dimms: vec![],
            disks: vec![],
            nics: machine.plan.nics().map(nic).collect(),
            neighbours: Self::neighbours(machine),
            kernel: "6.1".into(),
            partial_errors: vec![],
        }
    }

    fn started(machine: &Machine) -> StartReport {
        let entry = |number, name: &str, leads| BootEntry { number, name: name.into(), leads };
        let mut order = vec![entry(3, "Dayzero", BootDevice::Partition("esp".into()))];
        order.insert(usize::from(!machine.network_first), entry(1, "UEFI PXEv4", BootDevice::Network));
        StartReport {
            kernel_boot: format!("boot-{}", machine.boots),
            mode: BootMode::Uefi,
            root: RootDisk {
                kernel_name: "sda".into(),
                serial: machine.plan.os_disk.serial.clone(),
                disk_guid: machine.disk.map(|_| "guid".to_owned()),
                partitions: vec!["esp".into(), "root".into()],
                ..RootDisk::default()
            },
            current: order.iter().find(|entry| entry.name == "Dayzero").cloned(),
            order,
            problems: vec![],
        }
    }

    fn warranted(machine: &Machine, warrant: &VolumeWarrant) {
        assert!(machine.luns.iter().any(|lun| lun.wwn == warrant.wwn), "an order for {}", warrant.wwn);
    }

    fn carry_out(machine: &mut Machine, order: Order) -> Result<Report, AgentError> {
        Ok(match order {
            Order::Inventory { .. } => Report::Inventory(Box::new(Self::inventory(machine))),
            Order::Install(order) => return Self::install(machine, &order),
            Order::Reboot => {
                machine.connected = false;
                machine.boots += 1;
                machine.writing = false;
                machine.runs = if machine.disk.is_some() { Runs::Disk } else { Runs::Nothing };
                Report::Ok
            }
            Order::StartReport => Report::Started(Box::new(Self::started(machine))),
            Order::Network(network) => {
                machine.network = Some(*network);
                Report::Network(Box::new(Self::network(machine)))
            }
            Order::NetworkReport => Report::Network(Box::new(Self::network(machine))),
            Order::Storage(luns) => {
                machine.luns = luns;
                Report::Storage(Self::storage(machine))
            }
            Order::StorageReport => Report::Storage(Self::storage(machine)),
            Order::VolumeGroup { .. } => {
                machine.volume_group = true;
                Report::Ok
            }
            Order::VolumeCreate { warrant, .. } => {
                Self::warranted(machine, &warrant);
                assert!(machine.volume_group, "only the elected host, with its group, makes volumes");
                Report::Ok
            }
            Order::VolumeFill { template, warrant, .. } => {
                Self::warranted(machine, &warrant);
                Report::Filled { sha256: template.sha256 }
            }
            Order::WriterStart { warrant, .. } => {
                Self::warranted(machine, &warrant);
                (machine.writing, machine.blocks) = (true, 0);
                Report::Ok
            }
            Order::WriterVerify => {
                Report::Writer(WriterProgress { read_back: machine.blocks.max(1), ..Default::default() })
            }
            Order::WriterStop => {
                machine.writing = false;
                Report::Ok
            }
            Order::Capacity => {
                Report::Capacity(Capacity { threads: 2, cpu: Mhz(4000), memory: MebiBytes(1024), kvm: true })
            }
            Order::VmStart(spec) => {
                machine.vms.insert(spec.name.clone(), spec);
                Report::Ok
            }
            Order::VmStop { name } => {
                machine.vms.remove(&name);
                Report::Ok
            }
            Order::Vms => {
                let vm = |name: &Name| VmReport {
                    name: name.clone(),
                    state: "running".into(),
                    console: vec![format!("I am {name}")],
                };
                Report::Vms(machine.vms.keys().map(vm).collect())
            }
            Order::InspectDisk { .. } => Report::Ok,
        })
    }

    fn install(
        machine: &mut Machine,
        order: &dayzero_model::install::InstallOrder,
    ) -> Result<Report, AgentError> {
        let finding = dayzero_model::install::DiskFinding::new(
            order.disk.serial.clone(),
            None,
            machine.foreign.clone(),
        );
        let consented = order.consent.as_ref().is_some_and(|consent| consent.finding == finding.digest);
        if !machine.foreign.is_empty() && !consented {
            return Err(AgentError {
                code: "foreign-disk".into(),
                sentence: "the disk holds foreign data".into(),
                expected: "an empty disk".into(),
                observed: machine.foreign.join("; "),
                finding: Some(Box::new(finding)),
            });
        }
        machine.foreign.clear();
        machine.installs += 1;
        machine.disk = Some(order.manifest_sha256);
        Ok(Report::Installed(Box::new(InstallReport {
            disk: order.disk.serial.clone().unwrap_or_default(),
            manifest_sha256: order.manifest_sha256,
            chunks_verified: 3,
            chunks_zero: 1,
            bytes_written: Bytes(1),
            disk_guid: "guid".into(),
            root_uuid: "uuid".into(),
            machine_id: "id".into(),
            initiator: "iqn".into(),
            ssh_host_key: Sha256([1; 32]),
            boot_entries: vec!["disk".into()],
            millis: 1,
        })))
    }
}

/// `POST /enrol`, through the listener's own routes.
pub(super) async fn post_enrol(control: &Arc<Control>, request: &EnrolRequest, peer: &str) -> EnrolAnswer {
    let peer: SocketAddr = SocketAddr::new(peer.parse().unwrap(), 4711);
    let routes = crate::enrol::routes(control.clone()).layer(MockConnectInfo(peer));
    let body = serde_json::to_vec(request).unwrap();
    let asked = axum::http::Request::post("/enrol")
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body))
        .unwrap();
    let answer = routes.oneshot(asked).await.unwrap();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[async_trait]
impl Bmcs for Rack {
    async fn connect(&self, target: &Target, credential: &Credential) -> Result<Box<dyn Bmc>, BmcError> {
        let machines = self.machines();
        let found = machines.values().find(|machine| IpAddr::V4(machine.plan.bmc.address) == target.address);
        let Some(machine) = found else {
            return Err(BmcError::Unreachable {
                address: target.address.to_string(),
                reason: "nobody".into(),
            });
        };
        if machine.accounts.get(&credential.user) != Some(credential.password.expose()) {
            return Err(BmcError::WrongCredential { user: credential.user.clone() });
        }
        let rack = self.me.upgrade().unwrap();
        Ok(Box::new(FakeBmc { rack, host: machine.plan.name.clone(), protocol: machine.plan.bmc.protocol }))
    }
}

struct FakeBmc {
    rack: Arc<Rack>,
    host: HostName,
    protocol: BmcProtocol,
}

impl FakeBmc {
    fn with<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        self.rack.with(&self.host, act)
    }
}

#[async_trait]
impl Bmc for FakeBmc {
    fn protocol(&self) -> BmcProtocol {
        self.protocol
    }
    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        Ok(self.with(|machine| BmcIdentity {
            protocol: machine.plan.bmc.protocol,
            certificate: (machine.plan.bmc.protocol == BmcProtocol::Redfish).then_some(Sha256([9; 32])),
            manufacturer: None,
            model: None,
            serial: Some(machine.serial.clone()),
            board_serial: None,
            uuid: machine.plan.uuid.clone(),
            bmc_mac: Some(machine.plan.bmc.mac),
            nic_macs: vec![],
            bmc_firmware: None,
            bios_version: None,
        }))
    }
    async fn nic_links(&self) -> Result<Vec<(MacAddr, bool)>, BmcError> {
        Ok(self.with(|machine| machine.links.clone()))
    }
    async fn secure_boot(&self, _: Option<&SiteCertificate>) -> Result<Option<SecureBootFacts>, BmcError> {
        Ok(self.with(|machine| machine.secure_boot))
    }
    async fn enrol_secure_boot(&self, site: &SiteCertificate) -> Result<(), BmcError> {
        assert!(site.pem.contains("BEGIN CERTIFICATE") && site.common_name.starts_with("Dayzero site"));
        self.with(|machine| {
            assert!(!machine.power, "the firmware reads its database when it starts");
            if let Some(told) = &mut machine.secure_boot {
                told.site_key = Some(true);
            }
        });
        Ok(())
    }
    async fn https_boot(&self, _: &SiteCertificate) -> Result<Option<bool>, BmcError> {
        Ok(self.with(|machine| machine.https_boot))
    }
    async fn enrol_https_boot(&self, site: &SiteCertificate) -> Result<(), BmcError> {
        assert!(site.pem.contains("BEGIN CERTIFICATE") && site.common_name.ends_with("HTTPS boot"));
        self.with(|machine| machine.https_boot = Some(true));
        Ok(())
    }
    async fn power(&self) -> Result<PowerState, BmcError> {
        Ok(self.with(|machine| if machine.power { PowerState::On } else { PowerState::Off }))
    }
    async fn set_power(&self, action: PowerAction) -> Result<(), BmcError> {
        self.with(|machine| match action {
            PowerAction::On if !machine.power => {
                machine.power = true;
                machine.runs = match (std::mem::take(&mut machine.pxe_once), machine.disk) {
                    (true, _) => Runs::Pxe,
                    (false, Some(_)) => Runs::Disk,
                    (false, None) => Runs::Nothing,
                };
            }
            PowerAction::On => {}
            _ => {
                machine.power = false;
                machine.connected = false;
                machine.runs = Runs::Nothing;
            }
        });
        Ok(())
    }
    async fn set_boot_once(&self, target: BootTarget, _: Option<BootMode>) -> Result<BootOverride, BmcError> {
        self.with(|machine| machine.pxe_once = target == BootTarget::Pxe);
        Ok(BootOverride { target, lasting: Lasting::Once, mode: None, observed: format!("{target:?} once") })
    }
    async fn boot_override(&self) -> Result<BootOverride, BmcError> {
        let set = self.with(|machine| machine.pxe_once);
        let (target, lasting) =
            if set { (BootTarget::Pxe, Lasting::Once) } else { (BootTarget::None, Lasting::Disabled) };
        Ok(BootOverride { target, lasting, mode: None, observed: String::new() })
    }
    async fn boot_order(&self) -> Result<Vec<String>, BmcError> {
        Ok(vec![])
    }
    async fn account_policy(&self) -> Result<AccountPolicy, BmcError> {
        Ok(AccountPolicy { min_length: 12, max_length: 20, alphabet: Alphabet::Alphanumeric })
    }
    async fn create_or_set_account(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError> {
        self.with(|machine| machine.accounts.insert(name.to_owned(), password.expose().clone()));
        self.rack.changed_accounts().await;
        Ok(())
    }
    async fn try_login(&self, name: &str, password: &Secret<String>) -> Result<(), BmcError> {
        let right = self.with(|machine| machine.accounts.get(name) == Some(password.expose()));
        if right { Ok(()) } else { Err(BmcError::WrongCredential { user: name.to_owned() }) }
    }
    async fn disable_account(&self, name: &str) -> Result<(), BmcError> {
        self.with(|machine| machine.accounts.remove(name));
        self.rack.changed_accounts().await;
        Ok(())
    }
    async fn vouch_channel(&self) -> Result<VouchChannel, BmcError> {
        let redfish = self.protocol == BmcProtocol::Redfish;
        Ok(if redfish { VouchChannel::VirtualMedia } else { VouchChannel::SerialOverLan })
    }
    async fn insert_media(&self, url: &Secret<String>) -> Result<(), BmcError> {
        let control = self.rack.control.lock().unwrap().upgrade();
        let iso = control.and_then(|control| control.media.iso(url.expose()));
        self.with(|machine| machine.medium = iso.map(|iso| iso.to_vec()));
        Ok(())
    }
    async fn eject_media(&self) -> Result<(), BmcError> {
        self.with(|machine| machine.medium = None);
        Ok(())
    }
    async fn open_sol(&self) -> Result<Box<dyn Console>, BmcError> {
        Ok(Box::new(FakeConsole { rack: self.rack.clone(), host: self.host.clone() }))
    }
    async fn close(&self) {}
}

struct FakeConsole {
    rack: Arc<Rack>,
    host: HostName,
}

#[async_trait]
impl Console for FakeConsole {
    async fn next_line(&mut self) -> Result<Option<String>, BmcError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(Some(self.rack.with(&self.host, |machine| match &machine.runs {
            Runs::Discovery { boot, key, enrolled: false } => {
                format!("{VOUCH_LINE} {boot} {}", key.fingerprint())
            }
            _ => "login:".to_owned(),
        })))
    }
    async fn write_line(&mut self, line: &str) -> Result<(), BmcError> {
        assert!(line.starts_with(CA_LINE), "{line}");
        self.rack.with(&self.host, |machine| machine.ca_told = true);
        Ok(())
    }
    async fn close(self: Box<Self>) {}
}

#[async_trait]
impl Agents for Rack {
    async fn order(&self, host: &HostName, order: Order, _: Duration) -> Result<Report, AgentFault> {
        tokio::task::yield_now().await;
        self.with(host, |machine| {
            let reachable = machine.plan.bond.nics.iter().any(|nic| !machine.broken.contains(&nic.role));
            if !machine.connected || !reachable {
                return Err(AgentFault::Gone);
            }
            Rack::carry_out(machine, order).map_err(AgentFault::Agent)
        })
    }
    fn connection(&self, host: &HostName) -> Option<u64> {
        self.with(host, |machine| machine.connected.then_some(machine.connections))
    }
    async fn came(&self, host: &HostName) {
        while self.connection(host).is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    async fn left(&self, host: &HostName, connection: u64) {
        while self.connection(host) == Some(connection) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    fn writer(&self, host: &HostName) -> WriterWatch {
        self.writers[host].subscribe()
    }
    fn progress(&self, _: &HostName) -> Option<Progress> {
        None
    }
    fn disconnect(&self, host: &HostName) {
        self.with(host, |machine| machine.connected = false);
    }
}

impl Profiles for Rack {
    fn drift(&self, _: &Name, _: &Placed<'_>, _: &Inventory) -> Option<Vec<String>> {
        Some(vec![])
    }
}

impl Machine {
    pub(super) fn planned_serial(&self) -> String {
        self.plan.serial.clone()
    }

    pub(super) fn planned_cabling(&self) -> BTreeMap<MacAddr, String> {
        self.plan.nics().map(|(_, mac, port)| (mac, port.to_string())).collect()
    }
}

impl Rack {
    /// The power of a host fails.
    pub(super) fn cut(&self, host: &HostName) {
        self.with(host, |machine| {
            machine.power = false;
            machine.connected = false;
            machine.runs = Runs::Nothing;
            machine.vms.clear();
        });
    }
}
