//! Enrolment with its records: boot windows in the store, nonces sealed in the vault, certificates from the CA.
//!
//! Every decision is a compare-and-set on the window's record, together with the certificate, so that two requests at once,
//! or a crash between decision and answer, give no second key a certificate.

use dayzero_model::wire::{EnrolAnswer, EnrolRequest};
use dayzero_model::{BootId, HostName, Millis, Secret, Sha256, Timestamp};
use dayzero_store::{Entry, Table};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::ca::{CheckedRequest, check_request};
use crate::window::{Channel, Decision, Refusal, RefusalReason, Vouch, Window, WindowState};
use crate::{SiteCa, TrustError, Vault};

static WINDOWS: Table<BootId, Window> = Table::new("enrol.windows");
/// Windows of one host that are kept for the record.
const KEEP: usize = 4;
const WAIT_SECONDS: u32 = 2;

/// Enrolment over a vault and a CA. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Enrolment {
    vault: Vault,
    ca: SiteCa,
}

/// A window that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Public: it stands on the kernel command line.
    pub boot: BootId,
    /// For the virtual medium, in hex; with [`Channel::VirtualMedia`] only.
    pub nonce: Option<Secret<String>>,
}

/// What an enrolment request led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// The vouched key has its certificate.
    Granted {
        /// Its host.
        host: HostName,
        /// How it was vouched for.
        vouch: Vouch,
        /// SHA-256 of the certificate.
        certificate: Sha256,
        /// For the agent.
        answer: EnrolAnswer,
    },
    /// Nothing vouched yet.
    Wait {
        /// Its host.
        host: HostName,
        /// Fingerprint of the key that asked.
        key: Sha256,
        /// For the agent.
        answer: EnrolAnswer,
    },
    /// No certificate.
    Refused {
        /// The host of the window, if there is such a window.
        host: Option<HostName>,
        /// Both keys and the reason.
        refusal: Refusal,
        /// False if the same key was refused for the same reason before: then no need to report it again.
        first: bool,
        /// For the agent.
        answer: EnrolAnswer,
    },
}

impl Enrolled {
    /// What the agent is told.
    pub fn answer(&self) -> &EnrolAnswer {
        match self {
            Self::Granted { answer, .. } | Self::Wait { answer, .. } | Self::Refused { answer, .. } => answer,
        }
    }
}

impl Enrolment {
    /// Over this vault (and its store) and this CA.
    pub fn new(vault: &Vault, ca: &SiteCa) -> Self {
        Self { vault: vault.clone(), ca: ca.clone() }
    }

    /// Opens a window for a host, and closes the host's earlier ones. Durable when it resolves.
    pub async fn open_window(
        &self,
        host: &HostName,
        channel: Channel,
        now: Timestamp,
        ttl: Millis,
    ) -> Result<Opened, TrustError> {
        let doing = TrustError::store;
        let boot = BootId(rand::random());
        let nonce: Option<[u8; 32]> = (channel == Channel::VirtualMedia).then(rand::random);
        let window = Window::open(host.clone(), channel, nonce.as_ref(), now, ttl);
        let mut tx = self.vault.store().tx();
        tx.expect_absent(&WINDOWS, &boot).map_err(doing("opening a boot window"))?;
        tx.put(&WINDOWS, &boot, &window).map_err(doing("opening a boot window"))?;
        let mut earlier = self.windows_of(host)?;
        earlier.sort_by_key(|entry| std::cmp::Reverse(entry.value.opened));
        for (i, mut entry) in earlier.into_iter().enumerate() {
            tx.expect_revision(&WINDOWS, &entry.key, entry.revision)
                .map_err(doing("closing a boot window"))?;
            self.vault.delete_in(&mut tx, &nonce_name(entry.key))?;
            if i >= KEEP {
                tx.delete(&WINDOWS, &entry.key).map_err(doing("removing a boot window"))?;
            } else if !matches!(entry.value.state, WindowState::Closed { .. }) {
                entry.value.state = WindowState::Closed { at: now };
                tx.put(&WINDOWS, &entry.key, &entry.value).map_err(doing("closing a boot window"))?;
            }
        }
        let nonce = nonce.map(|nonce| Secret::new(hex::encode(nonce)));
        if let Some(nonce) = &nonce {
            self.vault.put_in(&mut tx, &nonce_name(boot), nonce)?;
        }
        tx.commit().await.map_err(doing("opening a boot window"))?;
        Ok(Opened { boot, nonce })
    }

