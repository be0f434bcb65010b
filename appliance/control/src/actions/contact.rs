//! Reaching a BMC, and rotating its credential.
//!
//! Invariant: what is sent was stored before; a refused password is not tried again by itself, since BMCs lock accounts.

use super::{stopping, store_cause};
use crate::control::Control;
use crate::engine::{Delta, Writes};
use crate::sessions::{bmc_cause, login, phase_of, system_cause};
use dayzero_bmc::{Bmc, BmcError, PowerState, generate_password};
use dayzero_lifecycle::RotateStep;
use dayzero_lifecycle::cause::{bmc_unreachable, cause, pin_mismatch, wrong_credential};
use dayzero_model::condition::Cause;
use dayzero_model::facts::BmcFacts;
use dayzero_model::ids::HostName;
use dayzero_model::site::Host;
use dayzero_trust::{Credential, CredentialRecord, PinVerdict, TrustError};
use std::sync::Arc;
use std::time::Duration;

/// Name of our account on each BMC.
const ACCOUNT: &str = "dayzero";
/// Pause between two tries to reach a BMC.
const PAUSE: Duration = Duration::from_secs(2);
/// Tries to reach a BMC stop a little before the action's own limit, so that the better cause is told.
const PATIENCE: Duration = Duration::from_secs(170);

/// Logs in with the first credential that works; waits for a BMC that does not answer yet.
pub(super) async fn contact(control: &Arc<Control>, host: &HostName) -> Result<Delta, Cause> {
    let (_, planned) = control.planned(host)?;
    control.forget_bmc(host).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    let (bmc, record) = loop {
        let permit = control.bmc_limit.acquire().await.map_err(|_| stopping())?;
        match log_in(control, &planned).await? {
            Ok(found) => break found,
            Err(unreachable) if tokio::time::Instant::now() >= until => {
                let lease = control.facts(host).and_then(|facts| facts.bmc_lease);
                let dhcp = lease.map_or("it took no address by our DHCP".to_owned(), |at| {
                    format!("it took its address at {at}")
                });
                let expected = format!("an answer at {}", planned.bmc.address);
                return Err(bmc_unreachable(host, expected, format!("{unreachable}; {dhcp}")));
            }
            Err(_) => {}
        }
        drop(permit);
        tokio::time::sleep(PAUSE).await;
    };
    let identity = bmc.identity().await;
    control.tell_bmc(host, "read identity", &identity, "read");
    let identity = identity.map_err(|error| bmc_cause(&planned, "reading its identity", &error))?;
    if let Some(certificate) = identity.certificate {
        let failed = |error: TrustError| system_cause(host, "pinning a certificate", &error);
        let verdict = control.pins.check(host, certificate, control.now()).await.map_err(failed)?;
        if let PinVerdict::Changed { expected } = verdict {
            return Err(pin_mismatch(
                host,
                format!("certificate {expected}"),
                format!("certificate {certificate}"),
            ));
        }
    }
    let power = bmc.power().await.map_err(|error| bmc_cause(&planned, "reading its power", &error))?;
    let site = control.secure_key().await.map(super::boot::site_certificate);
    let secure_boot = bmc.secure_boot(site.as_ref()).await.unwrap_or_else(|error| {
        // It decides a boot loader at most: no reason to stop.
        tracing::warn!(%error, %host, "Secure Boot could not be read from the BMC");
        None
    });
    let https_boot = control.https_boot_of(&planned, bmc.as_ref()).await;
    control.keep(host, bmc, record.state());
    let facts = BmcFacts {
        address: planned.bmc.address,
        protocol: identity.protocol,
        certificate: identity.certificate,
        manufacturer: identity.manufacturer,
        model: identity.model,
        serial: identity.serial,
        board_serial: identity.board_serial,
        uuid: identity.uuid,
        bmc_mac: identity.bmc_mac,
        nic_macs: identity.nic_macs,
        power_on: power == PowerState::On,
        secure_boot,
        https_boot,
        at: control.now(),
    };
    let phase = phase_of(&record);
    Ok(Box::new(move |known| {
        known.bmc = Some(facts);
        known.credential = phase;
    }))
}

