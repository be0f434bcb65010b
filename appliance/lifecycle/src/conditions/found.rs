//! Found: the BMC answers at its planned address with our own credential, and the factory one is refused.

use crate::action::{Action, RotateStep};
use crate::snapshot::{Outcome, Snapshot};
use dayzero_model::facts::CredentialPhase;

/// The step.
pub fn step(s: &Snapshot<'_>) -> Outcome {
    let plan = &s.placed.host.bmc;
    let Some(bmc) = s.facts.bmc.as_ref().filter(|bmc| bmc.address == plan.address) else {
        let waits_for = match s.facts.bmc_lease {
            None => format!(
                "the BMC {} to ask for its address ({}) by DHCP, and to answer",
                plan.mac, plan.address
            ),
            Some(_) => format!("the BMC at {} to answer", plan.address),
        };
        return Outcome::work(Action::ContactBmc, waits_for);
    };
    let rotate = |step, what: &str| Outcome::work(Action::RotateCredential(step), what);
    match s.facts.credential {
        CredentialPhase::Factory => rotate(RotateStep::Store, "a generated credential to be stored"),
        CredentialPhase::Stored => rotate(RotateStep::Send, "the BMC to take the generated credential"),
        CredentialPhase::Works => {
            rotate(RotateStep::DisableFactory, "the BMC to refuse the factory credential")
        }
        CredentialPhase::FactoryDisabled => {
            let protocol = format!("{:?}", bmc.protocol);
            let pin = bmc.certificate.map_or_else(String::new, |pin| {
                let pin = pin.to_string();
                format!(", certificate {} pinned", &pin[..16])
            });
            let evidence = format!(
                "{protocol} at {} answers our own credential{pin}; the factory credential is refused",
                bmc.address
            );
            Outcome::met(evidence, &(bmc.address, bmc.protocol, bmc.certificate, s.facts.credential))
        }
    }
}

/// What was seen of the BMC, for a cause.
pub(crate) fn observed(s: &Snapshot<'_>) -> String {
    let plan = &s.placed.host.bmc;
    match s.facts.bmc_lease {
        None => format!("{} took no address by our DHCP, and nothing answers at {}", plan.mac, plan.address),
        Some(at) => format!("{} took its address at {at}, but nothing answers at {}", plan.mac, plan.address),
    }
}
