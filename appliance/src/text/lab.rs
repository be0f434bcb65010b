//! `dayzero lab status`.

use super::status::text_of;
use super::table;
use dayzero_rehearsal::protocol::LabStatus;

/// The rack as it is.
pub(crate) fn status(lab: &LabStatus) -> String {
    let mut text = format!("Virtual rack, daemon {}\n\n", lab.pid);
    let hosts = lab.hosts.iter().map(|host| {
        let mut armed = Vec::new();
        if host.pxe_once {
            armed.push("network boot once");
        }
        if host.media {
            armed.push("virtual medium");
        }
        vec![
            host.name.to_string(),
            text_of(&host.power),
            text_of(&host.firmware),
            host.bmc.to_string(),
            armed.join(", "),
        ]
    });
    text.push_str(&table(&["HOST", "POWER", "FIRMWARE", "BMC", "ARMED"], hosts));
    text.push('\n');
    let mut rows = Vec::new();
    for host in &lab.hosts {
        for (number, nic) in host.nics.iter().enumerate() {
            rows.push(vec![
                host.name.to_string(),
                number.to_string(),
                nic.mac.to_string(),
                format!("{}/{}", nic.switch, nic.port),
                if nic.pulled { "PULLED" } else { "plugged" }.to_owned(),
                text_of(&nic.forwarding),
                nic.received.to_string(),
                nic.sent.to_string(),
                nic.dropped.to_string(),
            ]);
        }
    }
    text.push_str(&table(&["HOST", "NIC", "MAC", "PORT", "CABLE", "FORWARDS", "FROM", "TO", "LOST"], rows));
    let dead: Vec<&str> =
        lab.switches.iter().filter(|switch| !switch.alive).map(|s| s.name.as_str()).collect();
    let switches = if dead.is_empty() { "all work".to_owned() } else { format!("dead: {}", dead.join(", ")) };
    text.push_str(&format!("\nSwitches: {switches}\n"));
    if let Some(appliance) = &lab.appliance {
        let nics: Vec<String> =
            appliance.nics.iter().map(|nic| format!("{} {}", nic.mac, nic.address)).collect();
        text.push_str(&format!("Appliance: {}; {}\n", text_of(&appliance.power), nics.join(", ")));
    }
    for extra in &lab.extras {
        text.push_str(&format!(
            "Not in the plan: {} {} ({})\n",
            extra.name,
            extra.mac,
            text_of(&extra.power)
        ));
    }
    for service in lab.services.iter().filter(|service| !service.running) {
        text.push_str(&format!("NOT RUNNING: {}\n", service.name));
    }
    text
}
