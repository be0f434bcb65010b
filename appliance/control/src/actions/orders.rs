//! Orders to the host's agent, and what their reports become.

use super::{agent_cause, stopping, store_cause};
use crate::control::Control;
use crate::engine::Delta;
use crate::world::AgentFault;
use dayzero_lifecycle::conditions::wired::{leg_faults, storage_faults};
use dayzero_model::condition::Cause;
use dayzero_model::event::What;
use dayzero_model::ids::{HostName, Name, Sha256, Wwn};
use dayzero_model::install::InstallOrder;
use dayzero_model::network::HostNetwork;
use dayzero_model::storage::LunSpec;
use dayzero_model::wire::{Order, Report};
use std::sync::Arc;
use std::time::Duration;

/// An order that is answered soon.
const SHORT: Duration = Duration::from_secs(50);
/// How long paths may take to settle after they were made.
const SETTLE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an agent may be away within an order: it reconnects by itself, and attaches to the work that goes on.
const AWAY: Duration = Duration::from_secs(60);

pub(super) fn unexpected(report: &Report) -> AgentFault {
    let text = format!("{report:?}");
    AgentFault::Unexpected(text.chars().take(120).collect())
}

/// Gives an order, and gives it again to an agent that was away for a moment. Orders are idempotent.
pub(crate) async fn order(
    control: &Arc<Control>,
    host: &HostName,
    order: Order,
    timeout: Duration,
) -> Result<Report, AgentFault> {
    loop {
        match control.world.agents.order(host, order.clone(), timeout).await {
            Err(AgentFault::Gone) => {
                let back = control.world.agents.came(host);
                if tokio::time::timeout(AWAY, back).await.is_err() {
                    return Err(AgentFault::Gone);
                }
            }
            other => return other,
        }
    }
}

pub(super) async fn inventory(control: &Arc<Control>, host: &HostName, lldp_s: u32) -> Result<Delta, Cause> {
    let limit = Duration::from_secs(u64::from(lldp_s) + 100);
    match order(control, host, Order::Inventory { lldp_s }, limit).await {
        Ok(Report::Inventory(inventory)) => {
            let now = control.now();
            let errors = inventory.partial_errors.join("; ");
            let partial = if errors.is_empty() { String::new() } else { format!(", not readable: {errors}") };
            control.tell(host, What::Agent { message: format!("inventory taken{partial}") });
            Ok(Box::new(move |facts| {
                facts.inventory = Some(*inventory);
                facts.inventory_at = Some(now);
            }))
        }
        Ok(other) => Err(agent_cause(host, "the inventory", unexpected(&other))),
        Err(fault) => Err(agent_cause(host, "the inventory", fault)),
    }
}

/// Installs. A foreign disk is no failure of the order: the finding is recorded, and a person decides.
pub(super) async fn install(
    control: &Arc<Control>,
    host: &HostName,
    install: InstallOrder,
) -> Result<Delta, Cause> {
    let _permit = control.install_limit.acquire().await.map_err(|_| stopping())?;
    let limit = Duration::from_secs(1190);
    control.tell(host, What::Agent { message: "ordered to write the operating system".to_owned() });
    match order(control, host, Order::Install(Box::new(install)), limit).await {
        Ok(Report::Installed(report)) => {
            let message = format!(
                "operating system written to disk {}: {} chunk(s) verified, {} of zeros, {} in {} ms",
                report.disk, report.chunks_verified, report.chunks_zero, report.bytes_written, report.millis
            );
            control.tell(host, What::Agent { message });
            Ok(Box::new(move |facts| {
                facts.install = Some(*report);
                facts.finding = None;
                // A consent is used once.
                facts.consent = None;
            }))
        }
        Ok(other) => Err(agent_cause(host, "the installation", unexpected(&other))),
        Err(AgentFault::Agent(error)) if error.code == "foreign-disk" && error.finding.is_some() => {
            control.tell(host, What::Agent { message: error.sentence.clone() });
            Ok(Box::new(move |facts| {
                facts.finding = error.finding.map(|finding| *finding);
                facts.consent = None;
            }))
        }
        Err(fault) => Err(agent_cause(host, "the installation", fault)),
    }
}

