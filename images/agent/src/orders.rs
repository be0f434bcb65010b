//! Carries orders out, by the rooms that know how: netconf, storage, libvirt.

use crate::credentials::Credentials;
use crate::jobs::Reporter;
use crate::{inventory, service, vms};
use dayzero_model::facts::Capacity;
use dayzero_model::install::InstallOrder;
use dayzero_model::network::HostNetwork;
use dayzero_model::proof::WriterProgress;
use dayzero_model::storage::{LunReport, LunSpec, VolumeSpec, VolumeWarrant};
use dayzero_model::units::{MebiBytes, Mhz};
use dayzero_model::wire::{AgentError, Order, Report};
use dayzero_model::{Name, Wwn};
use dayzero_storage::proof::Writer;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Memory that the host keeps for itself, libvirt and QEMU's own overhead.
const HOST_RESERVE: MebiBytes = MebiBytes(512);

/// This host, as its orders see it.
pub struct Host {
    /// Started from disk.
    pub installed: bool,
    /// The kernel's boot id.
    pub kernel_boot: String,
    credentials: Credentials,
    network: Mutex<Option<HostNetwork>>,
    luns: tokio::sync::Mutex<Vec<LunSpec>>,
    writer: Mutex<Option<Arc<Writer>>>,
    /// One change of the host at a time.
    change: tokio::sync::Mutex<()>,
}

impl Host {
    /// A host that runs the discovery image.
    pub fn discovered(credentials: Credentials) -> Self {
        Self::new(credentials, None)
    }

    /// A host that runs from its disk.
    pub fn installed(credentials: Credentials, network: HostNetwork) -> Self {
        Self::new(credentials, Some(network))
    }

    fn new(credentials: Credentials, network: Option<HostNetwork>) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            installed: network.is_some(),
            kernel_boot: boot.trim().to_owned(),
            credentials,
            network: Mutex::new(network),
            luns: tokio::sync::Mutex::new(Vec::new()),
            writer: Mutex::new(None),
            change: tokio::sync::Mutex::new(()),
        }
    }

    /// Progress of the proof's writer, while one runs.
    pub fn writer_progress(&self) -> Option<WriterProgress> {
        Some(self.writer()?.progress())
    }

    fn writer(&self) -> Option<Arc<Writer>> {
        self.writer.lock().ok()?.clone()
    }

    /// Connects LUNs and remembers them for the next boot.
    pub async fn connect(&self, specs: Vec<LunSpec>) -> Vec<LunReport> {
        let mut luns = self.luns.lock().await;
        luns.clone_from(&specs);
        dayzero_storage::luns::connect(&specs).await
    }
}

fn wrong(code: &str, sentence: impl Into<String>, expected: &str, observed: impl Into<String>) -> AgentError {
    AgentError {
        code: code.to_owned(),
        sentence: sentence.into(),
        expected: expected.to_owned(),
        observed: observed.into(),
        finding: None,
    }
}

fn io_error(what: &str, error: impl std::fmt::Display) -> AgentError {
    wrong("io", format!("{what}: {error}"), "success", error.to_string())
}