    /// The nonce of a window that is still open, to serve the virtual medium again after a restart.
    pub fn nonce(&self, boot: BootId) -> Result<Option<Secret<String>>, TrustError> {
        self.vault.get(&nonce_name(boot))
    }

    /// A window's record.
    pub fn window(&self, boot: BootId) -> Result<Option<Window>, TrustError> {
        Ok(self.entry(boot)?.map(|entry| entry.value))
    }

    /// The open window of a host.
    pub fn open_window_of(
        &self,
        host: &HostName,
        now: Timestamp,
    ) -> Result<Option<(BootId, Window)>, TrustError> {
        let open = self.windows_of(host)?.into_iter().find(|entry| entry.value.is_open(now));
        Ok(open.map(|entry| (entry.key, entry.value)))
    }

    /// A key's fingerprint was read through the host's BMC (serial-over-LAN). The first one counts; a second one is refused
    /// and noted. Durable when it resolves.
    pub async fn vouch_by_fingerprint(
        &self,
        boot: BootId,
        key: Sha256,
        channel: Channel,
        now: Timestamp,
    ) -> Result<Decision, TrustError> {
        let mut decision = Decision::Wait;
        self.change(boot, |window| {
            decision = window.vouch_by_fingerprint(key, channel, now);
            if let Decision::Refuse(reason) = decision {
                let vouched = window.vouch().map(|v| v.key);
                window.note(Refusal { key, vouched, reason, peer: channel.to_string(), at: now });
            }
            Ok(())
        })
        .await?;
        Ok(decision)
    }

    /// The window is over: the agent has connected with its certificate, or the boot was given up. Durable when it resolves.
    pub async fn close(&self, boot: BootId, now: Timestamp) -> Result<(), TrustError> {
        self.change(boot, |window| {
            if !matches!(window.state, WindowState::Closed { .. }) {
                window.state = WindowState::Closed { at: now };
            }
            Ok(())
        })
        .await?;
        self.vault.delete(&nonce_name(boot)).await
    }

    /// Answers an enrolment request. `peer` is the sender's address, for the record.
    ///
    /// Errors: [`TrustError::BadRequest`] if it is malformed (answer 400); others are ours (answer 500).
    pub async fn enrol(
        &self,
        request: &EnrolRequest,
        peer: &str,
        now: Timestamp,
    ) -> Result<Enrolled, TrustError> {
        let (checked, nonce) = check(request)?;
        let mut decided = None;
        let changed = self
            .change(request.boot, |window| {
                let decision = window.decide(checked.key, nonce.as_deref(), now);
                let mut refusal = None;
                let mut first = false;
                match decision {
                    Decision::Grant => self.issue(window, &checked)?,
                    Decision::Wait => {}
                    Decision::Refuse(reason) => {
                        let note = refused(checked.key, window.vouch().map(|v| v.key), reason, peer, now);
                        first = window.note(note.clone());
                        refusal = Some(note);
                    }
                }
                decided = Some((window.clone(), refusal, first));
                Ok(())
            })
            .await;
        match changed {
            Err(TrustError::NoWindow { .. }) => {
                let refusal = refused(checked.key, None, RefusalReason::NoWindow, peer, now);
                return Ok(refusal_outcome(None, refusal, true));
            }
            other => other?,
        }
        let (window, refusal, first) = decided.ok_or(TrustError::NoWindow { boot: request.boot })?;
        if let Some(refusal) = refusal {
            return Ok(refusal_outcome(Some(window.host), refusal, first));
        }
        Ok(match window.state {
            WindowState::Issued { vouch, certificate, fingerprint } => Enrolled::Granted {
                host: window.host.clone(),
                vouch,
                certificate: fingerprint,
                answer: EnrolAnswer::Granted { host: window.host, certificate, ca: self.ca.pem().to_owned() },
            },
            _ => Enrolled::Wait {
                host: window.host,
                key: checked.key,
                answer: EnrolAnswer::Wait { seconds: WAIT_SECONDS },
            },
        })
    }

