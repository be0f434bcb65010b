//! Cabled: each NIC hears, by LLDP, the switch port that the plan names.

use crate::cause::cause;
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::ids::MacAddr;
use dayzero_model::inventory::Neighbour;

/// The newest neighbour of a NIC: what the running network hears goes before the inventory.
fn neighbour<'a>(s: &'a Snapshot<'_>, mac: MacAddr) -> Option<&'a Neighbour> {
    let running = s.facts.network.iter().flat_map(|network| &network.neighbours);
    let taken = s.facts.inventory.iter().flat_map(|inventory| &inventory.neighbours);
    running.chain(taken).find(|neighbour| neighbour.nic_mac == mac)
}

fn linked(s: &Snapshot<'_>, mac: MacAddr) -> bool {
    s.facts.inventory.iter().flat_map(|inventory| &inventory.nics).any(|nic| nic.mac == mac && nic.link)
}

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let host = s.placed.host;
    let (mut moves, mut silent, mut seen, mut rests_on) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut expected = Vec::new();
    for (role, mac, port) in host.nics() {
        expected.push(format!("{role} at {port}"));
        let heard = neighbour(s, mac).map(|n| format!("{}/{}", n.system_name, n.port_id));
        match heard {
            Some(heard) if heard == port.to_string() => rests_on.push((mac, heard)),
            Some(heard) => {
                moves.push(format!("move the cable of {role} from {heard} to {port}"));
                seen.push(format!("{role} at {heard}"));
            }
            None if linked(s, mac) => silent.push(format!("{role} ({mac}) has a link but hears no LLDP")),
            None => silent.push(format!("{role} ({mac}) has no link")),
        }
    }
    let retry = format!("then `dayzero host retry {}`", host.name);
    if !moves.is_empty() {
        seen.extend(silent);
        let swapped = cause(
            "cable-swapped",
            format!("{} cable(s) end elsewhere than planned", moves.len()),
            expected.join(", "),
            seen.join(", "),
            format!("{}, {retry}", moves.join(", ")),
        );
        return Outcome::Failed(swapped);
    }
    if !silent.is_empty() {
        let unknown = cause(
            "cable-unknown",
            format!("{} cable(s) could not be verified", silent.len()),
            expected.join(", "),
            silent.join(", "),
            format!("plug the named cables in, and switch LLDP on at their ports, {retry}"),
        );
        return Outcome::Failed(unknown);
    }
    Outcome::met(format!("LLDP shows {}", expected.join(", ")), &rests_on)
}
