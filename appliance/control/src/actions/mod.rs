//! Carrying actions out: each asks the world, and answers what becomes of the facts, or a cause.

mod boot;
mod contact;
mod orders;
pub(crate) mod prove;

use crate::control::Control;
use crate::engine::Delta;
use crate::sessions::system_cause;
use crate::world::AgentFault;
use dayzero_lifecycle::cause::{cause, timeout};
use dayzero_lifecycle::{Action, ActionKind};
use dayzero_model::condition::Cause;
use dayzero_model::event::What;
use dayzero_model::ids::HostName;
use std::sync::Arc;

/// Carries an action out.
pub(crate) async fn run(control: &Arc<Control>, host: &HostName, action: Action) -> Result<Delta, Cause> {
    match action {
        Action::ContactBmc => contact::contact(control, host).await,
        Action::RotateCredential(step) => contact::rotate(control, host, step).await,
        Action::BootDiscovery => boot::discovery(control, host).await,
        Action::RebootToDisk => boot::to_disk(control, host).await,
        Action::ReadBootOrder => boot::order(control, host).await,
        Action::Inventory { lldp_s } => orders::inventory(control, host, lldp_s).await,
        Action::Install(order) => orders::install(control, host, *order).await,
        Action::ApplyNetwork(network, basis) => orders::network(control, host, *network, basis).await,
        Action::ConnectStorage(luns, basis) => orders::storage(control, host, luns, basis).await,
        Action::MakeVolumeGroup { storage, wwn } => orders::volume_group(control, host, storage, wwn).await,
        Action::Prove(order) => prove::action(control, host, *order).await,
        Action::Measure => orders::measure(control, host).await,
    }
}

/// An action that took too long.
pub(crate) fn timed_out(host: &HostName, kind: ActionKind) -> Cause {
    let seconds = kind.timeout().0 / 1000;
    timeout(host, "timeout", &format!("{kind:?} within {seconds} s"), seconds, "it did not end")
}

/// What an agent's fault means for a host.
pub(crate) fn agent_cause(host: &HostName, doing: &str, fault: AgentFault) -> Cause {
    let next = format!("see `dayzero why {host}`, then `dayzero host retry {host}`");
    match fault {
        AgentFault::Agent(error) => {
            let next = match remedy(&error.code) {
                Some(remedy) => format!("{remedy}, then `dayzero host retry {host}`"),
                None => next,
            };
            cause(&error.code, error.sentence, error.expected, error.observed, next)
        }
        AgentFault::Gone => cause(
            "agent-silent",
            format!("the agent went away during {doing}"),
            "a connected agent",
            "its connection ended",
            next,
        ),
        AgentFault::Timeout(after) => {
            timeout(host, "agent-timeout", doing, after.as_secs(), "the agent is connected and silent")
        }
        AgentFault::Unexpected(what) => cause(
            "agent-protocol",
            format!("the agent's answer to {doing} makes no sense"),
            "an answer of this protocol version",
            what,
            next,
        ),
    }
}

/// What a person does about an agent's fault, by its code; none = it needs looking into.
fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "chunk-corrupt" | "digest" | "manifest-bad" => {
            "the host image on the appliance is damaged, or was changed on its way: put back the file that is named, or \
             build the image anew (`cargo xtask images`)"
        }
        "fetch" => {
            "see that the host reaches the appliance's HTTP port, and that the image's files are there"
        }
        "disk-missing" => "put the planned disk into the server, or correct the plan and apply it",
        "disk-ambiguous" => "name the disk in the plan by serial and WWN, and apply it",
        "disk-unfit" => "put in a disk that is fit, or name another one in the plan and apply it",
        "read-back" => "exchange the disk: it does not return what was written",
        _ => return None,
    })
}

impl Control {
    /// Records a BMC operation.
    pub(crate) fn tell_bmc<T, E: std::fmt::Display>(
        &self,
        host: &HostName,
        operation: &str,
        result: &Result<T, E>,
        read_back: &str,
    ) {
        let (result, failed) = match result {
            Ok(_) => (read_back.to_owned(), false),
            Err(error) => (error.to_string(), true),
        };
        self.tell(host, What::Bmc { operation: operation.to_owned(), result, failed });
    }
}

/// The store's failure during an action.
pub(crate) fn store_cause<'a>(
    host: &'a HostName,
    doing: &'a str,
) -> impl Fn(dayzero_store::StoreError) -> Cause + 'a {
    move |error| system_cause(host, doing, &error)
}

/// A limit that is closed only when control ends.
pub(crate) fn stopping() -> Cause {
    cause("stopping", "the appliance is stopping", "a running appliance", "it stops", "start it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::wire::AgentError;

    #[test]
    fn an_agents_fault_says_what_a_person_can_do() {
        let host: HostName = "host1".parse().unwrap();
        for (code, word) in [
            ("chunk-corrupt", "cargo xtask images"),
            ("disk-missing", "correct the plan"),
            ("something-new", "dayzero why host1"),
        ] {
            let error = AgentError {
                code: code.to_owned(),
                sentence: "it went wrong".to_owned(),
                expected: "one thing".to_owned(),
                observed: "another".to_owned(),
                finding: None,
            };
            let cause = agent_cause(&host, "the installation", AgentFault::Agent(error));
            assert_eq!((cause.code.as_str(), cause.expected.as_str()), (code, "one thing"));
            assert!(cause.next_action.contains(word), "{code}: {}", cause.next_action);
            assert!(cause.next_action.ends_with("then `dayzero host retry host1`"), "{}", cause.next_action);
        }
    }
}
