//! Sessions with BMCs: which credential may work, logging in, one live session a host, and errors as causes.

use crate::control::{Control, Plan};
use dayzero_bmc::{Bmc, BmcError, Credential as Login, Target};
use dayzero_lifecycle::cause::{bmc_unreachable, cause, pin_mismatch, wrong_credential};
use dayzero_model::condition::Cause;
use dayzero_model::facts::CredentialPhase;
use dayzero_model::ids::{HostName, Name};
use dayzero_model::site::Host;
use dayzero_trust::{Credential, CredentialRecord, TrustError};
use std::net::IpAddr;
use std::sync::Arc;

/// A live session, and the state of the credential that it was opened with.
pub(crate) struct Cached {
    bmc: Arc<dyn Bmc>,
    state: &'static str,
}

/// Name in the vault of a factory credential.
pub(crate) fn factory_name(credential: &Name) -> String {
    format!("factory/{credential}")
}

/// The phase that facts show for a record.
pub(crate) fn phase_of(record: &CredentialRecord) -> CredentialPhase {
    match record {
        CredentialRecord::Factory { .. } => CredentialPhase::Factory,
        CredentialRecord::PendingStored { .. } => CredentialPhase::Stored,
        CredentialRecord::Applied { .. } => CredentialPhase::Works,
        CredentialRecord::FactoryDisabled { .. } | CredentialRecord::Rotating { .. } => {
            CredentialPhase::FactoryDisabled
        }
    }
}

/// As the BMC room wants it.
pub(crate) fn login(credential: &Credential) -> Login {
    Login { user: credential.user.clone(), password: credential.password.clone() }
}

/// A failure of the system's, as a cause.
pub(crate) fn system_cause(host: &HostName, doing: &str, error: &dyn std::error::Error) -> Cause {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    cause(
        "appliance-failed",
        format!("the appliance itself failed while {doing}"),
        "a working store and vault",
        text,
        format!("see the appliance's log, then `dayzero host retry {host}`"),
    )
}

/// A BMC's error, as a cause.
pub(crate) fn bmc_cause(host: &Host, doing: &str, error: &BmcError) -> Cause {
    let (name, address) = (&host.name, host.bmc.address);
    let next = format!("see `dayzero why {name}`, then `dayzero host retry {name}`");
    match error {
        BmcError::Unreachable { .. } | BmcError::Timeout { .. } => {
            bmc_unreachable(name, format!("an answer at {address} while {doing}"), error.to_string())
        }
        BmcError::WrongCredential { .. } | BmcError::PasswordChangeRequired { .. } => {
            wrong_credential(name, "stored", error.to_string())
        }
        BmcError::CertificateChanged { expected, observed, .. } => {
            pin_mismatch(name, format!("certificate {expected}"), format!("certificate {observed}"))
        }
        BmcError::Unsupported { what } => cause(
            "bmc-unsupported",
            format!("the BMC cannot do what is needed for {doing}"),
            what.clone(),
            error.to_string(),
            format!("update the BMC's firmware, or choose the other protocol in the plan; {next}"),
        ),
        BmcError::ReadBack { wanted, observed, .. } => {
            cause("bmc-read-back", error.to_string(), wanted.clone(), observed.clone(), next)
        }
        other => {
            let source = std::error::Error::source(other).map(ToString::to_string).unwrap_or_default();
            cause(
                "bmc-failed",
                format!("the BMC failed while {doing}"),
                "its success",
                format!("{other}: {source}"),
                next,
            )
        }
    }
}

impl Control {
    /// The host's part of the plan.
    pub(crate) fn planned(&self, host: &HostName) -> Result<(Plan, Host), Cause> {
        let gone = || {
            cause(
                "not-planned",
                "the host is not in the plan",
                "a planned host",
                host.to_string(),
                "apply a plan",
            )
        };
        let plan = self.plan().ok_or_else(gone)?;
        let planned = plan.site.host(host).map(|placed| placed.host.clone()).ok_or_else(gone)?;
        Ok((plan, planned))
    }

    /// What is known of the BMC's accounts. While only the factory's credential is known, it is the one of the secret
    /// file as applied last.
    pub(crate) fn credential_record(&self, host: &Host) -> Result<CredentialRecord, Cause> {
        let failed = |error: TrustError| system_cause(&host.name, "reading a credential", &error);
        let record = self
            .vault
            .get_record::<CredentialRecord>(&CredentialRecord::vault_name(&host.name))
            .map_err(failed)?;
        match record {
            Some(CredentialRecord::Factory { .. }) | None => Ok(CredentialRecord::new(self.factory(host)?)),
            Some(record) => Ok(record),
        }
    }

    /// The factory credential that the plan names.
    pub(crate) fn factory(&self, host: &Host) -> Result<Credential, Cause> {
        let name = &host.bmc.credential;
        let failed = |error: TrustError| system_cause(&host.name, "reading a credential", &error);
        let known = self.vault.get_record::<Credential>(&factory_name(name)).map_err(failed)?;
        known.ok_or_else(|| {
            cause(
                "no-credential",
                format!("the factory credential '{name}' is not known"),
                format!("'{name}' in the plan's secret file"),
                "it was not there when the plan was applied",
                format!("add it and apply the plan again, then `dayzero host retry {}`", host.name),
            )
        })
    }

    /// Where the BMC is, with its pinned certificate.
    pub(crate) fn target(&self, host: &Host) -> Result<Target, Cause> {
        let failed = |error: TrustError| system_cause(&host.name, "reading a pin", &error);
        let pin = self.pins.get(&host.name).map_err(failed)?.map(|pin| pin.fingerprint);
        Ok(Target::new(IpAddr::V4(host.bmc.address), host.bmc.protocol).pinned(pin))
    }

    /// A session with the host's BMC: the live one, or a new one.
    ///
    /// # Errors
    /// A cause, as a person should see it.
    pub(crate) async fn bmc(&self, host: &HostName) -> Result<Arc<dyn Bmc>, Cause> {
        let (_, planned) = self.planned(host)?;
        let record = self.credential_record(&planned)?;
        if let Some(cached) = self.busy().sessions.get(host).filter(|cached| cached.state == record.state()) {
            return Ok(cached.bmc.clone());
        }
        let target = self.target(&planned)?;
        let mut refused = None;
        for candidate in record.candidates() {
            match self.world.bmcs.connect(&target, &login(candidate)).await {
                Ok(bmc) => return Ok(self.keep(host, Arc::from(bmc), record.state())),
                Err(error @ BmcError::WrongCredential { .. }) => refused = Some(error),
                Err(error) => return Err(bmc_cause(&planned, "logging in", &error)),
            }
        }
        let observed = refused.map_or_else(|| "no credential is known".to_owned(), |error| error.to_string());
        Err(wrong_credential(host, record.state(), observed))
    }

    /// Keeps a session for later.
    pub(crate) fn keep(&self, host: &HostName, bmc: Arc<dyn Bmc>, state: &'static str) -> Arc<dyn Bmc> {
        self.busy().sessions.insert(host.clone(), Cached { bmc: bmc.clone(), state });
        bmc
    }

    /// Forgets a session that failed.
    pub(crate) async fn forget_bmc(&self, host: &HostName) {
        let cached = self.busy().sessions.remove(host);
        if let Some(cached) = cached {
            let close = cached.bmc.close();
            // A BMC that hangs must not hang us.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), close).await;
        }
    }
}