/// One round over the credentials. The inner error: it does not answer.
async fn log_in(
    control: &Arc<Control>,
    planned: &Host,
) -> Result<Result<(Arc<dyn Bmc>, CredentialRecord), String>, Cause> {
    let host = &planned.name;
    let target = control.target(planned)?;
    let record = control.credential_record(planned)?;
    let factory = control.factory(planned)?;
    let mut refused = Vec::new();
    let own: Vec<Credential> = record.candidates().into_iter().cloned().collect();
    // Last the factory's: after a BMC was reset to it, we begin anew.
    let again = (!own.contains(&factory)).then_some(factory.clone());
    for candidate in own.iter().chain(&again) {
        let result = control.world.bmcs.connect(&target, &login(candidate)).await;
        match result {
            Ok(bmc) => {
                control.tell_bmc(
                    host,
                    &format!("log in as {}", candidate.user),
                    &Ok::<_, BmcError>(()),
                    "accepted",
                );
                let record = if again.as_ref() == Some(candidate) {
                    CredentialRecord::new(factory)
                } else {
                    record.clone()
                };
                if again.is_some() && record.state() == "factory" {
                    store_record(control, host, &record).await?;
                }
                return Ok(Ok((Arc::from(bmc), record)));
            }
            Err(BmcError::Unreachable { reason, .. }) => return Ok(Err(reason)),
            Err(error @ BmcError::Timeout { .. }) => return Ok(Err(error.to_string())),
            Err(error @ BmcError::WrongCredential { .. }) => {
                control.tell_bmc(host, &format!("log in as {}", candidate.user), &Err::<(), _>(&error), "");
                refused.push(candidate.user.clone());
            }
            Err(error) => {
                control.tell_bmc(host, &format!("log in as {}", candidate.user), &Err::<(), _>(&error), "");
                return Err(bmc_cause(planned, "logging in", &error));
            }
        }
    }
    let which = if own.contains(&factory) { "factory" } else { "stored" };
    Err(wrong_credential(
        host,
        which,
        format!("the BMC at {} refuses the user(s) {}", planned.bmc.address, refused.join(", ")),
    ))
}

async fn store_record(
    control: &Arc<Control>,
    host: &HostName,
    record: &CredentialRecord,
) -> Result<(), Cause> {
    let failed = |error: TrustError| system_cause(host, "storing a credential", &error);
    control.vault.put_record(&CredentialRecord::vault_name(host), record).await.map_err(failed)
}

/// Stores a record and its phase in one transaction.
async fn advance(control: &Arc<Control>, host: &HostName, record: CredentialRecord) -> Result<Delta, Cause> {
    let phase = phase_of(&record);
    let (vault, name) = (control.vault.clone(), CredentialRecord::vault_name(host));
    let writes: Writes = Box::new(move |tx| {
        vault.put_record_in(tx, &name, &record).map_err(|error| dayzero_store::StoreError::BadKey {
            table: "vault".to_owned(),
            key: error.to_string(),
            rule: "a credential is sealed before it is stored",
        })
    });
    let change = move |facts: &mut dayzero_model::facts::HostFacts| facts.credential = phase;
    control.step_with(host, change, Some(writes)).await.map_err(store_cause(host, "storing a credential"))?;
    control.forget_bmc(host).await;
    Ok(Box::new(move |facts| facts.credential = phase))
}

fn step_failed(host: &HostName) -> impl Fn(TrustError) -> Cause + '_ {
    move |error| system_cause(host, "rotating a credential", &error)
}

/// One step of the rotation. Each may be repeated.
pub(super) async fn rotate(
    control: &Arc<Control>,
    host: &HostName,
    step: RotateStep,
) -> Result<Delta, Cause> {
    let (_, planned) = control.planned(host)?;
    let _permit = control.bmc_limit.acquire().await.map_err(|_| stopping())?;
    let record = control.credential_record(&planned)?;
    match (step, record) {
        (RotateStep::Store, record @ CredentialRecord::Factory { .. }) => {
            generate(control, &planned, record).await
        }
        (RotateStep::Send, record @ CredentialRecord::PendingStored { .. }) => {
            send(control, &planned, record).await
        }
        (RotateStep::DisableFactory, record @ CredentialRecord::Applied { .. }) => {
            disable(control, &planned, record).await
        }
        // The record is ahead of the facts: the process died between the two.
        (_, record) => {
            let phase = phase_of(&record);
            Ok(Box::new(move |facts| facts.credential = phase))
        }
    }
}

