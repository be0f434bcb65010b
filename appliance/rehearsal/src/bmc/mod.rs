//! The virtual rack's BMCs: one of each protocol, in a network namespace of its own, over a chassis that is a real machine.
//!
//! Invariants: a BMC has its own address (by DHCP, renewed), accounts and certificate, and goes on while its host is off; power,
//! boot device, media and console act on the machine itself, never on a made-up state. It shares no code with the drivers that
//! it is to try.

mod chassis;
mod ipmi;
mod lease;
mod ledger;
mod redfish;

pub use chassis::{Chassis, ChassisError};
pub(crate) use ipmi::passwords as ipmi_passwords;
pub use ledger::Ledger;

use crate::machine::{Firmware, Identity};
use crate::netns::{Netns, NetnsError};
use crate::process::{ProcessError, Processes};
use dayzero_model::site::BmcProtocol;
use dayzero_model::{MacAddr, Secret};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A BMC that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BmcEmulatorError {
    /// Its namespace.
    #[error("the namespace of BMC '{name}' is of no use")]
    Netns {
        /// The BMC.
        name: String,
        /// Why.
        #[source]
        source: NetnsError,
    },
    /// A process of it.
    #[error("a process of BMC '{name}' did not start")]
    Process {
        /// The BMC.
        name: String,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// A file or socket of it.
    #[error("BMC '{name}' cannot {doing}")]
    Io {
        /// The BMC.
        name: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The spec asks for what no such BMC can be.
    #[error("BMC '{name}': {problem}")]
    Spec {
        /// The BMC.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// How a BMC gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// By DHCP from whoever serves its network.
    Dhcp,
    /// Its namespace has one already.
    Given,
}

/// What one BMC is.
#[derive(Clone, Debug)]
pub struct BmcEmulatorSpec {
    /// Its name, for logs and processes.
    pub name: String,
    /// Redfish or IPMI; `Auto` is no choice for a BMC.
    pub protocol: BmcProtocol,
    /// Its interface in its namespace.
    pub interface: String,
    /// The MAC of that interface.
    pub mac: MacAddr,
    /// DHCP or not.
    pub addressing: Addressing,
    /// Its own directory: certificate, configuration, accounts, images. Made if it is missing.
    pub dir: PathBuf,
    /// Factory account.
    pub user: String,
    /// Its password.
    pub password: Secret<String>,
    /// What SMBIOS says of the host.
    pub identity: Identity,
    /// The host's NICs.
    pub nic_macs: Vec<MacAddr>,
    /// The host's firmware.
    pub firmware: Firmware,
    /// Where it notes what it is entrusted with.
    pub ledger: Ledger,
    /// Media of ours come into the drive with a nonce of the BMC's own making: what a boot shows that asks too late.
    pub stale_media: Arc<AtomicBool>,
}

impl BmcEmulatorSpec {
    fn io(&self, doing: &'static str) -> impl Fn(std::io::Error) -> BmcEmulatorError {
        let name = self.name.clone();
        move |source| BmcEmulatorError::Io { name: name.clone(), doing, source }
    }

    fn netns(&self, source: NetnsError) -> BmcEmulatorError {
        BmcEmulatorError::Netns { name: self.name.clone(), source }
    }

    fn process(&self, source: ProcessError) -> BmcEmulatorError {
        BmcEmulatorError::Process { name: self.name.clone(), source }
    }
}

/// What the parts of one BMC share.
struct Context {
    spec: BmcEmulatorSpec,
    netns: Arc<Netns>,
    processes: Processes,
    chassis: Arc<dyn Chassis>,
}

/// A running BMC; dropping it ends it.
#[derive(Debug)]
pub struct BmcHandle {
    name: String,
    address: watch::Receiver<Option<Ipv4Addr>>,
    tasks: JoinSet<()>,
}

impl BmcHandle {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The leased address, to wait on; none before the first lease, and with [`Addressing::Given`].
    pub fn address(&self) -> watch::Receiver<Option<Ipv4Addr>> {
        self.address.clone()
    }

    /// Ends it, and waits until its processes and sockets are gone.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Starts a BMC in `netns`. Returns as soon as it listens (on all addresses of its namespace); the lease comes when a server
/// gives one.
///
/// # Errors
/// [`BmcEmulatorError`]; nothing of it runs then.
pub async fn start(
    spec: BmcEmulatorSpec,
    netns: Arc<Netns>,
    processes: Processes,
    chassis: Arc<dyn Chassis>,
) -> Result<BmcHandle, BmcEmulatorError> {
    std::fs::create_dir_all(&spec.dir).map_err(spec.io("make its directory"))?;
    let context = Arc::new(Context { spec, netns, processes, chassis });
    let spec = &context.spec;
    let mut tasks = JoinSet::new();
    let (sender, address) = watch::channel(None);
    let up = format!("link set dev {0} address {1}\nlink set dev {0} up\n", spec.interface, spec.mac);
    context.netns.configure(&up).map_err(|e| spec.netns(e))?;
    match spec.protocol {
        BmcProtocol::Redfish => redfish::start(&context, &mut tasks)?,
        BmcProtocol::Ipmi => ipmi::start(&context, &mut tasks).await?,
        BmcProtocol::Auto => {
            let problem = "a BMC speaks 'redfish' or 'ipmi'; 'auto' is the client's choice".into();
            return Err(BmcEmulatorError::Spec { name: spec.name.clone(), problem });
        }
    }
    if spec.addressing == Addressing::Dhcp {
        lease::start(&context, sender, &mut tasks).await?;
    }
    Ok(BmcHandle { name: spec.name.clone(), address, tasks })
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
