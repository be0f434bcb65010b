//! Inventoried: the agent reported its hardware, and that does not contradict the plan's identity.

use super::{agent_or_wait, identified};
use crate::action::Action;
use crate::snapshot::{Outcome, Snapshot};

/// Longest listening for LLDP: the standard's interval of 30 s would cost more than it finds, switches of a plan are
/// set to a short one; a NIC that heard nothing is named by `Cabled`.
pub const LLDP_SECONDS: u32 = 12;

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let host = s.placed.host;
    let Some(inventory) = &s.facts.inventory else {
        let installed = s.facts.agent.as_ref().is_some_and(|agent| agent.connected && agent.installed);
        return match agent_or_wait(s, installed) {
            Some(wait) => wait,
            None => Outcome::work(Action::Inventory { lldp_s: LLDP_SECONDS }, "the agent's inventory"),
        };
    };
    let system = &inventory.system;
    if let Err(cause) =
        identified::compare(host, system.serial.as_deref(), system.uuid.as_deref(), "the host")
    {
        return Outcome::Failed(cause);
    }
    let (cpu, disks, nics) = (&inventory.cpu, inventory.disks.len(), inventory.nics.len());
    let evidence = format!(
        "{} socket(s), {} thread(s), {}, {} DIMM(s), {disks} disk(s), {nics} NIC(s), booted by {:?}",
        cpu.sockets,
        cpu.threads,
        inventory.memory,
        inventory.dimms.len(),
        inventory.boot_mode
    );
    Outcome::met(evidence, &(&inventory.system, &inventory.dimms, disks, nics, &host.serial, &host.uuid))
}
