//! Raises a lab from its blueprint, step by step; what fails takes down what was made before it.

use super::{ApplianceRig, HostRig, Lab, LabError, LabOptions, doing, follow_power, held};
use crate::blueprint::{
    ApplianceNic, Blueprint, HostPlan, InterfacePlan, NS_CONTROL, NS_EDGE, NS_QEMU, NS_SAN, PortPlan,
};
use crate::bmc::Ledger;
use crate::machine::{DiskSpec, Firmware, Identity, Machine, MachineSpec, NicSpec, PortSpec};
use crate::netns::{self, Netns};
use crate::process::Processes;
use crate::protocol::{APPLIANCE, PORT, SOCKET};
use crate::state::StateFile;
use crate::switch::core::{PortConfig, Switch};
use crate::switch::fabric::{EndpointId, Fabric, PortRef, SwitchId};
use crate::switch::tap;
use crate::{cleanup, forward, san, store};
use dayzero_model::site::Site;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Datagrams that a socket may have unread; the kernel's default of 10 loses bursts.
const QUEUE: &str = "512";
/// The longest socket path below the lab's directory.
const LONGEST_SOCKET: usize = "/m/123456789012345678901234/n0.q".len();

impl Lab {
    /// Builds the lab of a plan: cleans up after a former one, then namespaces, switches, SAN, store, machines
    /// (off), BMCs, control socket. Ready when this returns.
    pub async fn start(plan: &Site, options: LabOptions) -> Result<Arc<Self>, LabError> {
        let mut blueprint = Blueprint::of(plan)?;
        if options.appliance.is_some() {
            blueprint.house_appliance(plan)?;
        }
        let dir = options.dir.clone();
        if dir.as_os_str().len() + LONGEST_SOCKET > 107 {
            let source = std::io::Error::other("the path is too long for Unix sockets: choose a shorter one");
            return Err(doing(format!("use {}", dir.display()))(source));
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(doing(format!("make {}", dir.display())))?;
        cleanup::former(&dir)?;
        if !options.keep {
            forget_last_run(&dir)?;
        }
        let state = StateFile::create(&dir).map_err(doing("write the lab's state file"))?;
        let mut unfinished = Unfinished(Some(Arc::new(state)));
        let lab = Self::build(blueprint, options, &mut unfinished).await?;
        lab.begin_tasks().await?;
        unfinished.0 = None;
        Ok(lab)
    }

    async fn build(
        blueprint: Blueprint,
        options: LabOptions,
        unfinished: &mut Unfinished,
    ) -> Result<Arc<Self>, LabError> {
        let missing = || doing("keep the lab's state")(std::io::Error::other("no state file"));
        let state = unfinished.0.clone().ok_or_else(missing)?;
        let processes = Processes::new(state.clone()).map_err(doing("start a thread"))?;
        let fabric = Fabric::start().map_err(doing("start the switches"))?;
        let switches: Vec<_> = blueprint
            .switches
            .iter()
            .enumerate()
            .map(|(id, plan)| {
                let members: Vec<_> = plan.members.iter().map(String::as_str).collect();
                fabric.add_switch(Switch::new(id as u8, &members))
            })
            .collect();
        let mut wiring = Wiring {
            fabric: &fabric,
            switches: &switches,
            state: &state,
            prefix: &options.prefix,
            namespaces: BTreeMap::new(),
        };
        wiring
            .namespace(NS_QEMU)?
            .run("lengthen datagram queues", || std::fs::write("/proc/sys/net/unix/max_dgram_qlen", QUEUE))?;
        for plan in &blueprint.namespaces {
            let netns = wiring.namespace(&plan.name)?;
            if plan.forwards {
                netns.run("turn on routing", || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
            }
            for interface in &plan.interfaces {
                wiring.interface(&netns, interface)?;
            }
        }
        let hosts = blueprint.hosts.iter().map(|plan| wiring.host(plan, &options, &processes));
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        let appliance = options.appliance.as_ref();
        let appliance =
            appliance.map(|disk| wiring.appliance(&blueprint.appliance, disk, &options, &processes));
        let appliance = appliance.transpose()?;
        let extra_cables = blueprint.extras.iter().enumerate().map(|(index, plan)| {
            let port = wiring.port(plan)?;
            let (own, peer) = extra_sockets(&options.dir, index);
            let cable = wiring.socket(&own, &peer)?;
            fabric.plug(cable, port);
            Ok::<_, LabError>((port, cable))
        });
        let extra_cables = extra_cables.collect::<Result<Vec<_>, _>>()?;
        let namespaces = wiring.namespaces;
        Ok(Arc::new(Self {
            options,
            blueprint,
            state,
            processes,
            namespaces,
            fabric: fabric.clone(),
            switches,
            hosts,
            appliance,
            extra_cables,
            extras: Mutex::default(),
            services: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: Mutex::new(JoinSet::new()),
        }))
    }

    async fn begin_tasks(self: &Arc<Self>) -> Result<(), LabError> {
        for host in &self.hosts {
            let task = follow_power(host.machine.clone(), self.fabric.clone(), host.cables.clone());
            held(&self.tasks).spawn(task);
            self.start_bmc(host, false).await?;
        }
        if let Some(appliance) = &self.appliance {
            let (machine, cables) = (appliance.machine.clone(), appliance.cables.clone());
            held(&self.tasks).spawn(follow_power(machine, self.fabric.clone(), cables));
        }
        if let (Some(plan), Some(netns)) = (&self.blueprint.san, self.namespace(NS_SAN)) {
            let child = san::start(plan, &self.options.dir, &self.processes, &netns).await?;
            held(&self.services).push(("tgtd".into(), child));
        }
        if let (Some(address), Some(netns)) = (self.blueprint.store, self.namespace(NS_EDGE)) {
            let listener =
                forward::listen(&netns, address.into()).map_err(doing("listen as secondary storage"))?;
            let routes = store::routes(self.options.store_dir.clone());
            held(&self.tasks).spawn(async move {
                if let Err(error) = axum::serve(listener, routes).await {
                    tracing::error!(%error, "secondary storage ended");
                }
            });
        }
        if let (Some(address), Some(netns)) = (self.options.console, self.namespace(NS_CONTROL)) {
            let listener = TcpListener::bind(address).await;
            let listener =
                listener.map_err(doing(format!("listen on {address} for operators: is the port taken?")))?;
            let appliance = self.blueprint.appliance.first().map(|nic| nic.address.addr());
            let inner = (appliance.unwrap_or(Ipv4Addr::LOCALHOST), address.port()).into();
            held(&self.tasks).spawn(forward::run(listener, netns, inner));
        }
        self.serve_control()
    }
}

/// Machines and LUN as delivered: empty disks, factory accounts.
fn forget_last_run(dir: &Path) -> Result<(), LabError> {
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let removed =
        gone(std::fs::remove_dir_all(dir.join("m"))).and_then(|()| gone(std::fs::remove_file(san::lun(dir))));
    removed.map_err(doing("empty the machines of the last run"))
}

/// Takes down what was made if the lab does not get finished.
struct Unfinished(Option<Arc<StateFile>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(state) = self.0.take() else { return };
        let result =
            state.read().map_err(cleanup::CleanupError::State).and_then(|left| cleanup::everything(&left));
        match result {
            Ok(()) => drop(state.remove()),
            Err(error) => {
                tracing::error!(%error, "the unfinished lab is not wholly taken down; the next start will try")
            }
        }
    }
}

/// Sockets of a machine that is not in the plan: the switch's and QEMU's.
pub(super) fn extra_sockets(dir: &Path, index: usize) -> (PathBuf, PathBuf) {
    (dir.join(format!("x{index}.s")), dir.join(format!("x{index}.q")))
}

struct Wiring<'a> {
    fabric: &'a Fabric,
    switches: &'a [SwitchId],
    state: &'a StateFile,
    prefix: &'a str,
    namespaces: BTreeMap<String, Arc<Netns>>,
}

