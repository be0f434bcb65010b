//! One QEMU machine as its BMC and the lab see it: power, one-time boot, media, cables, console.
//!
//! Invariants: off means that there is no process; one power operation at a time; what was set while the machine is
//! off (boot override, media, cables) holds when it starts. It speaks no BMC protocol and knows no plan.

mod spec;
mod vars;

pub use spec::{
    DirectBoot, DiskSpec, Firmware, Identity, MachineSpec, NicSpec, OVMF_CODE, OVMF_VARS, PortSpec, nic_slot,
};

use crate::netns::Netns;
use crate::process::{ProcessError, ProcessId, Processes, logged};
use crate::qmp::{Event, Qmp, QmpError};
use crate::serial::Serial;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};

const START_DEADLINE: Duration = Duration::from_secs(20);
const RESET_DEADLINE: Duration = Duration::from_secs(5);

/// A machine operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file or socket of the machine.
    #[error("machine {name}: cannot {doing}")]
    Io {
        /// The machine.
        name: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU did not start.
    #[error("machine {name}: QEMU ended or stayed silent at start; the end of its log: {log}")]
    NoStart {
        /// The machine.
        name: String,
        /// Last lines of QEMU's own output.
        log: String,
    },
    /// The process could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU refused.
    #[error("machine {name}: {source}")]
    Qmp {
        /// The machine.
        name: String,
        /// Why.
        source: QmpError,
    },
    /// The operation needs a machine that is on.
    #[error("machine {0} is off")]
    Off(String),
    /// The operation needs a machine that is off.
    #[error("machine {0} is on: switch it off first")]
    On(String),
    /// No such NIC.
    #[error("machine {name} has no NIC {nic}: it has {count}, counted from 0")]
    NoNic {
        /// The machine.
        name: String,
        /// The NIC asked for.
        nic: usize,
        /// How many there are.
        count: usize,
    },
}

/// What a machine boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootSource {
    /// The OS disk.
    Disk,
    /// The first NIC.
    Pxe,
}

/// The boot order as the firmware will see it at the next reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootOrder {
    /// Override for one boot, if armed.
    pub once: Option<BootSource>,
    /// The lasting order.
    pub order: Vec<BootSource>,
}

/// Power as observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// A process runs.
    On,
    /// There is no process.
    Off,
}

/// What happened to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// It was switched on.
    On,
    /// It was reset, from outside or by its guest.
    Reset,
    /// It is off, for whatever reason.
    Off,
}

/// One machine. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Machine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: MachineSpec,
    processes: Processes,
    netns: Option<Arc<Netns>>,
    serial: Serial,
    operation: tokio::sync::Mutex<()>,
    desired: Mutex<Desired>,
    running: Mutex<Option<Running>>,
    power: watch::Sender<Power>,
    events: broadcast::Sender<MachineEvent>,
}

/// What the next start or reset is to find.
#[derive(Debug, Default)]
struct Desired {
    pxe_once: bool,
    media: Option<PathBuf>,
    pulled: BTreeSet<usize>,
    /// The battery of its clock is empty.
    clock_lost: bool,
}

#[derive(Clone, Debug)]
struct Running {
    process: ProcessId,
    qmp: Arc<Qmp>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// A machine that is off. `netns`: where QEMU runs (it needs no network of its own; a private namespace may
    /// have a longer queue for datagram sockets). The disk is made when the machine first starts.
    pub fn new(spec: MachineSpec, processes: Processes, netns: Option<Arc<Netns>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                spec,
                processes,
                netns,
                serial: Serial::default(),
                operation: tokio::sync::Mutex::default(),
                desired: Mutex::default(),
                running: Mutex::default(),
                power: watch::Sender::new(Power::Off),
                events: broadcast::channel(64).0,
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// What it is made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.inner.spec
    }

    /// What SMBIOS says of it.
    pub fn identity(&self) -> &Identity {
        &self.inner.spec.identity
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        *self.inner.power.borrow() == Power::On
    }

    /// Power, to wait on.
    pub fn power(&self) -> watch::Receiver<Power> {
        self.inner.power.subscribe()
    }

    /// Power changes and resets from now on.
    pub fn events(&self) -> broadcast::Receiver<MachineEvent> {
        self.inner.events.subscribe()
    }

    /// Its serial console.
    pub fn serial(&self) -> Serial {
        self.inner.serial.clone()
    }

    /// The boot order at the next reset.
    pub fn boot_order(&self) -> BootOrder {
        let once = held(&self.inner.desired).pxe_once.then_some(BootSource::Pxe);
        BootOrder { once, order: vec![BootSource::Disk, BootSource::Pxe] }
    }

    /// The lasting order that its own firmware keeps, first one first: number and description of each entry. Empty with
    /// BIOS, which keeps none, and before EDK2 has made one.
    pub fn firmware_order(&self) -> Vec<(u16, String)> {
        let spec = &self.inner.spec;
        match spec.firmware {
            Firmware::Uefi => {
                std::fs::read(spec.vars()).map(|vars| vars::boot_order(&vars)).unwrap_or_default()
            }
            Firmware::Bios => Vec::new(),
        }
    }

