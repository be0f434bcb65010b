//! Imaged: the operating system is on the planned disk, verified, and the host started from there, and will again: as
//! the running system reads it of itself.

use super::agent_or_wait;
use crate::action::Action;
use crate::cause::{cause, foreign_disk};
use crate::deadlines;
use crate::desired;
use crate::snapshot::{Outcome, Snapshot};
use crate::started;
use dayzero_model::install::{DiskConsent, InstallOrder, Personality};

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let facts = s.facts;
    let Some(install) = &facts.install else { return install_first(s) };
    let running = facts.agent.as_ref().filter(|agent| agent.connected);
    if let (Some(_), Some(report)) = (facts.boot_order_at, &facts.started) {
        let started = match started::judge(&s.placed.host.name, install, report) {
            Ok(started) => started,
            Err(cause) => return Outcome::Failed(cause),
        };
        let bmc = match facts.boot_order.as_slice() {
            [] => "the BMC cannot tell the order".to_owned(),
            order => format!("the BMC shows {}", order.join(", ")),
        };
        let (chunks, disk) = (install.chunks_verified, &install.disk);
        let evidence = format!("{chunks} chunk(s) verified on disk {disk}; {started}; {bmc}");
        let basis = (disk, &install.disk_guid, &install.machine_id, &report.order, &facts.boot_order);
        return Outcome::met(evidence, &basis);
    }
    match running {
        Some(agent) if agent.installed => {
            Outcome::work(Action::ReadBootOrder, "how it was started, and the boot order, to be read back")
        }
        Some(_) => Outcome::work(Action::RebootToDisk, "the restart from disk"),
        None => Outcome::wait("the installed system to start and its agent to connect", deadlines::DISK_BOOT),
    }
}

fn install_first(s: &Snapshot<'_>) -> Outcome {
    let (host, facts) = (&s.placed.host.name, s.facts);
    let consent = match &facts.finding {
        None => None,
        Some(finding) => {
            let fits = |consent: &&DiskConsent| consent.finding == finding.digest && consent.host == *host;
            match facts.consent.as_ref().filter(fits) {
                None => return Outcome::Failed(foreign_disk(host, finding)),
                fitting => fitting.cloned(),
            }
        }
    };
    if let Some(wait) = agent_or_wait(s, false) {
        return wait;
    }
    let Some(manifest_sha256) = s.around.manifest_sha256 else {
        return Outcome::Failed(cause(
            "no-image",
            "there is no host image to install",
            format!("a manifest behind {}", s.around.manifest_url),
            "the images directory holds none",
            format!("build it (`cargo xtask images`), then `dayzero host retry {host}`"),
        ));
    };
    let network = match desired::network(s.site, &s.placed) {
        Ok(network) => network,
        Err(cause) => return Outcome::Failed(cause),
    };
    let order = InstallOrder {
        plan_hash: s.plan_hash,
        disk: s.placed.host.os_disk.clone(),
        consent,
        manifest_url: s.around.manifest_url.clone(),
        manifest_sha256,
        chunks_url: s.around.chunks_url.clone(),
        personality: Personality {
            host: host.clone(),
            domain: s.site.domain.clone(),
            agent_server: s.around.agent_server,
            network,
        },
    };
    Outcome::work(Action::Install(Box::new(order)), "the operating system to be written and verified")
}
