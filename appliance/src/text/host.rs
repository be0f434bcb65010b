//! `dayzero host show` and `dayzero prove`.

use super::status::{health, text_of};
use super::{ago, table, wrap};
use dayzero_control::view::{HostView, state_text};
use dayzero_model::boot::AgentCheck;
use dayzero_model::condition::State;
use dayzero_model::facts::HostFacts;
use dayzero_model::inventory::Inventory;
use dayzero_model::proof::{Break, Probe, ProofReport};
use dayzero_model::units::Timestamp;
use dayzero_trust::Credential;

/// All of one host.
pub(crate) fn host(view: &HostView) -> String {
    let summary = &view.summary;
    let now = view.timeline.last().map_or(summary.since, |event| event.at.max(summary.since));
    let mut text = format!(
        "Host {}   rack {} U{}   cluster {}   {}   {} ({}/12 met)\n",
        summary.name,
        summary.rack,
        summary.u,
        summary.cluster,
        text_of(&view.hypervisor),
        health(summary.health),
        summary.met
    );
    text.push_str(&wrap(&format!("{}: ", summary.phase), 2, &summary.detail));
    text.push_str(&conditions(view, now));
    text.push_str(&facts(&view.facts));
    text.push_str("\nTimeline\n");
    if view.timeline_text.is_empty() {
        text.push_str("  nothing yet\n");
    }
    for line in &view.timeline_text {
        text.push_str(&wrap("  ", 6, line));
    }
    text
}

fn conditions(view: &HostView, now: Timestamp) -> String {
    let mut text = "\nConditions\n".to_owned();
    let mut remedies = String::new();
    let rows = view.conditions.iter().map(|record| {
        let (state, detail) = state_text(&record.state);
        let took = match (record.began, &record.state) {
            (Some(began), State::Met { .. } | State::Failed(_)) => ago(record.since, began),
            (Some(began), State::Working { .. }) => ago(now, began),
            _ => String::new(),
        };
        if let State::Failed(cause) = &record.state {
            remedies.push_str(&wrap("  expected: ", 12, &cause.expected));
            remedies.push_str(&wrap("  observed: ", 12, &cause.observed));
            remedies.push_str(&wrap("  -> ", 5, &cause.next_action));
        }
        vec![record.condition.to_string(), state.to_owned(), took, detail]
    });
    text.push_str(&table(
        &["CONDITION", "STATE", "TOOK", "EVIDENCE, OR WHAT IT WAITS FOR"],
        rows.collect::<Vec<_>>(),
    ));
    text.push_str(&remedies);
    text
}

fn facts(facts: &HostFacts) -> String {
    let mut text = String::new();
    if let Some(bmc) = &facts.bmc {
        let power = if bmc.power_on { "power on" } else { "power off" };
        let said = [&bmc.manufacturer, &bmc.model, &bmc.serial].map(|part| part.clone().unwrap_or_default());
        text.push_str(&format!(
            "\nBMC {} ({}), {power}: {}\n",
            bmc.address,
            text_of(&bmc.protocol),
            said.join(" ")
        ));
    }
    text.push_str(&secure_boot(facts));
    if let Some(held) = facts.bmc.as_ref().and_then(|bmc| bmc.https_boot) {
        let held = if held { "holds" } else { "does not hold" };
        text.push_str(&format!("HTTPS boot: its firmware {held} the site's authority\n"));
    }
    if let Some(inventory) = &facts.inventory {
        text.push_str(&hardware(inventory));
    }
    if let Some(finding) = &facts.finding {
        let serial = finding.serial.clone().unwrap_or_default();
        text.push_str(&wrap(&format!("\nForeign disk {serial}: "), 2, &finding.found.join("; ")));
        text.push_str(&wrap("  finding ", 4, &finding.digest.to_string()));
    }
    if let Some(network) = &facts.network {
        let converged = if network.converged { "as wanted" } else { "not as wanted" };
        text.push_str(&format!("\nNetwork: {converged}; {}\n", network.addresses.join(", ")));
        if let Some(bond) = &network.bond {
            let legs = bond.legs.iter().map(|leg| {
                format!("{} {}{}", leg.kernel_name, leg.mac, if leg.usable { "" } else { " (not usable)" })
            });
            text.push_str(&wrap(
                &format!("  {} {}: ", bond.name, bond.mode),
                4,
                &legs.collect::<Vec<_>>().join(", "),
            ));
        }
        for problem in &network.problems {
            text.push_str(&wrap("  ! ", 4, problem));
        }
    }
    for lun in &facts.luns {
        let name = lun.storage.as_ref().map_or_else(String::new, ToString::to_string);
        let device = lun.device.clone().unwrap_or_else(|| "no device".to_owned());
        let paths = lun.paths.iter().map(|path| {
            format!(
                "{} by {}{}",
                path.kernel_name,
                path.portal,
                if path.active { "" } else { " (not active)" }
            )
        });
        text.push_str(&wrap(
            &format!("Storage {name} {device} {}: ", lun.size),
            2,
            &paths.collect::<Vec<_>>().join(", "),
        ));
        for problem in &lun.problems {
            text.push_str(&wrap("  ! ", 4, problem));
        }
    }
    if let Some(report) = &facts.proof {
        text.push('\n');
        text.push_str(&proof(report));
    }
    text
}

