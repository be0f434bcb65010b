//! What boot is this? Asked of the appliance, where the kernel's command line cannot say it: under Secure Boot it is signed
//! with kernel and initial RAM disk, the same for every host and every boot.
//!
//! An address is borrowed by DHCP, NIC after NIC, and the DHCP server that gave it is asked by HTTPS for the words that a
//! boot script would have put on the command line. Like those they are neither secret nor believed, and at this time the
//! agent knows no certificate: whom it trusts is told by its BMC. It needs the appliance to be the network's DHCP server.

use crate::cmdline::{self, Cmdline};
use crate::{console, enrol};
use anyhow::{Context, Result, ensure};
use dayzero_model::MacAddr;
use dayzero_netconf::dhcp::{self, Lease};
use dayzero_netconf::observe::observe;
use std::time::Duration;

/// The HTTP boot listener's port for TLS.
const PORT: u16 = 8445;
/// Longest answer that is read.
const LIMIT: usize = 4096;
/// For one NIC: a DISCOVER at 0, 1, 3 and 7 seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Whether the command line says that the agent must ask.
pub fn must(text: &str) -> bool {
    cmdline::value(text, "ask").is_some()
}

/// Asks until somebody answers.
///
/// # Errors
/// The NICs cannot be seen or brought up.
pub async fn ask() -> Result<Cmdline> {
    dayzero_netconf::discovery::all_up(&[]).await.context("bringing the NICs up")?;
    let mut round = 0_u64;
    loop {
        let observed = observe().await.context("looking at the NICs")?;
        let nics: Vec<MacAddr> = observed.physical().filter_map(|link| link.permanent.or(link.mac)).collect();
        for mac in nics {
            match dhcp::borrow(mac, "dayzero-discovery", PATIENCE, async |lease| words(mac, lease).await)
                .await
            {
                Ok(Some(Ok(cmdline))) => return Ok(cmdline),
                Ok(Some(Err(error))) => tracing::warn!("{mac}: {error:#}"),
                Ok(None) => tracing::info!("{mac}: no DHCP server answers"),
                Err(error) => tracing::warn!("{mac}: {error}"),
            }
        }
        round += 1;
        console::print(&format!("dayzero-agent: no appliance found on any NIC, round {round}"));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn words(mac: MacAddr, lease: Lease) -> Result<Cmdline> {
    let client = enrol::open_client()?;
    let url = format!("https://{}:{PORT}/boot/agent?mac={mac}", lease.server);
    let mut response = client.get(&url).send().await.with_context(|| url.clone())?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= LIMIT, "{url}: the answer is longer than {LIMIT} bytes");
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&body);
    ensure!(status.is_success(), "{url} answered {status}: {}", text.trim().escape_debug());
    read(&text, mac).with_context(|| url)
}

/// Reads the answer; it must be about the NIC that asked.
fn read(text: &str, mac: MacAddr) -> Result<Cmdline> {
    let cmdline = Cmdline::parse(text)?;
    ensure!(cmdline.mac == mac, "the answer is about {}, not about {mac}", cmdline.mac);
    Ok(cmdline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_command_line_and_of_this_nic() {
        let words = "dayzero.boot=00000000000000ab dayzero.enrol=https://10.77.0.2:8444 \
                     dayzero.agent=10.77.0.2:7443 dayzero.mac=52:54:00:77:01:01 dayzero.ip=10.77.0.11/24\n";
        let mac: MacAddr = "52:54:00:77:01:01".parse().unwrap();
        assert_eq!(read(words, mac).unwrap().address.to_string(), "10.77.0.11/24");
        assert!(read(words, MacAddr([2, 0, 0, 0, 0, 1])).is_err(), "another NIC's");
        assert!(read("no boot is open for this machine\n", mac).is_err());
        assert!(must("console=ttyS0 dayzero.ask=1") && !must("console=ttyS0 dayzero.mac=x"));
    }
}
