//! The discovery image's life: network, key, vouching, enrolment, then orders.

use crate::cmdline::Cmdline;
use crate::credentials::HostKey;
use crate::orders::Host;
use crate::{channel, console, enrol, vouch};
use anyhow::{Context, Result};
use std::sync::Arc;

/// Runs discovery; it ends only by a restart of the machine or an error.
///
/// # Errors
/// No usable command line, no boot NIC, or an enrolment that was refused for good.
pub async fn run() -> Result<std::convert::Infallible> {
    let text = std::fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    let cmdline = Cmdline::parse(&text)?;
    dayzero_netconf::discovery::discovery_up(cmdline.mac, cmdline.address, cmdline.gateway)
        .await
        .with_context(|| format!("boot NIC {}", cmdline.mac))?;
    // LLDP is heard on every linked NIC, so all of them are brought up.
    dayzero_netconf::discovery::all_up(&[]).await.context("bringing the NICs up")?;

    let key = HostKey::generate()?;
    console::print(&format!("dayzero-agent: key {}", key.fingerprint()));
    let vouched = tokio::select! {
        vouched = vouch::wait(cmdline.boot, key.fingerprint()) => vouched,
        failed = enrol::announce(&cmdline, &key) => match failed? {},
    };
    let credentials = enrol::enrol(&cmdline, &key, &vouched).await?;
    console::print(&format!("dayzero-agent: enrolled as {}", credentials.host));
    let host = Arc::new(Host::discovered(credentials.clone()));
    channel::serve(cmdline.agent, &credentials, host).await
}