/// Whether Secure Boot is on, and what it said of the agent.
pub(super) fn secure_boot(facts: &HostFacts) -> String {
    let told = facts.bmc.as_ref().and_then(|bmc| bmc.secure_boot).map(|told| {
        let enforced = if told.enforced { "enforced" } else { "not enforced" };
        let key = match told.site_key {
            Some(true) => ", the site's key is in its database",
            Some(false) => ", the site's key is not in its database",
            None => "",
        };
        format!("{enforced}{key}")
    });
    let agent = facts.agent_check.map(|check| match check {
        AgentCheck::Signature => "agent verified by the site's signature",
        AgentCheck::KernelOnly => "AGENT UNVERIFIED: nothing checked the initial RAM disk that it came in",
    });
    if told.is_none() && agent.is_none() {
        return String::new();
    }
    let parts: Vec<&str> = told.as_deref().into_iter().chain(agent).collect();
    wrap("Secure Boot: ", 2, &parts.join("; "))
}

fn hardware(inventory: &Inventory) -> String {
    let cpu = &inventory.cpu;
    let mut text = format!(
        "\nHardware: {}, {} x {} ({} threads), {}, {} boot\n",
        inventory.system.product.clone().unwrap_or_default(),
        cpu.sockets,
        cpu.model,
        cpu.threads,
        inventory.memory,
        text_of(&inventory.boot_mode)
    );
    let disks = inventory.disks.iter().map(|disk| {
        let wwn = disk.wwn.as_ref().map(ToString::to_string).unwrap_or_default();
        vec![disk.kernel_name.clone(), disk.size.to_string(), disk.serial.clone().unwrap_or_default(), wwn]
    });
    text.push_str(&table(&["DISK", "SIZE", "SERIAL", "WWN"], disks));
    let nics = inventory.nics.iter().map(|nic| {
        let link = if nic.link { "up" } else { "down" };
        let heard = inventory.neighbours.iter().find(|neighbour| neighbour.nic_mac == nic.mac);
        let heard = heard.map_or_else(String::new, |n| format!("{}/{}", n.system_name, n.port_id));
        let slot = nic.slot.clone().unwrap_or_default();
        vec![
            nic.kernel_name.clone(),
            nic.mac.to_string(),
            slot,
            nic.driver.clone().unwrap_or_default(),
            link.to_owned(),
            heard,
        ]
    });
    text.push_str(&table(&["NIC", "MAC", "SLOT", "DRIVER", "LINK", "LLDP"], nics));
    text
}

/// A BMC's logins, the likeliest first; the one place where a password is printed, since that was asked for.
pub(crate) fn credentials(known: &[Credential]) -> String {
    known.iter().map(|login| format!("{} {}\n", login.user, login.password.expose())).collect()
}

/// A proof's trials, each bound with its arithmetic.
pub(crate) fn proof(report: &ProofReport) -> String {
    let verdict = if report.held { "held" } else { "DID NOT HOLD" };
    let mut text = format!("Proof of {}: {verdict}\n", report.started);
    if let Some(refused) = &report.refused {
        text.push_str(&wrap("  ", 2, refused));
    }
    if report.trials.is_empty() {
        return text;
    }
    let row = |trial: &dayzero_model::proof::Trial| {
        let how = match trial.how {
            Break::Cable => "cable",
            Break::DeadSwitch => "dead switch",
        };
        let counts = match trial.probe {
            Probe::Ping => format!("{} pings, {} lost", trial.sent, trial.lost),
            Probe::Writer => {
                format!(
                    "{} blocks, {} errors, {} wrong of {}",
                    trial.sent, trial.lost, trial.wrong_blocks, trial.read_back
                )
            }
        };
        vec![
            trial.path.to_string(),
            how.to_owned(),
            format!("{} / {}", trial.gap, trial.bound),
            trial.bound_is.clone(),
            counts,
            trial.recovered.map_or_else(|| "-".to_owned(), |ms| ms.to_string()),
            if trial.held { "held" } else { "NO" }.to_owned(),
        ]
    };
    text.push_str(&table(
        &["PATH", "BROKEN BY", "GAP / BOUND", "BOUND IS", "COUNTED", "BACK IN", ""],
        report.trials.iter().map(row),
    ));
    text
}