/// Carries one order out.
///
/// # Errors
/// [`AgentError`] with a stable code.
pub async fn carry_out(host: &Arc<Host>, order: Order, reporter: &Reporter) -> Result<Report, AgentError> {
    if needs_installed(&order) && !host.installed {
        return Err(wrong(
            "not-installed",
            "this order is for an installed host",
            "started from disk",
            "discovery image",
        ));
    }
    match order {
        Order::Inventory { lldp_s } => {
            reporter.step("reading the hardware and listening for LLDP", 0, 0);
            let seconds = Duration::from_secs(u64::from(lldp_s.min(120)));
            Ok(Report::Inventory(Box::new(inventory::collect(seconds).await)))
        }
        Order::InspectDisk { disk } => {
            let inspection = tokio::task::spawn_blocking(move || {
                let disks = dayzero_storage::disks::enumerate()?;
                dayzero_storage::finding::inspect(dayzero_storage::disks::select(&disks, &disk)?)
            });
            Ok(Report::Disk(inspection.await.map_err(|e| io_error("looking at the disk", e))??.finding))
        }
        Order::Install(order) => install(host, &order, reporter).await,
        Order::Reboot => reboot(host).await,
        Order::StartReport => {
            let boot = host.kernel_boot.clone();
            let read = tokio::task::spawn_blocking(move || dayzero_storage::startup::read(&boot));
            let report = read.await.map_err(|e| io_error("reading how it was started", e))??;
            Ok(Report::Started(Box::new(report)))
        }
        Order::Network(wanted) => network(host, *wanted).await,
        Order::NetworkReport => {
            let wanted = host.network.lock().map_err(|e| io_error("network", e))?.clone();
            let wanted = wanted
                .ok_or_else(|| wrong("no-network", "no network was ordered yet", "an order", "none"))?;
            Ok(Report::Network(Box::new(dayzero_netconf::report(&wanted).await)))
        }
        Order::Storage(specs) => {
            let _one = host.change.lock().await;
            persist("luns.json", &specs)?;
            Ok(Report::Storage(host.connect(specs).await))
        }
        Order::StorageReport => {
            let specs = host.luns.lock().await.clone();
            Ok(Report::Storage(dayzero_storage::luns::report(&specs).await))
        }
        Order::VolumeGroup { storage, wwn, plan_hash } => {
            let _one = host.change.lock().await;
            let device = dayzero_storage::luns::device(&wwn);
            dayzero_storage::lvm::make_group(&storage, &device, &plan_hash).await?;
            Ok(Report::Ok)
        }
        Order::VolumeCreate { volume, warrant } => {
            let _one = host.change.lock().await;
            let lun = warranted(host, &volume, &warrant).await?;
            dayzero_storage::lvm::create(&volume, &lun, &warrant.plan_hash).await?;
            Ok(Report::Ok)
        }
        Order::VolumeFill { volume, warrant, template } => {
            reporter.step("filling the volume from its template", 0, volume.size.0);
            let device = to_overwrite(host, &volume, &warrant).await?;
            let sha256 = dayzero_storage::fill::fill(&device, &template.url, &template.sha256).await?;
            Ok(Report::Filled { sha256 })
        }
        Order::WriterStart { volume, warrant } => writer_start(host, &volume, &warrant).await,
        Order::WriterVerify => {
            let writer = host.writer().ok_or_else(no_writer)?;
            let done = tokio::task::spawn_blocking(move || writer.verify())
                .await
                .map_err(|e| io_error("reading back", e))?;
            Ok(Report::Writer(done?))
        }
        Order::WriterStop => {
            let writer =
                host.writer.lock().map_err(|e| io_error("writer", e))?.take().ok_or_else(no_writer)?;
            let done = tokio::task::spawn_blocking(move || writer.stop())
                .await
                .map_err(|e| io_error("writer", e))?;
            Ok(Report::Writer(done))
        }
        Order::Capacity => Ok(Report::Capacity(capacity().await)),
        Order::VmStart(spec) => {
            let _one = host.change.lock().await;
            let device = activate(host, &spec.volume).await?;
            vms::start(&spec, &device).await?;
            Ok(Report::Ok)
        }
        Order::VmStop { name } => {
            vms::stop(&name).await?;
            Ok(Report::Ok)
        }
        Order::Vms => Ok(Report::Vms(vms::list().await?)),
    }
}

fn needs_installed(order: &Order) -> bool {
    !matches!(order, Order::Inventory { .. } | Order::InspectDisk { .. } | Order::Install(_) | Order::Reboot)
}

fn no_writer() -> AgentError {
    wrong("no-writer", "the proof's writer does not run", "a started writer", "none")
}

async fn install(host: &Arc<Host>, order: &InstallOrder, reporter: &Reporter) -> Result<Report, AgentError> {
    if host.installed {
        let sentence =
            "an installed host does not overwrite itself; it is installed from the discovery image";
        return Err(wrong("not-discovery", sentence, "discovery image", "started from disk"));
    }
    let _one = host.change.lock().await;
    let keys = dayzero_storage::install::Credentials {
        key_pem: host.credentials.key.clone(),
        certificate_pem: host.credentials.certificate.clone(),
        ca_pem: host.credentials.ca.clone(),
    };
    let told = reporter.clone();
    let progress =
        move |step: dayzero_storage::install::Progress| told.step(&step.what, step.done, step.total);
    Ok(Report::Installed(Box::new(dayzero_storage::install::install(order, &keys, &progress).await?)))
}

/// Restarts after the answer has had a second to leave.
async fn reboot(host: &Arc<Host>) -> Result<Report, AgentError> {
    let installed = host.installed;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if installed {
            let limit = Duration::from_secs(30);
            if let Err(error) =
                dayzero_storage::tool::run("systemctl", &["--no-block", "reboot"], limit).await
            {
                tracing::error!("restart: {error}");
            }
        } else {
            crate::init::restart();
        }
    });
    Ok(Report::Ok)
}

async fn network(host: &Arc<Host>, wanted: HostNetwork) -> Result<Report, AgentError> {
    let _one = host.change.lock().await;
    // Written before it is applied: after a power cut in between, the next boot makes the network that was ordered.
    persist("network.json", &wanted)?;
    if let Ok(mut current) = host.network.lock() {
        *current = Some(wanted.clone());
    }
    Ok(Report::Network(Box::new(dayzero_netconf::converge(&wanted).await)))
}

