//! The discovery image's life: network, key, vouching, enrolment, then orders.

use crate::cmdline::Cmdline;
use crate::credentials::HostKey;
use crate::orders::Host;
use crate::{ask, channel, console, enrol, vouch};
use anyhow::{Context, Result};
use std::sync::Arc;

/// Runs discovery; it ends only by a restart of the machine or an error.
///
/// # Errors
/// No usable command line, no boot NIC, or an enrolment that was refused for good.
pub async fn run() -> Result<std::convert::Infallible> {
    let text = std::fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    if secure_boot() == Some(true) {
        console::print("dayzero-agent: the firmware enforces Secure Boot");
    }
    let cmdline = if ask::must(&text) { ask::ask().await? } else { Cmdline::parse(&text)? };
    console::print(&format!("dayzero-agent: boot {} by {}", cmdline.boot, cmdline.mac));
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

/// Whether the firmware says that it enforces Secure Boot (UEFI 2.10, section 3.3); none without UEFI.
fn secure_boot() -> Option<bool> {
    let path = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    // Four bytes of attributes, then the value.
    std::fs::read(path).ok()?.get(4).map(|value| *value == 1)
}
