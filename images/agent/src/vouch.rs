//! The channel over which this host's BMC vouches for its key, seen from the host.
//!
//! Redfish: a virtual CD brings a single-use nonce and the CA's fingerprint. IPMI: the key's fingerprint is printed on
//! the serial console, and the CA's comes back over the same line. Both ways the host learns whom it may trust from
//! its BMC, not from the boot network.

use crate::console;
use dayzero_model::media::{self, VouchFile};
use dayzero_model::wire::{CA_LINE, VOUCH_LINE};
use dayzero_model::{BootId, Sha256};
use std::io::Read;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the BMC's channel said.
pub struct Vouched {
    /// Fingerprint of the site CA's certificate.
    pub ca: Sha256,
    /// Single-use nonce, where the channel was a virtual medium.
    pub nonce: Option<String>,
}

/// Waits for whichever channel answers first, printing the vouch line every two seconds meanwhile.
pub async fn wait(boot: BootId, key: Sha256) -> Vouched {
    let mut typed = console::lines().ok();
    let mut beat = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            _ = beat.tick() => {
                if let Some(file) = medium(boot).await {
                    return Vouched { ca: file.ca_sha256, nonce: Some(file.nonce) };
                }
                console::print(&format!("{VOUCH_LINE} {boot} {key}"));
            }
            line = next(&mut typed) => {
                if let Some(ca) = parse_ca(&line) {
                    return Vouched { ca, nonce: None };
                }
            }
        }
    }
}

async fn next(lines: &mut Option<mpsc::Receiver<String>>) -> String {
    if let Some(receiver) = lines {
        if let Some(line) = receiver.recv().await {
            return line;
        }
        *lines = None;
    }
    std::future::pending().await
}

fn parse_ca(line: &str) -> Option<Sha256> {
    // Line noise may stand before the words; what follows them must be exact.
    let at = line.rfind(CA_LINE)?;
    line[at + CA_LINE.len()..].trim().parse().ok()
}

/// The vouch file of this boot on any optical drive.
async fn medium(boot: BootId) -> Option<VouchFile> {
    tokio::task::spawn_blocking(move || {
        (0..4).filter_map(|n| read_drive(&format!("/dev/sr{n}"))).find(|file| file.boot == boot)
    })
    .await
    .ok()?
}

fn read_drive(path: &str) -> Option<VouchFile> {
    let mut drive = std::fs::File::open(path).ok()?;
    let mut image = vec![0; 22 * 2048];
    drive.read_exact(&mut image).ok()?;
    media::read_iso(&image).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_fingerprint_counts() {
        let ca = Sha256::of(b"ca");
        assert_eq!(parse_ca(&format!("{CA_LINE} {ca}")), Some(ca));
        assert_eq!(parse_ca(&format!("\u{1b}[0m {CA_LINE} {ca} ")), Some(ca));
        assert_eq!(parse_ca(&format!("{CA_LINE} {}", &ca.to_string()[1..])), None);
        assert_eq!(parse_ca("login:"), None);
    }
}
