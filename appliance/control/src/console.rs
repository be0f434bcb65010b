//! Serial-over-LAN as the channel by which a BMC vouches: reads the agent's line from that host's console alone, and
//! answers with our CA's fingerprint.

use crate::control::Control;
use crate::enrol::note_refused;
use dayzero_bmc::Console;
use dayzero_model::event::What;
use dayzero_model::facts::RefusedKey;
use dayzero_model::ids::{BootId, HostName, Sha256};
use dayzero_model::wire::{CA_LINE, VOUCH_LINE};
use dayzero_trust::{Channel, Decision};
use std::sync::Arc;
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(1);

/// Boot and fingerprint in a vouch line; noise may stand before it, nothing behind.
pub(crate) fn vouch_line(line: &str) -> Option<(BootId, Sha256)> {
    let at = line.rfind(VOUCH_LINE)?;
    let mut words = line[at + VOUCH_LINE.len()..].split_whitespace();
    let found = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(found)
}

impl Control {
    /// The boot whose window is open and vouched over the console, if any.
    fn console_boot(&self, host: &HostName) -> Option<BootId> {
        let facts = self.facts(host)?;
        let window = facts.window.as_ref()?;
        (window.channel == Channel::SerialOverLan.to_string()).then_some(window.window.boot)
    }

    /// Readers for every host whose window needs one.
    pub(crate) fn tend_consoles(self: Arc<Self>) {
        let hosts: Vec<_> = self.mirror().hosts.keys().cloned().collect();
        for host in hosts {
            self.tend_console(&host);
        }
    }

    /// Starts or ends a host's console reader, as its window says.
    pub(crate) fn tend_console(self: &Arc<Self>, host: &HostName) {
        let wanted = self.console_boot(host).filter(|_| !self.cancel.is_cancelled());
        let mut busy = self.busy();
        let running = busy.consoles.get(host).map(|(boot, task)| (*boot, task.is_finished()));
        if running == wanted.map(|boot| (boot, false)) {
            return;
        }
        if let Some((_, task)) = busy.consoles.remove(host) {
            task.abort();
        }
        if let Some(boot) = wanted {
            let (control, name) = (self.clone(), host.clone());
            let task = self.tasks.spawn(async move { control.read_console(&name, boot).await });
            busy.consoles.insert(host.clone(), (boot, task.abort_handle()));
        }
    }

    /// Reads until the window is closed; a session that ends is opened again.
    async fn read_console(self: Arc<Self>, host: &HostName, boot: BootId) {
        let mut told = String::new();
        while self.console_boot(host) == Some(boot) {
            let read = async {
                let bmc = self.bmc(host).await.map_err(|cause| cause.observed)?;
                let mut console = bmc.open_sol().await.map_err(|error| error.to_string())?;
                let result = self.lines(host, boot, console.as_mut()).await;
                console.close().await;
                result
            };
            let ended = tokio::select! {
                () = self.cancel.cancelled() => return,
                ended = read => ended,
            };
            if let Err(error) = ended
                && error != told
            {
                told = error.clone();
                self.tell(
                    host,
                    What::Bmc { operation: "serial-over-LAN".to_owned(), result: error, failed: true },
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn lines(
        self: &Arc<Self>,
        host: &HostName,
        boot: BootId,
        console: &mut dyn Console,
    ) -> Result<(), String> {
        loop {
            let line = tokio::time::timeout(Duration::from_secs(5), console.next_line()).await;
            if self.console_boot(host) != Some(boot) {
                return Ok(());
            }
            let Ok(line) = line else { continue };
            let Some(line) = line.map_err(|error| error.to_string())? else { return Ok(()) };
            let Some((said, key)) = vouch_line(&line).filter(|(said, _)| *said == boot) else { continue };
            let decision =
                self.enrolment.vouch_by_fingerprint(said, key, Channel::SerialOverLan, self.now()).await;
            match decision.map_err(|error| error.to_string())? {
                Decision::Grant => {
                    let answer = format!("{CA_LINE} {}", self.ca.fingerprint());
                    console.write_line(&answer).await.map_err(|error| error.to_string())?;
                    let key = key.to_string();
                    let result = format!("key {} read, our CA's fingerprint answered", &key[..16]);
                    self.tell(
                        host,
                        What::Bmc { operation: "serial-over-LAN".to_owned(), result, failed: false },
                    );
                }
                Decision::Wait => {}
                Decision::Refuse(reason) => {
                    let refused = RefusedKey {
                        key,
                        reason: reason.to_string(),
                        peer: "serial console".to_owned(),
                        at: self.now(),
                    };
                    self.step(host, move |facts| note_refused(facts, refused))
                        .await
                        .map_err(|error| error.to_string())?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_vouch_line_counts() {
        let key = Sha256::of(b"key");
        let whole = format!("{VOUCH_LINE} 00000000000000aa {key}");
        assert_eq!(vouch_line(&whole), Some((BootId(0xaa), key)));
        assert_eq!(vouch_line(&format!("[  1.2] noise {whole} ")), Some((BootId(0xaa), key)));
        for bad in [
            format!("{whole} more"),
            format!("{VOUCH_LINE} aa {key}"),
            whole[..whole.len() - 1].to_owned(),
            "login:".to_owned(),
        ] {
            assert_eq!(vouch_line(&bad), None, "{bad}");
        }
    }
}
