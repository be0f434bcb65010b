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
        AgentFault::Agent(error) => cause(&error.code, error.sentence, error.expected, error.observed, next),
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