    fn issue(&self, window: &mut Window, request: &CheckedRequest) -> Result<(), TrustError> {
        if let WindowState::Vouched(vouch) = window.state {
            let issued = self.ca.issue(&window.host, request)?;
            window.state =
                WindowState::Issued { vouch, certificate: issued.pem, fingerprint: issued.fingerprint };
        }
        Ok(())
    }

    /// Applies `change` to the stored window, by compare-and-set; writes only if it changed something.
    async fn change(
        &self,
        boot: BootId,
        mut change: impl FnMut(&mut Window) -> Result<(), TrustError>,
    ) -> Result<(), TrustError> {
        let doing = "changing a boot window";
        let mut tries = 0;
        loop {
            let entry = self.entry(boot)?.ok_or(TrustError::NoWindow { boot })?;
            let mut after = entry.value.clone();
            change(&mut after)?;
            if after == entry.value {
                return Ok(());
            }
            let mut tx = self.vault.store().tx();
            tx.expect_revision(&WINDOWS, &boot, entry.revision).map_err(TrustError::store(doing))?;
            tx.put(&WINDOWS, &boot, &after).map_err(TrustError::store(doing))?;
            match tx.commit().await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_conflict() && tries < 64 => tries += 1,
                Err(e) => return Err(TrustError::store(doing)(e)),
            }
        }
    }

    fn entry(&self, boot: BootId) -> Result<Option<Entry<BootId, Window>>, TrustError> {
        self.vault.store().entry(&WINDOWS, &boot).map_err(TrustError::store("reading a boot window"))
    }

    fn windows_of(&self, host: &HostName) -> Result<Vec<Entry<BootId, Window>>, TrustError> {
        let all = self.vault.store().scan(&WINDOWS, "").map_err(TrustError::store("reading boot windows"))?;
        Ok(all.into_iter().filter(|entry| entry.value.host == *host).collect())
    }
}

fn nonce_name(boot: BootId) -> String {
    format!("enrol/{boot}/nonce")
}

fn refused(
    key: Sha256,
    vouched: Option<Sha256>,
    reason: RefusalReason,
    peer: &str,
    at: Timestamp,
) -> Refusal {
    Refusal { key, vouched, reason, peer: peer.chars().take(64).collect(), at }
}

fn refusal_outcome(host: Option<HostName>, refusal: Refusal, first: bool) -> Enrolled {
    let answer = EnrolAnswer::Refused { reason: refusal.reason.to_string() };
    Enrolled::Refused { host, refusal, first, answer }
}

/// The parts of a request that are used: the key of the signed CSR, which must be the announced one, and the nonce.
fn check(request: &EnrolRequest) -> Result<(CheckedRequest, Option<Vec<u8>>), TrustError> {
    let bad = |what, problem: &str| TrustError::BadRequest { what, problem: problem.to_owned() };
    if !(dayzero_model::wire::VERSION.saturating_sub(1)..=dayzero_model::wire::VERSION)
        .contains(&request.version)
    {
        return Err(bad("the protocol version", "this appliance speaks its own version and the one before"));
    }
    let checked = check_request(&request.csr)?;
    let announced =
        BASE64.decode(&request.public_key).map_err(|_| bad("the public key", "it is no base64"))?;
    if Sha256::of(&announced) != checked.key {
        return Err(bad("the public key", "it is not the key of the certificate signing request"));
    }
    let nonce = match &request.nonce {
        None => None,
        Some(text) if text.len() == 64 => {
            Some(hex::decode(text).map_err(|_| bad("the nonce", "it is no hex"))?)
        }
        Some(_) => return Err(bad("the nonce", "it has not 64 hex digits")),
    };
    Ok((checked, nonce))
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