    /// Virtual media in the drive.
    pub fn media(&self) -> Option<PathBuf> {
        held(&self.inner.desired).media.clone()
    }

    /// Whether the cable of NIC `nic` is pulled.
    pub fn is_pulled(&self, nic: usize) -> bool {
        held(&self.inner.desired).pulled.contains(&nic)
    }

    /// Switches it on; on a machine that is on this does nothing.
    pub async fn power_on(&self) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        if self.is_on() { Ok(()) } else { self.start().await }
    }

    /// Cuts its power: the process is killed. Off already is fine.
    pub async fn force_off(&self) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        let Some(running) = held(&self.inner.running).clone() else { return Ok(()) };
        running.process.signal(nix::sys::signal::Signal::SIGKILL);
        let mut power = self.inner.power.subscribe();
        let _sender_lives_in_self = power.wait_for(|power| *power == Power::Off).await;
        Ok(())
    }

    /// Resets it without cutting power (`system_reset`).
    pub async fn reset(&self) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        let mut events = self.events();
        self.command("system_reset", Value::Null).await?;
        // An override set after this call is for the boot after this one: wait until this reset took its own.
        let happened = async {
            while let Ok(event) = events.recv().await {
                if event != MachineEvent::On {
                    break;
                }
            }
        };
        let _quiet_machine = tokio::time::timeout(RESET_DEADLINE, happened).await;
        Ok(())
    }

    /// Holds the machine still, as if it hung, or lets it go on; its power stays on.
    pub async fn set_paused(&self, paused: bool) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        self.command(if paused { "stop" } else { "cont" }, Value::Null).await
    }

    /// Presses the power button: the guest may shut down, in its own time.
    pub async fn graceful(&self) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        self.command("system_powerdown", Value::Null).await
    }

    /// Arms a network boot: the next power-on or reset (also one by the guest) tries NIC 0 first, once.
    pub async fn set_once_pxe(&self) -> Result<(), MachineError> {
        self.set_once(true).await
    }

    /// Disarms it.
    pub async fn clear_once(&self) -> Result<(), MachineError> {
        self.set_once(false).await
    }

    async fn set_once(&self, armed: bool) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        held(&self.inner.desired).pxe_once = armed;
        if self.is_on() { self.write_bootindex(armed).await } else { Ok(()) }
    }

    /// Puts an ISO image into the virtual drive.
    pub async fn insert_media(&self, path: &Path) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        if self.is_on() {
            self.write_media(path).await?;
        }
        held(&self.inner.desired).media = Some(path.to_owned());
        Ok(())
    }

    /// Takes the virtual medium out; none in it is fine.
    pub async fn eject_media(&self) -> Result<(), MachineError> {
        let _one_at_a_time = self.inner.operation.lock().await;
        let had = held(&self.inner.desired).media.take().is_some();
        if had && self.is_on() {
            self.command("eject", json!({ "id": "cd0", "force": true })).await?;
        }
        Ok(())
    }

    /// Empties the battery of its clock, or puts in a new one: what the clock says from the next power-on.
    pub fn set_clock_battery(&self, empty: bool) {
        held(&self.inner.desired).clock_lost = empty;
    }

    /// Pulls the cable of a NIC or plugs it in: the guest sees its carrier go or come.
    pub async fn set_cable(&self, nic: usize, plugged: bool) -> Result<(), MachineError> {
        let count = self.inner.spec.nics.len();
        if nic >= count {
            return Err(MachineError::NoNic { name: self.name().into(), nic, count });
        }
        let _one_at_a_time = self.inner.operation.lock().await;
        if plugged {
            held(&self.inner.desired).pulled.remove(&nic);
        } else {
            held(&self.inner.desired).pulled.insert(nic);
        }
        if self.is_on() { self.write_link(nic, plugged).await } else { Ok(()) }
    }

    async fn command(&self, command: &str, arguments: Value) -> Result<(), MachineError> {
        let qmp = held(&self.inner.running).as_ref().map(|running| running.qmp.clone());
        let qmp = qmp.ok_or_else(|| MachineError::Off(self.name().into()))?;
        match qmp.command(command, arguments).await {
            Ok(_) => Ok(()),
            Err(source) => Err(MachineError::Qmp { name: self.name().into(), source }),
        }
    }

    async fn write_bootindex(&self, armed: bool) -> Result<(), MachineError> {
        let value = if armed { spec::PXE_FIRST } else { spec::PXE_LAST };
        let path = "/machine/peripheral/nic0";
        self.command("qom-set", json!({ "path": path, "property": "bootindex", "value": value })).await
    }

    async fn write_media(&self, path: &Path) -> Result<(), MachineError> {
        let arguments = json!({
            "id": "cd0", "filename": path, "format": "raw", "read-only-mode": "read-only", "force": true
        });
        self.command("blockdev-change-medium", arguments).await
    }

    async fn write_link(&self, nic: usize, up: bool) -> Result<(), MachineError> {
        self.command("set_link", json!({ "name": format!("nic{nic}"), "up": up })).await
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> MachineError + use<> {
        let name = self.name().to_owned();
        move |source| MachineError::Io { name, doing, source }
    }

    /// Makes what is missing of the machine's files.
    pub(crate) fn prepare(&self) -> Result<(), MachineError> {
        let spec = &self.inner.spec;
        std::fs::create_dir_all(&spec.dir).map_err(self.io("make its directory"))?;
        if spec.firmware == Firmware::Uefi && !spec.vars().exists() {
            std::fs::copy(OVMF_VARS, spec.vars()).map_err(self.io("copy EDK2's variables (package ovmf)"))?;
        }
        if let Some(disk) = &spec.disk {
            let file = std::fs::File::options().create(true).truncate(false).write(true).open(&disk.path);
            let file = file.map_err(self.io("make its disk"))?;
            let length = file.metadata().map_err(self.io("look at its disk"))?.len();
            if length < disk.size {
                file.set_len(disk.size).map_err(self.io("size its disk"))?;
            }
        }
        for nic in &spec.nics {
            remove_stale(&nic.local).map_err(self.io("remove a stale socket"))?;
        }
        Ok(())
    }

    async fn start(&self) -> Result<(), MachineError> {
        self.prepare()?;
        let spec = &self.inner.spec;
        let listen = |path: PathBuf| {
            remove_stale(&path)?;
            UnixListener::bind(path)
        };
        let qmp_listener = listen(spec.qmp_socket()).map_err(self.io("listen for QMP"))?;
        let serial_listener = listen(spec.serial_socket()).map_err(self.io("listen for the console"))?;
        let (armed, clock_lost) = {
            let desired = held(&self.inner.desired);
            (desired.pxe_once, desired.clock_lost)
        };
        let log = spec.dir.join("qemu.log");
        let mut command = logged("qemu-system-x86_64", &log).map_err(self.io("open QEMU's log"))?;
        command.args(spec.arguments(armed, clock_lost));
        let what = format!("qemu {}", spec.name);
        let mut child = self.inner.processes.spawn(command, &what, self.inner.netns.as_deref()).await?;
        let id = child.id;

        let connect = async {
            let (serial, _) = serial_listener.accept().await?;
            let (qmp, _) = qmp_listener.accept().await?;
            let started = Qmp::start(qmp).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((serial, started))
        };
        let connected = tokio::select! {
            connected = tokio::time::timeout(START_DEADLINE, connect) => connected.ok().and_then(Result::ok),
            _ended = child.process.wait() => None,
        };
        let Some((serial, (qmp, events))) = connected else {
            let _already_gone = child.process.kill().await;
            self.inner.processes.forget(id);
            return Err(MachineError::NoStart { name: spec.name.clone(), log: end_of(&log) });
        };
        *held(&self.inner.running) = Some(Running { process: id, qmp: Arc::new(qmp) });
        self.inner.power.send_replace(Power::On);
        let _nobody_listens = self.inner.events.send(MachineEvent::On);
        tokio::spawn(self.inner.serial.clone().carry(serial));
        tokio::spawn(Self::follow(Arc::downgrade(&self.inner), child, events));
        self.finish_start(armed).await
    }

    /// Between process start and the guest's first instruction.
    async fn finish_start(&self, armed: bool) -> Result<(), MachineError> {
        if armed {
            // The firmware's copy of the order was made at QEMU's own reset; this is for the next one.
            self.write_bootindex(false).await?;
            held(&self.inner.desired).pxe_once = false;
        }
        let (pulled, media) = {
            let desired = held(&self.inner.desired);
            (desired.pulled.clone(), desired.media.clone())
        };
        for nic in pulled {
            self.write_link(nic, false).await?;
        }
        if let Some(media) = media {
            self.write_media(&media).await?;
        }
        self.command("cont", Value::Null).await
    }

    /// Follows one process to its end.
    async fn follow(
        machine: std::sync::Weak<Inner>,
        mut child: crate::process::Child,
        mut events: broadcast::Receiver<Event>,
    ) {
        let listen = async {
            loop {
                match events.recv().await {
                    Ok(event) if event.name == "RESET" => {
                        let Some(inner) = machine.upgrade() else { break };
                        Self { inner }.after_reset().await;
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = child.process.wait() => tracing::debug!(?ended, "QEMU ended"),
            () = listen => {}
        }
        let Some(inner) = machine.upgrade() else { return };
        inner.processes.forget(child.id);
        *held(&inner.running) = None;
        inner.power.send_replace(Power::Off);
        let _nobody_listens = inner.events.send(MachineEvent::Off);
    }

    /// The reset has handed the armed order to the firmware: the next one is the lasting order again.
    async fn after_reset(&self) {
        let armed = std::mem::take(&mut held(&self.inner.desired).pxe_once);
        if armed && let Err(error) = self.write_bootindex(false).await {
            tracing::warn!(machine = self.name(), %error, "one-time boot could not be taken back");
        }
        let _nobody_listens = self.inner.events.send(MachineEvent::Reset);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