impl Wiring<'_> {
    fn namespace(&mut self, planned: &str) -> Result<Arc<Netns>, LabError> {
        let name =
            planned.strip_prefix("dz-").map_or(planned.into(), |rest| format!("{}-{rest}", self.prefix));
        if netns::inode_of(&name).is_some() {
            return Err(netns::NetnsError::Exists(name).into());
        }
        self.state.set_namespace(&name, None).map_err(doing("record a namespace"))?;
        let made = Arc::new(Netns::create(&name)?);
        self.state.set_namespace(&name, netns::inode_of(&name)).map_err(doing("record a namespace"))?;
        self.namespaces.insert(planned.to_owned(), made.clone());
        Ok(made)
    }

    fn port(&self, plan: &PortPlan) -> Result<PortRef, LabError> {
        let unknown = || doing("add a switch port")(std::io::Error::other("no such switch"));
        let switch = *self.switches.get(plan.switch).ok_or_else(unknown)?;
        let member = plan.member.as_ref();
        let member = member.and_then(|name| self.fabric.with(switch, |switch| switch.member(name)).flatten());
        let config = PortConfig { member, name: plan.name.clone(), mode: plan.mode.clone(), lag: plan.lag };
        self.fabric.add_port(switch, config).ok_or_else(unknown)
    }

    fn interface(&self, netns: &Netns, plan: &InterfacePlan) -> Result<(), LabError> {
        let name = &plan.name;
        let fd = netns.run("make a tap (is /dev/net/tun there?)", || tap::create(name))?;
        let mut batch = String::new();
        if let Some(mac) = plan.mac {
            let _infallible = writeln!(batch, "link set {name} address {mac}");
        }
        let _infallible = writeln!(batch, "link set {name} mtu {} up", plan.mtu);
        for address in &plan.addresses {
            let _infallible = writeln!(batch, "addr add {address} brd + dev {name}");
        }
        netns.configure(&batch)?;
        let endpoint = self.fabric.add_tap(fd).map_err(doing("plug in a tap"))?;
        self.fabric.plug(endpoint, self.port(&plan.port)?);
        self.fabric.set_carrier(endpoint, true);
        Ok(())
    }

    /// A socket is made in QEMU's namespace, whose queues are long.
    fn socket(&self, own: &Path, peer: &Path) -> Result<EndpointId, LabError> {
        let Some(netns) = self.namespaces.get(NS_QEMU) else {
            return Err(doing("plug in a NIC")(std::io::Error::other("QEMU's namespace is missing")));
        };
        Ok(netns.run("plug in a NIC's socket", || self.fabric.add_socket(own, peer))?)
    }

    /// The appliance's machine: BIOS, the given disk as it is, and a port to the lab's own socket, for its puller.
    fn appliance(
        &self,
        plan: &[ApplianceNic],
        disk: &Path,
        options: &LabOptions,
        processes: &Processes,
    ) -> Result<ApplianceRig, LabError> {
        let dir = options.dir.join("m").join(APPLIANCE);
        std::fs::create_dir_all(&dir).map_err(doing(format!("make {}", dir.display())))?;
        let size = std::fs::metadata(disk)
            .map_err(doing(format!("use the appliance's disk {}", disk.display())))?
            .len();
        let (mut nics, mut cables) = (Vec::new(), Vec::new());
        for (index, wire) in plan.iter().enumerate() {
            let local = dir.join(format!("n{index}.q"));
            let nic = NicSpec { mac: wire.mac, local, remote: dir.join(format!("n{index}.s")) };
            let cable = self.socket(&nic.remote, &nic.local)?;
            self.fabric.plug(cable, self.port(&wire.port)?);
            cables.push(cable);
            nics.push(nic);
        }
        let spec = MachineSpec {
            name: APPLIANCE.into(),
            dir,
            firmware: Firmware::Bios,
            memory_mib: APPLIANCE_MIB,
            cpus: 2,
            identity: identity("DZ-APPLIANCE", "6c1d5a30-7f0e-4b6e-9a51-0d2b1c0000aa"),
            disk: Some(DiskSpec { path: disk.to_owned(), size, serial: "DZAPPLIANCE".into(), wwn: None }),
            nics,
            direct: None,
            port: Some(PortSpec { name: PORT.into(), socket: options.dir.join(SOCKET) }),
        };
        let machine = Machine::new(spec, processes.clone(), self.namespaces.get(NS_QEMU).cloned());
        Ok(ApplianceRig { machine, cables })
    }

    fn host(
        &self,
        plan: &HostPlan,
        options: &LabOptions,
        processes: &Processes,
    ) -> Result<HostRig, LabError> {
        let dir = options.dir.join("m").join(plan.name.as_str());
        std::fs::create_dir_all(&dir).map_err(doing(format!("make {}", dir.display())))?;
        let mut nics = Vec::new();
        let mut cables = Vec::new();
        for (index, wire) in plan.nics.iter().enumerate() {
            let nic = NicSpec {
                mac: wire.mac,
                local: dir.join(format!("n{index}.q")),
                remote: dir.join(format!("n{index}.s")),
            };
            let cable = self.socket(&nic.remote, &nic.local)?;
            self.fabric.plug(cable, self.port(&wire.port)?);
            cables.push(cable);
            nics.push(nic);
        }
        let disk = DiskSpec {
            path: dir.join("disk.raw"),
            size: options.disk_bytes,
            serial: plan.disk.serial.clone().unwrap_or_else(|| format!("DZ{}", plan.name)),
            wwn: plan.disk.wwn.clone(),
        };
        let spec = MachineSpec {
            name: plan.name.to_string(),
            dir,
            firmware: plan.firmware,
            memory_mib: options.memory_mib,
            cpus: 2,
            identity: identity(&plan.serial, &plan.uuid),
            disk: Some(disk),
            nics,
            direct: options.direct.get(plan.name.as_str()).cloned(),
            port: None,
        };
        let machine = Machine::new(spec, processes.clone(), self.namespaces.get(NS_QEMU).cloned());
        Ok(HostRig {
            plan: plan.clone(),
            machine,
            cables,
            bmc: tokio::sync::Mutex::default(),
            ledger: Ledger::default(),
            stale_media: Arc::default(),
        })
    }
}

/// Enough for its image, unpacked, and what it serves.
const APPLIANCE_MIB: u64 = 1024;

/// The lab's one server model.
pub(super) fn identity(serial: &str, uuid: &str) -> Identity {
    Identity {
        manufacturer: "Dayzero".into(),
        product: "Lab q35".into(),
        serial: serial.into(),
        uuid: uuid.into(),
        board_serial: format!("{serial}-MB"),
        firmware_version: "lab-1".into(),
    }
}