/// Makes the network, and looks until every leg carries traffic: LACP takes seconds to agree.
pub(super) async fn network(
    control: &Arc<Control>,
    host: &HostName,
    wanted: HostNetwork,
    basis: Sha256,
) -> Result<Delta, Cause> {
    let doing = "making the network";
    let mut ask = Order::Network(Box::new(wanted.clone()));
    let until = tokio::time::Instant::now() + SETTLE;
    loop {
        let report = match order(control, host, ask, SHORT).await {
            Ok(Report::Network(report)) => report,
            Ok(other) => return Err(agent_cause(host, doing, unexpected(&other))),
            Err(fault) => return Err(agent_cause(host, doing, fault)),
        };
        if !report.changes.is_empty() {
            control.tell(host, What::Agent { message: format!("network: {}", report.changes.join("; ")) });
        }
        let settled = report.converged && leg_faults(&report, &wanted).is_empty();
        if settled || tokio::time::Instant::now() >= until {
            return Ok(Box::new(move |facts| {
                facts.network = Some(*report);
                facts.network_basis = Some(basis);
            }));
        }
        tokio::time::sleep(PAUSE).await;
        ask = Order::NetworkReport;
    }
}

pub(super) async fn storage(
    control: &Arc<Control>,
    host: &HostName,
    luns: Vec<LunSpec>,
    basis: Sha256,
) -> Result<Delta, Cause> {
    let doing = "connecting storage";
    let mut ask = Order::Storage(luns.clone());
    let until = tokio::time::Instant::now() + SETTLE;
    loop {
        let reports = match order(control, host, ask, SHORT * 2).await {
            Ok(Report::Storage(reports)) => reports,
            Ok(other) => return Err(agent_cause(host, doing, unexpected(&other))),
            Err(fault) => return Err(agent_cause(host, doing, fault)),
        };
        let settled =
            storage_faults(&reports, &luns).is_empty() && reports.iter().all(|r| r.problems.is_empty());
        if settled || tokio::time::Instant::now() >= until {
            let devices: Vec<_> = reports.iter().filter_map(|report| report.device.clone()).collect();
            control.tell(host, What::Agent { message: format!("storage: {}", devices.join(", ")) });
            return Ok(Box::new(move |facts| {
                facts.luns = reports;
                facts.luns_basis = Some(basis);
            }));
        }
        tokio::time::sleep(PAUSE).await;
        ask = Order::StorageReport;
    }
}

/// The elected host makes the volume group; the cluster then has it.
pub(super) async fn volume_group(
    control: &Arc<Control>,
    host: &HostName,
    storage: Name,
    wwn: Wwn,
) -> Result<Delta, Cause> {
    let (plan, _) = control.planned(host)?;
    let cluster = plan.site.host(host).map(|placed| placed.cluster.name.clone()).ok_or_else(stopping)?;
    let make = Order::VolumeGroup { storage: storage.clone(), wwn, plan_hash: plan.hash };
    order(control, host, make, SHORT * 2)
        .await
        .map_err(|fault| agent_cause(host, "making the volume group", fault))?;
    control.tell(host, What::Agent { message: format!("volume group of {storage} is there") });
    let add = move |record: &mut crate::records::ClusterRecord| {
        if !record.volume_groups.contains(&storage) {
            record.volume_groups.push(storage);
        }
    };
    control.change_cluster(&cluster, add).await.map_err(store_cause(host, "recording the volume group"))?;
    Ok(Box::new(|_| {}))
}

pub(super) async fn measure(control: &Arc<Control>, host: &HostName) -> Result<Delta, Cause> {
    match order(control, host, Order::Capacity, SHORT).await {
        Ok(Report::Capacity(capacity)) => Ok(Box::new(move |facts| facts.capacity = Some(capacity))),
        Ok(other) => Err(agent_cause(host, "measuring capacity", unexpected(&other))),
        Err(fault) => Err(agent_cause(host, "measuring capacity", fault)),
    }
}
