//! `dayzero status`.

use super::{ago, clock, table, wrap};
use dayzero_control::view::{ClusterView, Health, HostSummary, StatusView};
use dayzero_model::units::Timestamp;

/// A host's health as a word.
pub(crate) fn health(health: Health) -> &'static str {
    match health {
        Health::Working => "working",
        Health::Failed => "FAILED",
        Health::Ready => "ready",
        Health::Lost => "LOST",
    }
}

/// The site at a glance.
pub(crate) fn status(view: &StatusView) -> String {
    let Some(site) = &view.site else {
        return format!("No plan is applied yet: `dayzero apply FILE`.\n{}", rest(view));
    };
    let plan = view.plan.map(|hash| hash.to_string()).unwrap_or_default();
    let short: String = plan.chars().take(12).collect();
    let mut text = format!("Site {site}   plan {short}   {}\n", view.now);
    for rack in &view.racks {
        text.push_str(&format!("\nRack {} (pod {}, {} U)\n", rack.name, rack.pod, rack.units));
        let header = ["U", "HOST", "PHASE", "MET", "HEALTH", "SINCE", "DETAIL"];
        text.push_str(&table(&header, rack.hosts.iter().map(|host| row(host, view.now))));
    }
    text.push_str(&rest(view));
    text
}

fn row(host: &HostSummary, now: Timestamp) -> Vec<String> {
    let mut detail = host.detail.clone();
    if let Some(progress) = &host.progress {
        let share = match progress.total {
            0 => progress.done.to_string(),
            total => format!("{} %", progress.done.min(total) * 100 / total),
        };
        detail.push_str(&format!(" [{} {share}]", progress.what));
    }
    if let Some(deadline) = host.deadline.filter(|_| host.health == Health::Working) {
        detail.push_str(&format!(" (until {})", clock(deadline)));
    }
    vec![
        host.u.to_string(),
        host.name.to_string(),
        host.phase.clone(),
        format!("{}/12", host.met),
        health(host.health).to_owned(),
        ago(now, host.since),
        detail,
    ]
}

fn rest(view: &StatusView) -> String {
    let mut text = String::new();
    text.push_str("\nWhat a person must do now\n");
    if view.todo.is_empty() {
        text.push_str("  nothing\n");
    }
    for todo in &view.todo {
        let about = todo.host.as_ref().map_or("site".to_owned(), ToString::to_string);
        text.push_str(&wrap(&format!("  {about}: "), 4, &format!("{} ({})", todo.sentence, todo.code)));
        for evidence in &todo.evidence {
            text.push_str(&wrap("    - ", 6, evidence));
        }
        text.push_str(&wrap("    -> ", 7, &todo.next_action));
    }
    if !view.pending.is_empty() {
        text.push_str("\nPending: clients on the boot network that are in no plan\n");
        let rows = view.pending.iter().map(|client| {
            vec![
                client.mac.to_string(),
                client.count.to_string(),
                ago(view.now, client.last),
                client.said.clone(),
            ]
        });
        text.push_str(&table(&["MAC", "ASKED", "LAST", "SAID"], rows));
    }
    if !view.clusters.is_empty() {
        text.push_str("\nClusters\n");
        text.push_str(&table(
            &["CLUSTER", "HYPERVISOR", "JOINED", "VMS", "MEASURED CAPACITY"],
            view.clusters.iter().map(cluster),
        ));
    }
    if !view.vms.is_empty() {
        text.push_str("\nVirtual machines\n");
        text.push_str(&super::vm::list(&view.vms));
    }
    text
}

fn cluster(cluster: &ClusterView) -> Vec<String> {
    let (cpu, memory) = cluster
        .joined
        .iter()
        .fold((0, 0), |(cpu, memory), (_, capacity)| (cpu + capacity.cpu.0, memory + capacity.memory.0));
    vec![
        cluster.name.to_string(),
        text_of(&cluster.hypervisor),
        format!("{}/{}", cluster.joined.len(), cluster.hosts),
        cluster.vms.to_string(),
        format!("{cpu} MHz, {memory} MiB"),
    ]
}

/// A serialised word, such as an enum's.
pub(crate) fn text_of<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
