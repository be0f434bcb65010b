//! Wired: network and storage paths are as wanted, read back on the installed host; every leg and path is usable. On the
//! elected host the volume group is there too.

use super::{agent_or_wait, degraded};
use crate::action::Action;
use crate::cause::cause;
use crate::deadlines;
use crate::desired;
use crate::snapshot::{Outcome, Snapshot, basis};
use dayzero_model::network::{HostNetwork, NetworkReport};
use dayzero_model::storage::LunSpec;

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let (network, luns) = match (desired::network(s.site, &s.placed), desired::luns(s.site, &s.placed)) {
        (Ok(network), Ok(luns)) => (network, luns),
        (Err(cause), _) | (_, Err(cause)) => return Outcome::Failed(cause),
    };
    let network_basis = basis(&network);
    if s.facts.network_basis != Some(network_basis) {
        let work = || {
            Outcome::work(Action::ApplyNetwork(Box::new(network), network_basis), "bond, bridges and routes")
        };
        return agent_or_wait(s, true).unwrap_or_else(work);
    }
    if let Some(failed) = network_fault(s, &network) {
        return failed;
    }
    let luns_basis = basis(&luns);
    if !luns.is_empty() && s.facts.luns_basis != Some(luns_basis) {
        let work = || {
            Outcome::work(Action::ConnectStorage(luns, luns_basis), "iSCSI sessions and multipath devices")
        };
        return agent_or_wait(s, true).unwrap_or_else(work);
    }
    if let Some(failed) = storage_fault(s, &luns) {
        return failed;
    }
    if let Some(lun) = luns.first() {
        match &s.around.elected {
            None => return Outcome::wait("a host to be elected for the volume group", deadlines::OTHER_HOST),
            Some(elected) if *elected == s.placed.host.name && !s.around.volume_group => {
                let make = Action::MakeVolumeGroup { storage: lun.storage.clone(), wwn: lun.wwn.clone() };
                return agent_or_wait(s, true).unwrap_or_else(|| Outcome::work(make, "the volume group"));
            }
            Some(_) => {}
        }
    }
    Outcome::met(evidence(s, &network), &(network_basis, luns_basis))
}

/// Everything but the volume group is there: what a host needs to be elected.
pub fn paths_ready(s: &Snapshot<'_>) -> bool {
    let (Ok(network), Ok(luns)) = (desired::network(s.site, &s.placed), desired::luns(s.site, &s.placed))
    else {
        return false;
    };
    let current = s.facts.network_basis == Some(basis(&network)) && s.facts.luns_basis == Some(basis(&luns));
    current && network_fault(s, &network).is_none() && storage_fault(s, &luns).is_none()
}

/// What keeps the network from carrying traffic on every path, as sentences; empty = nothing.
pub fn leg_faults(report: &NetworkReport, wanted: &HostNetwork) -> Vec<String> {
    let Some(bond) = &report.bond else { return vec![format!("{} is not there", wanted.bond.name)] };
    let mut faults = Vec::new();
    for mac in &wanted.bond.legs {
        match bond.legs.iter().find(|leg| leg.mac == *mac) {
            None => faults.push(format!("leg {mac} is not in {}", bond.name)),
            Some(leg) if !leg.up => faults.push(format!("leg {mac} ({}) is down", leg.kernel_name)),
            Some(leg) if !leg.usable => {
                faults.push(format!("leg {mac} ({}) carries nothing", leg.kernel_name))
            }
            Some(_) => {}
        }
    }
    faults
}

fn network_fault(s: &Snapshot<'_>, wanted: &HostNetwork) -> Option<Outcome> {
    let Some(report) = &s.facts.network else { return Some(degraded(s, &["no network report".to_owned()])) };
    let faults = leg_faults(report, wanted);
    if !faults.is_empty() {
        return Some(degraded(s, &faults));
    }
    if report.converged {
        return None;
    }
    Some(Outcome::Failed(cause(
        "network-differs",
        "the network is not as wanted",
        "bond, addresses, bridges, routes and rules as the plan wants them",
        report.problems.join("; "),
        format!("correct what is named, then `dayzero host retry {}`", s.placed.host.name),
    )))
}

/// What keeps storage from being reached over every path, as sentences; empty = nothing.
pub fn storage_faults(reports: &[dayzero_model::storage::LunReport], wanted: &[LunSpec]) -> Vec<String> {
    let mut faults = Vec::new();
    for lun in wanted {
        let Some(report) = reports.iter().find(|report| report.storage.as_ref() == Some(&lun.storage)) else {
            faults.push(format!("{} is not connected", lun.storage));
            continue;
        };
        for path in &lun.paths {
            let active = report.paths.iter().any(|state| state.portal == path.portal && state.active);
            if !active {
                faults.push(format!("path of {} to {} is not active", lun.storage, path.portal));
            }
        }
    }
    faults
}

fn storage_fault(s: &Snapshot<'_>, wanted: &[LunSpec]) -> Option<Outcome> {
    let faults = storage_faults(&s.facts.luns, wanted);
    if !faults.is_empty() {
        return Some(degraded(s, &faults));
    }
    let problems: Vec<_> = s.facts.luns.iter().flat_map(|lun| lun.problems.clone()).collect();
    if problems.is_empty() {
        return None;
    }
    Some(Outcome::Failed(cause(
        "storage-differs",
        "the storage is not as wanted",
        "one multipath device a LUN, found by its WWN",
        problems.join("; "),
        format!("correct what is named, then `dayzero host retry {}`", s.placed.host.name),
    )))
}

fn evidence(s: &Snapshot<'_>, network: &HostNetwork) -> String {
    let bond = s.facts.network.as_ref().and_then(|report| report.bond.as_ref());
    let mode = bond.map_or_else(String::new, |bond| bond.mode.clone());
    let partner =
        bond.and_then(|bond| bond.partner).map_or_else(String::new, |mac| format!(", LACP partner {mac}"));
    let paths: usize = s.facts.luns.iter().map(|lun| lun.paths.len()).sum();
    let devices: Vec<_> = s.facts.luns.iter().filter_map(|lun| lun.device.clone()).collect();
    let storage = if devices.is_empty() {
        String::new()
    } else {
        format!("; {paths} path(s) to {}", devices.join(", "))
    };
    format!(
        "{} {mode} with {} legs{partner}; {}{storage}",
        network.bond.name,
        network.bond.legs.len(),
        network.management
    )
}
