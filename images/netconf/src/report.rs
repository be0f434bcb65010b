//! Makes the network as wanted, reads it back, and says so.

use crate::apply::apply;
use crate::bond::bond_state;
use crate::error::NetError;
use crate::foreign;
use crate::observe::observe;
use crate::observed::Observed;
use crate::plan::{MAIN, Plan};
use dayzero_model::network::{HostNetwork, NetworkReport};

/// Passes at most: deleting an address or a link takes routes along that only the next look shows.
const PASSES: usize = 3;

/// Makes the network so and reads it back. Idempotent: on a network as wanted it changes nothing, and
/// [`NetworkReport::changes`] is empty. Never fails as a whole: what failed stands in [`NetworkReport::problems`].
/// LACP takes seconds after the change: whether legs are usable is [`NetworkReport::bond`], not `converged`.
pub async fn converge(wanted: &HostNetwork) -> NetworkReport {
    let mut changes = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..PASSES {
        let plan = match observe().await {
            Ok(observed) => Plan::new(&observed, wanted),
            Err(error) => return broken(&error, changes),
        };
        if plan.ops.is_empty() {
            // Refused, and yet as wanted: the kernel took it in part, and that was enough.
            changes.append(&mut failures);
            break;
        }
        let statuses = match apply(&plan).await {
            Ok(statuses) => statuses,
            Err(error) => return broken(&error, changes),
        };
        failures.clear();
        for status in statuses {
            match status.result {
                Ok(()) => changes.push(status.op.to_string()),
                Err(error) => failures.push(format!("could not {}: {error}", status.op)),
            }
        }
    }
    let mut report = report(wanted).await;
    report.problems.splice(0..0, failures);
    report.changes = changes;
    report
}

/// Reads the network back and compares; changes nothing.
pub async fn report(wanted: &HostNetwork) -> NetworkReport {
    match observe().await {
        Ok(observed) => describe(&observed, wanted),
        Err(error) => broken(&error, Vec::new()),
    }
}

fn broken(error: &NetError, changes: Vec<String>) -> NetworkReport {
    NetworkReport { problems: vec![error.to_string()], changes, ..NetworkReport::default() }
}

/// The report on one look. Pure.
pub fn describe(observed: &Observed, wanted: &HostNetwork) -> NetworkReport {
    let plan = Plan::new(observed, wanted);
    let mut problems = plan.problems;
    problems.extend(plan.ops.iter().map(|op| format!("not as wanted; needed: {op}")));
    let addresses = observed.addresses.iter();
    let tables: Vec<u32> = wanted.storage.iter().map(|link| link.table).collect();
    let mut storage_routes: Vec<String> = observed
        .rules
        .iter()
        .filter(|rule| tables.contains(&rule.table))
        .map(|rule| match rule.from {
            Some(from) => format!("rule {}: from {from} lookup {}", rule.priority, rule.table),
            None => format!("rule {}: from all lookup {}", rule.priority, rule.table),
        })
        .collect();
    storage_routes.extend(
        observed.routes.iter().filter(|r| r.table != MAIN && tables.contains(&r.table)).map(|route| {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            let link = route.link.map(|index| observed.name_of(index)).unwrap_or_default();
            format!("table {}: {}{via} dev {link}", route.table, route.to)
        }),
    );
    NetworkReport {
        converged: problems.is_empty(),
        problems,
        changes: Vec::new(),
        bond: bond_state(observed, &wanted.bond.name),
        addresses: addresses.map(|a| format!("{} {}", observed.name_of(a.link), a.address)).collect(),
        storage_routes,
        foreign: foreign::lines(observed, wanted),
        neighbours: Vec::new(),
    }
}