/// Writes a state file: beside, synced, renamed, directory synced.
fn persist<T: serde::Serialize>(name: &str, value: &T) -> Result<(), AgentError> {
    let directory = Path::new(service::STATE);
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        let beside = directory.join(format!("{name}.new"));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, directory.join(name))?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|e| io_error(&format!("{}/{name}", service::STATE), e))
}

/// WWN of the LUN of a primary storage, as it was ordered to be connected.
async fn wwn_of(host: &Host, storage: &Name) -> Result<Wwn, AgentError> {
    let luns = host.luns.lock().await;
    let lun = luns.iter().find(|lun| lun.storage == *storage).ok_or_else(|| {
        let sentence = format!("primary storage '{storage}' is not connected");
        wrong("no-lun", sentence, "a connected LUN", "none")
    })?;
    Ok(lun.wwn.clone())
}

/// The multipath device that an order's warrant names: the one that is connected for the volume's storage.
async fn warranted(host: &Host, volume: &VolumeSpec, warrant: &VolumeWarrant) -> Result<PathBuf, AgentError> {
    let wwn = wwn_of(host, &volume.storage).await?;
    if wwn != warrant.wwn {
        let sentence =
            format!("the order is for another LUN than primary storage '{}' has here", volume.storage);
        return Err(wrong("wrong-lun", sentence, &wwn.to_string(), warrant.wwn.to_string()));
    }
    Ok(dayzero_storage::luns::device(&wwn))
}

/// The device of a volume that the warrant allows to be overwritten.
async fn to_overwrite(
    host: &Host,
    volume: &VolumeSpec,
    warrant: &VolumeWarrant,
) -> Result<PathBuf, AgentError> {
    let lun = warranted(host, volume, warrant).await?;
    let device = dayzero_storage::lvm::activate(volume, &lun).await?;
    dayzero_storage::lvm::may_overwrite(volume, &lun, &warrant.plan_hash).await?;
    Ok(device)
}

async fn activate(host: &Host, volume: &VolumeSpec) -> Result<PathBuf, AgentError> {
    let lun = dayzero_storage::luns::device(&wwn_of(host, &volume.storage).await?);
    Ok(dayzero_storage::lvm::activate(volume, &lun).await?)
}

async fn writer_start(
    host: &Arc<Host>,
    volume: &VolumeSpec,
    warrant: &VolumeWarrant,
) -> Result<Report, AgentError> {
    if let Some(writer) = host.writer() {
        return Ok(Report::Writer(writer.progress()));
    }
    let device = to_overwrite(host, volume, warrant).await?;
    let writer = Writer::start(&device)?;
    let progress = writer.progress();
    *host.writer.lock().map_err(|e| io_error("writer", e))? = Some(Arc::new(writer));
    Ok(Report::Writer(progress))
}

async fn capacity() -> Capacity {
    let cpu = inventory::cpu();
    let total = inventory::total_memory();
    Capacity {
        threads: cpu.threads,
        cpu: Mhz(u64::from(cpu.threads) * cpu.speed.0),
        memory: MebiBytes(total.0.saturating_sub(HOST_RESERVE.0)),
        kvm: vms::has_kvm().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::storage::MultipathTimers;
    use dayzero_model::{Bytes, Secret, Sha256};

    #[tokio::test]
    async fn a_volume_is_touched_on_the_lun_that_the_order_names_alone() {
        let (wwn, other): (Wwn, Wwn) = (
            "6000000000000000000000000e000001".parse().unwrap(),
            "6000000000000000000000000e000002".parse().unwrap(),
        );
        let host = Host::discovered(Credentials {
            host: "host1".parse().unwrap(),
            key: Secret::new(String::new()),
            certificate: String::new(),
            ca: String::new(),
        });
        let storage: Name = "lun0".parse().unwrap();
        let volume =
            VolumeSpec { name: "vol-hello".parse().unwrap(), storage: storage.clone(), size: Bytes(1) };
        let warrant = |wwn: &Wwn| VolumeWarrant { plan_hash: Sha256::of(b"plan"), wwn: wwn.clone() };
        let code = |result: Result<PathBuf, AgentError>| result.err().map(|error| error.code);
        assert_eq!(code(warranted(&host, &volume, &warrant(&wwn)).await), Some("no-lun".to_owned()));
        host.luns.lock().await.push(LunSpec {
            storage,
            target: "iqn.x:lun0".to_owned(),
            wwn: wwn.clone(),
            paths: Vec::new(),
            timers: MultipathTimers::default(),
        });
        let device = warranted(&host, &volume, &warrant(&wwn)).await.unwrap();
        assert_eq!(device, dayzero_storage::luns::device(&wwn));
        assert_eq!(code(to_overwrite(&host, &volume, &warrant(&other)).await), Some("wrong-lun".to_owned()));
    }
}
