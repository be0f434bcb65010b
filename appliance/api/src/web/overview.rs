//! The first page: racks drawn with their units, hosts, what a person must do, VMs, clusters, pending clients.

use super::{Chrome, problem_page, render};
use crate::{Api, Identity};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use dayzero_control::view::{ClusterView, Health, HostSummary, Progress, RackView, StatusView};
use dayzero_model::vm::{Vm, VmState};
use std::sync::Arc;

/// Height of one rack unit in the drawing.
const UNIT: u32 = 13;
/// Most characters of a host's name and of its phase in the drawing.
const NAME: usize = 22;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    chrome: Chrome,
    tally: Tally,
    racks: Vec<Rack>,
    vms: Vec<VmRow>,
    clusters: Vec<ClusterRow>,
    status: StatusView,
}

#[derive(Default)]
struct Tally {
    ready: usize,
    working: usize,
    failed: usize,
    lost: usize,
}

struct Rack {
    name: String,
    pod: String,
    height: u8,
    svg_height: u32,
    slots: Vec<Slot>,
    units: Vec<Unit>,
}

struct Slot {
    u: u8,
    y: u32,
    text_y: u32,
    height: u32,
}

struct Unit {
    host: HostSummary,
    health: &'static str,
    glyph: &'static str,
    steps: Vec<bool>,
    progress: Option<Bar>,
    short_name: String,
    label: String,
    y: u32,
    text_y: u32,
    height: u32,
}

/// Progress in percent.
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) percent: u64,
    pub(crate) text: String,
}

struct VmRow {
    health: &'static str,
    state: String,
    vm: Vm,
}

struct ClusterRow {
    name: String,
    hypervisor: String,
    joined: usize,
    hosts: usize,
    vms: usize,
    capacity: String,
}

/// Health as a word (also a CSS class) and a sign, so that colour is never alone.
pub(crate) fn health(health: Health) -> (&'static str, &'static str) {
    match health {
        Health::Working => ("working", "◐"),
        Health::Failed => ("failed", "▲"),
        Health::Ready => ("ready", "●"),
        Health::Lost => ("lost", "✕"),
    }
}

pub(crate) fn bar(progress: &Progress) -> Bar {
    let what = progress.what.clone();
    if progress.total == 0 {
        return Bar { text: format!("{what}: {}", progress.done), what, percent: 0 };
    }
    let percent = progress.done.min(progress.total).saturating_mul(100) / progress.total;
    Bar { text: format!("{what}, {percent} %"), what, percent }
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(most - 1).collect::<String>())
}

/// A serialised word, such as an enum's.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn top(height: u8, u: u8) -> u32 {
    3 + u32::from(height.saturating_sub(u)) * UNIT
}

fn rack(rack: RackView) -> Rack {
    let height = rack.units;
    let slot = |u: u8| Slot { u, y: top(height, u), text_y: top(height, u) + 9, height: UNIT - 1 };
    let unit = |host: HostSummary| {
        let (health, glyph) = health(host.health);
        let progress = host.progress.as_ref().map(bar);
        let label = match &progress {
            Some(bar) if bar.percent > 0 => format!("{} {} %", host.phase, bar.percent),
            _ => host.phase.clone(),
        };
        Unit {
            health,
            glyph,
            steps: (0..12).map(|step| step < host.met).collect(),
            progress,
            short_name: short(host.name.as_str(), NAME),
            label: short(&label, NAME),
            y: top(height, host.u),
            text_y: top(height, host.u) + 9,
            height: UNIT - 1,
            host,
        }
    };
    Rack {
        name: rack.name.to_string(),
        pod: rack.pod.to_string(),
        height,
        svg_height: u32::from(height) * UNIT + 5,
        slots: (1..=height).rev().map(slot).collect(),
        units: rack.hosts.into_iter().map(unit).collect(),
    }
}

fn vm(vm: &Vm) -> VmRow {
    let health = match vm.state {
        VmState::Running => "ready",
        VmState::Requested | VmState::Preparing | VmState::Starting => "working",
        VmState::Failed => "failed",
        VmState::Lost => "lost",
        VmState::Stopped => "unmet",
    };
    VmRow { health, state: word(&vm.state), vm: vm.clone() }
}

fn cluster(cluster: &ClusterView) -> ClusterRow {
    let sum = cluster
        .joined
        .iter()
        .fold((0, 0), |(cpu, memory), (_, capacity)| (cpu + capacity.cpu.0, memory + capacity.memory.0));
    ClusterRow {
        name: cluster.name.to_string(),
        hypervisor: word(&cluster.hypervisor),
        joined: cluster.joined.len(),
        hosts: cluster.hosts,
        vms: cluster.vms,
        capacity: format!("{} MHz, {} MiB", sum.0, sum.1),
    }
}

pub(crate) async fn page(State(api): State<Arc<Api>>, identity: Identity) -> Response {
    let mut status = match api.service.status().await {
        Ok(status) => status,
        Err(error) => return problem_page(&api, &identity, error.into()).await,
    };
    let mut chrome = Chrome::new(&api, &identity, "Overview").await;
    chrome.now = status.now;
    let mut tally = Tally::default();
    for host in status.racks.iter().flat_map(|rack| &rack.hosts) {
        match host.health {
            Health::Ready => tally.ready += 1,
            Health::Working => tally.working += 1,
            Health::Failed => tally.failed += 1,
            Health::Lost => tally.lost += 1,
        }
    }
    let racks = std::mem::take(&mut status.racks).into_iter().map(rack).collect();
    let vms = status.vms.iter().map(vm).collect();
    let clusters = status.clusters.iter().map(cluster).collect();
    render(&Overview { chrome, tally, racks, vms, clusters, status })
}
