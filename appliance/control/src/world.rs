//! What control acts upon, behind traits, so that a host's whole life can be lived in a test: BMCs, agents, profiles,
//! cables, pings, time.

use crate::standing::on_link;
use crate::view::Progress;
use async_trait::async_trait;
use dayzero_bmc::{Bmc, BmcError, Credential, Target};
use dayzero_model::ids::{HostName, Name};
use dayzero_model::inventory::Inventory;
use dayzero_model::proof::{Break, WriterProgress};
use dayzero_model::site::{Placed, SwitchPort};
use dayzero_model::units::Timestamp;
use dayzero_model::wire::{AgentError, Order, Report};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Logs into BMCs.
#[async_trait]
pub trait Bmcs: Send + Sync {
    /// Connects and logs in.
    async fn connect(&self, target: &Target, credential: &Credential) -> Result<Box<dyn Bmc>, BmcError>;
}

/// The real ones, and only those on a network that this machine is on: a BMC's login never leaves by a default route, where
/// somebody else may answer at the planned address.
pub struct RealBmcs;

#[async_trait]
impl Bmcs for RealBmcs {
    async fn connect(&self, target: &Target, credential: &Credential) -> Result<Box<dyn Bmc>, BmcError> {
        if !on_link(target.address) {
            let reason =
                "this machine has no address on its network: give it the plan's `appliance` address there";
            return Err(BmcError::Unreachable {
                address: target.address.to_string(),
                reason: reason.to_owned(),
            });
        }
        dayzero_bmc::connect(target, credential).await
    }
}

/// Why an order was not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AgentFault {
    /// The agent says why.
    #[error("{0}")]
    Agent(AgentError),
    /// Not connected, or the connection was lost.
    #[error("the agent is not connected")]
    Gone,
    /// No answer in time.
    #[error("the agent did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// An answer to another question.
    #[error("the agent answered something else: {0}")]
    Unexpected(String),
}

/// The last progress of a proof's writer, and when it came by our own clock.
pub type WriterWatch = watch::Receiver<Option<(Instant, WriterProgress)>>;

/// The agents.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Gives an order and waits for its result.
    async fn order(&self, host: &HostName, order: Order, timeout: Duration) -> Result<Report, AgentFault>;
    /// The connection that is there now: a number that none before it had, and none after it will have.
    fn connection(&self, host: &HostName) -> Option<u64>;
    /// Resolves once there is a connection.
    async fn came(&self, host: &HostName);
    /// Resolves once `connection` is the host's no longer: it ended, or a newer one took its place.
    async fn left(&self, host: &HostName, connection: u64);
    /// Writer frames of this host.
    fn writer(&self, host: &HostName) -> WriterWatch;
    /// Progress of the order under way.
    fn progress(&self, host: &HostName) -> Option<Progress>;
    /// Ends the connection: its certificate no longer counts.
    fn disconnect(&self, host: &HostName);
}

/// Hardware profiles.
pub trait Profiles: Send + Sync {
    /// Differences as sentences; none = there is no such profile.
    fn drift(&self, profile: &Name, placed: &Placed<'_>, inventory: &Inventory) -> Option<Vec<String>>;
}

/// One path to be pulled.
#[derive(Clone, Debug)]
pub struct Path {
    /// Host.
    pub host: HostName,
    /// Role of its NIC.
    pub role: Name,
    /// The NIC's place among the host's planned NICs, from 0.
    pub nic: usize,
    /// Where its cable goes.
    pub port: SwitchPort,
}

/// Pulls paths and plugs them in again.
#[async_trait]
pub trait PathPuller: Send + Sync {
    /// Breaks a path. The error is a sentence.
    async fn pull(&self, path: &Path, how: Break) -> Result<(), String>;
    /// Heals a path, however it was broken; nothing where it is whole.
    async fn restore(&self, path: &Path) -> Result<(), String>;
    /// What a person is asked to do now: id and sentence.
    fn asks(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// A person did it. False if that was not asked.
    fn confirm(&self, id: &str) -> bool {
        let _ = id;
        false
    }
}

/// What a pinger has seen since it was last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingStats {
    /// Sent.
    pub sent: u64,
    /// Came back.
    pub back: u64,
    /// Longest time without an answer, the time since the last one included.
    pub longest: Duration,
    /// Time since the last answer.
    pub silent: Duration,
}

/// A running pinger: numbered pings every 10 ms, judged by our clock. It ends when dropped.
pub trait PingRun: Send + Sync {
    /// Since the last reset.
    fn stats(&self) -> PingStats;
    /// Counts from now.
    fn reset(&self);
    /// Sends nothing while it rests.
    fn rest(&self, resting: bool);
}

/// Starts pingers.
pub trait Pings: Send + Sync {
    /// Pings an address until the value is dropped.
    ///
    /// # Errors
    /// A sentence: no raw socket.
    fn start(&self, address: Ipv4Addr) -> Result<Box<dyn PingRun>, String>;
}

/// Everything together.
#[derive(Clone)]
pub struct World {
    /// BMCs.
    pub bmcs: Arc<dyn Bmcs>,
    /// Agents.
    pub agents: Arc<dyn Agents>,
    /// Profiles.
    pub profiles: Arc<dyn Profiles>,
    /// Cables.
    pub puller: Arc<dyn PathPuller>,
    /// Pings.
    pub pings: Arc<dyn Pings>,
    /// Time.
    pub clock: fn() -> Timestamp,
}

/// The machine's clock.
pub fn system_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_never_leaves_by_a_default_route() {
        assert!(on_link([127, 0, 0, 9].into()));
        // 240.0.0.0/4 is reserved (RFC 1112): no machine is on it, whatever its routes say.
        let target = Target::new([240, 0, 0, 1].into(), dayzero_model::site::BmcProtocol::Redfish);
        let credential =
            Credential { user: "root".to_owned(), password: dayzero_model::Secret::new("x".to_owned()) };
        let Err(error) = RealBmcs.connect(&target, &credential).await else { panic!("something answered") };
        assert!(error.to_string().contains("no address on its network"), "{error}");
    }
}
