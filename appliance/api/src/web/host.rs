//! A host's page: conditions with evidence, the cause and what to do, hardware, network, storage, proof, timeline.

use super::overview::{Bar, bar, health, word};
use super::{Chrome, Line, lines, problem_page, render, span};
use crate::extract::Segment;
use crate::{Api, Identity};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use dayzero_control::view::{HostView, state_text};
use dayzero_model::condition::{Cause, ConditionRecord, State as Condition};
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::HostName;
use dayzero_model::install::DiskFinding;
use dayzero_model::inventory::Inventory;
use dayzero_model::proof::{Break, Probe, ProofReport, Trial};
use dayzero_model::units::Timestamp;
use std::sync::Arc;

/// Events on the page.
const EVENTS: usize = 200;

#[derive(Template)]
#[template(path = "host.html")]
struct HostPage {
    chrome: Chrome,
    view: HostView,
    health: &'static str,
    glyph: &'static str,
    hypervisor: String,
    progress: Option<Bar>,
    cause: Option<Cause>,
    finding: Option<Finding>,
    conditions: Vec<Row>,
    identity: Vec<(&'static str, String)>,
    nics: Vec<[String; 5]>,
    disks: Vec<[String; 5]>,
    network: Vec<(&'static str, String)>,
    legs: Vec<[String; 4]>,
    paths: Vec<[String; 6]>,
    proof: Option<ProofReport>,
    trials: Vec<TrialRow>,
    timeline: Vec<Line>,
}

struct Finding {
    serial: String,
    digest: String,
}

struct Row {
    name: String,
    state: &'static str,
    glyph: &'static str,
    detail: String,
    took: String,
    running: Option<Timestamp>,
}

struct TrialRow {
    held: bool,
    cells: [String; 8],
}

fn row(record: &ConditionRecord, now: Timestamp) -> Row {
    let (state, detail) = state_text(&record.state);
    let (glyph, took, running) = match (&record.state, record.began) {
        (Condition::Unmet, _) => ("○", String::new(), None),
        (Condition::Working { .. }, began) => {
            let began = began.unwrap_or(record.since);
            ("◐", span(now.since(began).0), Some(began))
        }
        (Condition::Met { .. }, began) => ("●", took(began, record.since), None),
        (Condition::Failed(_), began) => ("▲", took(began, record.since), None),
    };
    Row { name: record.condition.to_string(), state, glyph, detail, took, running }
}

fn took(began: Option<Timestamp>, ended: Timestamp) -> String {
    began.map_or_else(String::new, |began| span(ended.since(began).0))
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

fn identity(facts: &HostFacts) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(bmc) = &facts.bmc {
        let power = if bmc.power_on { "power on" } else { "power off" };
        rows.push(("BMC", format!("{} by {}, {power}", bmc.address, word(&bmc.protocol))));
        rows.push(("System", [text(&bmc.manufacturer), text(&bmc.model)].join(" ").trim().to_owned()));
        rows.push(("Serial", text(&bmc.serial)));
        rows.push(("UUID", text(&bmc.uuid)));
        rows.push(("BMC credential", word(&facts.credential)));
    }
    if let Some(vouch) = &facts.vouch {
        rows.push(("Vouched", format!("by {}, key {}", vouch.channel, short(&vouch.key.to_string()))));
    }
    if !facts.refused_keys.is_empty() {
        let why: Vec<&str> = facts.refused_keys.iter().map(|key| key.reason.as_str()).collect();
        rows.push(("Refused keys", format!("{}: {}", facts.refused_keys.len(), why.join("; "))));
    }
    if let Some(inventory) = &facts.inventory {
        rows.extend(hardware(inventory));
    }
    if let Some(capacity) = &facts.capacity {
        rows.push((
            "Capacity",
            format!("{} threads, {}, {} for VMs", capacity.threads, capacity.cpu, capacity.memory),
        ));
    }
    rows.retain(|(_, value)| !value.is_empty());
    rows
}

fn hardware(inventory: &Inventory) -> Vec<(&'static str, String)> {
    let cpu = &inventory.cpu;
    let firmware = &inventory.firmware;
    vec![
        (
            "CPU",
            format!(
                "{} × {}, {} cores, {} threads, {}",
                cpu.sockets,
                cpu.model,
                cpu.cores,
                cpu.threads,
                text(&cpu.virtualization)
            ),
        ),
        ("Memory", format!("{} in {} modules", inventory.memory, inventory.dimms.len())),
        (
            "Firmware",
            format!(
                "{} {} ({})",
                text(&firmware.vendor),
                text(&firmware.version),
                word(&inventory.boot_mode)
            ),
        ),
        ("Kernel", inventory.kernel.clone()),
        ("Not readable", inventory.partial_errors.join("; ")),
    ]
}

fn short(hash: &str) -> String {
    hash.chars().take(16).collect()
}

fn nics(inventory: &Inventory) -> Vec<[String; 5]> {
    let neighbour = |mac| inventory.neighbours.iter().find(|neighbour| neighbour.nic_mac == mac);
    let row = |nic: &dayzero_model::inventory::Nic| {
        let link = match (nic.link, nic.speed_mbit) {
            (true, Some(speed)) => format!("up, {speed} Mbit/s"),
            (true, None) => "up".to_owned(),
            (false, _) => "down".to_owned(),
        };
        let heard =
            neighbour(nic.mac).map_or_else(|| "–".to_owned(), |n| format!("{}/{}", n.system_name, n.port_id));
        [nic.kernel_name.clone(), nic.mac.to_string(), text(&nic.driver), link, heard]
    };
    inventory.nics.iter().map(row).collect()
}

fn disks(inventory: &Inventory) -> Vec<[String; 5]> {
    let row = |disk: &dayzero_model::inventory::Disk| {
        let wwn = disk.wwn.as_ref().map(ToString::to_string).unwrap_or_default();
        let holds =
            if disk.signatures.is_empty() { "nothing".to_owned() } else { disk.signatures.join(", ") };
        [disk.kernel_name.clone(), disk.size.to_string(), text(&disk.serial), wwn, holds]
    };
    inventory.disks.iter().map(row).collect()
}

fn network(facts: &HostFacts) -> Vec<(&'static str, String)> {
    let Some(network) = &facts.network else { return Vec::new() };
    let mut rows = vec![("State", if network.converged { "as wanted" } else { "not as wanted" }.to_owned())];
    if let Some(bond) = &network.bond {
        let partner = bond.partner.map_or_else(String::new, |partner| format!(", LACP partner {partner}"));
        let active = bond.active.map_or_else(String::new, |active| format!(", active {active}"));
        rows.push(("Bond", format!("{} {}{partner}{active}", bond.name, bond.mode)));
    }
    rows.push(("Addresses", network.addresses.join(", ")));
    rows.push(("Storage routes", network.storage_routes.join("; ")));
    rows.push(("Problems", network.problems.join("; ")));
    rows.push(("Foreign links", network.foreign.join(", ")));
    rows.retain(|(_, value)| !value.is_empty());
    rows
}

fn legs(facts: &HostFacts) -> Vec<[String; 4]> {
    let bond = facts.network.as_ref().and_then(|network| network.bond.as_ref());
    let yes = |is: bool, word: &str| if is { word.to_owned() } else { "no".to_owned() };
    let row = |leg: &dayzero_model::network::LegState| {
        [leg.kernel_name.clone(), leg.mac.to_string(), yes(leg.up, "up"), yes(leg.usable, "yes")]
    };
    bond.map(|bond| bond.legs.iter().map(row).collect()).unwrap_or_default()
}

fn paths(facts: &HostFacts) -> Vec<[String; 6]> {
    let mut rows = Vec::new();
    for lun in &facts.luns {
        let name = lun.storage.as_ref().map(ToString::to_string).unwrap_or_default();
        let device = lun.device.clone().unwrap_or_else(|| "no device".to_owned());
        for path in &lun.paths {
            let state = if path.active { "● active" } else { "▲ not active" };
            rows.push([
                name.clone(),
                device.clone(),
                lun.size.to_string(),
                path.kernel_name.clone(),
                path.portal.to_string(),
                state.to_owned(),
            ]);
        }
        if lun.paths.is_empty() {
            let problem = lun.problems.join("; ");
            rows.push([name, device, lun.size.to_string(), "–".to_owned(), "–".to_owned(), problem]);
        }
    }
    rows
}

fn trial(trial: &Trial) -> TrialRow {
    let how = match trial.how {
        Break::Cable => "cable pulled",
        Break::DeadSwitch => "dead switch",
    };
    let (probe, counted) = match trial.probe {
        Probe::Ping => ("pings", format!("{} sent, {} lost", trial.sent, trial.lost)),
        Probe::Writer => (
            "writer",
            format!(
                "{} blocks, {} errors, {} wrong of {} read",
                trial.sent, trial.lost, trial.wrong_blocks, trial.read_back
            ),
        ),
    };
    let back = trial.recovered.map_or_else(|| "–".to_owned(), |ms| ms.to_string());
    let cells = [
        trial.path.to_string(),
        how.to_owned(),
        probe.to_owned(),
        trial.gap.to_string(),
        trial.bound.to_string(),
        trial.bound_is.clone(),
        counted,
        back,
    ];
    TrialRow { held: trial.held, cells }
}

/// The finding that a person may consent to: shown, and not consented to yet.
fn finding(facts: &HostFacts) -> Option<Finding> {
    let open =
        |found: &&DiskFinding| facts.consent.as_ref().is_none_or(|consent| consent.finding != found.digest);
    let found = facts.finding.as_ref().filter(open)?;
    let serial = found.serial.clone().or_else(|| found.wwn.as_ref().map(ToString::to_string))?;
    Some(Finding { serial, digest: found.digest.to_string() })
}

pub(crate) async fn page(
    State(api): State<Arc<Api>>,
    identity_: Identity,
    Segment(host): Segment<HostName>,
) -> Response {
    let view = match api.service.host(&host, EVENTS).await {
        Ok(view) => view,
        Err(error) => return problem_page(&api, &identity_, error.into()).await,
    };
    let chrome = Chrome::new(&api, &identity_, host.as_str()).await;
    let facts = &view.facts;
    let (health, glyph) = health(view.summary.health);
    let failed = view.conditions.iter().find_map(|record| match &record.state {
        Condition::Failed(cause) => Some(cause.clone()),
        _ => None,
    });
    let inventory = facts.inventory.as_ref();
    let page = HostPage {
        health,
        glyph,
        hypervisor: word(&view.hypervisor),
        progress: view.summary.progress.as_ref().map(bar),
        finding: failed.as_ref().and_then(|_| finding(facts)),
        cause: failed,
        conditions: view.conditions.iter().map(|record| row(record, chrome.now)).collect(),
        identity: identity(facts),
        nics: inventory.map(nics).unwrap_or_default(),
        disks: inventory.map(disks).unwrap_or_default(),
        network: network(facts),
        legs: legs(facts),
        paths: paths(facts),
        trials: facts.proof.iter().flat_map(|proof| &proof.trials).map(trial).collect(),
        proof: facts.proof.clone(),
        timeline: lines(&view.timeline),
        chrome,
        view,
    };
    render(&page)
}