async fn generate(control: &Arc<Control>, planned: &Host, record: CredentialRecord) -> Result<Delta, Cause> {
    let host = &planned.name;
    let bmc = control.bmc(host).await?;
    let policy = bmc.account_policy().await;
    control.tell_bmc(host, "read the account policy", &policy, "read");
    let policy = policy.map_err(|error| bmc_cause(planned, "reading its account policy", &error))?;
    let password = generate_password(&policy).ok_or_else(|| {
        let observed = format!("at most {} characters", policy.max_length);
        let next = "update the BMC's firmware; until then it must not be reachable by anybody else";
        cause("weak-bmc", "the BMC allows only short passwords", "12 characters or more", observed, next)
    })?;
    let pending = Credential { user: ACCOUNT.to_owned(), password };
    let record = record.pending(pending).map_err(step_failed(host))?;
    let delta = advance(control, host, record).await?;
    control.tell_bmc(
        host,
        "credential",
        &Ok::<_, BmcError>(()),
        "generated, encrypted, stored and synced; not sent yet",
    );
    Ok(delta)
}

async fn send(control: &Arc<Control>, planned: &Host, record: CredentialRecord) -> Result<Delta, Cause> {
    let host = &planned.name;
    let CredentialRecord::PendingStored { factory, pending } = &record else { return Err(stopping()) };
    let target = control.target(planned)?;
    let works = match control.world.bmcs.connect(&target, &login(pending)).await {
        Ok(bmc) => {
            bmc.close().await;
            true
        }
        Err(BmcError::WrongCredential { .. }) => false,
        Err(error) => return Err(bmc_cause(planned, "trying the generated credential", &error)),
    };
    if !works {
        let bmc = match control.world.bmcs.connect(&target, &login(factory)).await {
            Ok(bmc) => bmc,
            Err(error @ BmcError::WrongCredential { .. }) => {
                return Err(wrong_credential(host, "factory", error.to_string()));
            }
            Err(error) => return Err(bmc_cause(planned, "logging in with the factory credential", &error)),
        };
        let set = bmc.create_or_set_account(&pending.user, &pending.password).await;
        control.tell_bmc(host, &format!("set account {}", pending.user), &set, "accepted");
        let tried = match &set {
            Ok(()) => bmc.try_login(&pending.user, &pending.password).await,
            Err(_) => Ok(()),
        };
        bmc.close().await;
        set.map_err(|error| bmc_cause(planned, "setting our account", &error))?;
        control.tell_bmc(host, &format!("try account {}", pending.user), &tried, "accepted");
        tried.map_err(|error| bmc_cause(planned, "trying our account", &error))?;
    }
    let record = record.applied().map_err(step_failed(host))?;
    advance(control, host, record).await
}

async fn disable(control: &Arc<Control>, planned: &Host, record: CredentialRecord) -> Result<Delta, Cause> {
    let host = &planned.name;
    let CredentialRecord::Applied { factory, .. } = &record else { return Err(stopping()) };
    let bmc = control.bmc(host).await?;
    let refused = |tried: &Result<(), BmcError>| matches!(tried, Err(BmcError::WrongCredential { .. }));
    let mut tried = bmc.try_login(&factory.user, &factory.password).await;
    if !refused(&tried) {
        let disabled = bmc.disable_account(&factory.user).await;
        control.tell_bmc(host, &format!("disable account {}", factory.user), &disabled, "accepted");
        disabled.map_err(|error| bmc_cause(planned, "disabling the factory account", &error))?;
        tried = bmc.try_login(&factory.user, &factory.password).await;
    }
    if !refused(&tried) {
        let observed = tried.map_or_else(|error| error.to_string(), |()| "it is accepted".to_owned());
        return Err(cause(
            "factory-credential-open",
            "the factory credential still works after it was disabled",
            "its login is refused",
            observed,
            format!("disable the account by hand, then `dayzero host retry {host}`"),
        ));
    }
    control.tell_bmc(
        host,
        &format!("try account {}", factory.user),
        &Ok::<_, BmcError>(()),
        "refused, as it should be",
    );
    let record = record.factory_disabled().map_err(step_failed(host))?;
    advance(control, host, record).await
}
