//! The service: each request checked, done in one transaction, told on the timeline.

use crate::actions::prove::prove;
use crate::control::{Control, Flight, Plan};
use crate::records::{self, CURRENT, PLAN, PlanRecord};
use crate::service::{ApplyRequest, ConsentRequest, DoctorRequest, Service, ServiceError, Subject};
use crate::sessions::factory_name;
use crate::view::{Applied, DoctorFinding, HostView, PlanPreview, StatusView, VmRequest, WhyView};
use dayzero_lifecycle::{ActionKind, desired, retry};
use dayzero_model::condition::Condition;
use dayzero_model::event::Event;
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::{HostName, Name, Sha256};
use dayzero_model::install::DiskConsent;
use dayzero_model::proof::ProofReport;
use dayzero_model::site::Site;
use dayzero_model::vm::Vm;
use dayzero_plan::{Known, Severity};
use dayzero_store::StoreError;
use dayzero_trust::{Credential, CredentialRecord, Revocation};
use std::sync::Arc;
use tokio::sync::broadcast;

fn refused(sentence: impl Into<String>, next_action: impl Into<String>) -> ServiceError {
    ServiceError::Refused { sentence: sentence.into(), next_action: next_action.into() }
}

impl Control {
    /// Errors of the lints; the sender has shown them with their lines already.
    pub(crate) fn lint(&self, site: &Site) -> Result<(), ServiceError> {
        let found = dayzero_plan::lint(site, &Known::default());
        let errors = found.iter().filter(|finding| finding.severity() == Severity::Error);
        let text: Vec<_> =
            errors.map(|finding| format!("{}: {}", finding.code(), finding.message())).collect();
        if text.is_empty() { Ok(()) } else { Err(ServiceError::BadPlan(text.join("\n"))) }
    }

    fn preview(&self, site: &Site) -> PlanPreview {
        let old = self.plan();
        let diff = dayzero_plan::diff(old.as_ref().map(|plan| &*plan.site), site);
        let mut consequences = Vec::new();
        if let Some(old) = &old {
            for placed in old.site.hosts() {
                let name = &placed.host.name;
                match site.host(name) {
                    None => consequences.push(format!(
                        "{name} is no longer touched; `dayzero host retire {name}` forgets it"
                    )),
                    Some(new) if new.host != placed.host => {
                        consequences.push(format!(
                            "{name} is looked at again: what rested on the old plan becomes unmet"
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        PlanPreview {
            base: old.map(|plan| plan.hash),
            new: dayzero_plan::plan_hash(site),
            empty: diff.is_empty(),
            text: diff.to_string(),
            diff: diff.to_json(),
            consequences,
        }
    }

    async fn apply_in_turn(
        self: Arc<Self>,
        request: ApplyRequest,
        who: String,
    ) -> Result<Applied, ServiceError> {
        let _turn = self.turn.lock().await;
        let preview = self.preview(&request.site);
        if preview.base != request.base && !preview.empty {
            let said = "the plan in the store is no longer the one that this diff was made against: look at the diff again";
            return Err(ServiceError::Conflict(said.to_owned()));
        }
        let mut tx = self.store.tx();
        let mut changed = !preview.empty;
        for (name, login) in &request.credentials {
            let (vault_name, new) = (
                factory_name(name),
                Credential { user: login.user.clone(), password: login.password.clone() },
            );
            let old = self.vault.get_record::<Credential>(&vault_name).map_err(system)?;
            if old.as_ref() != Some(&new) {
                self.vault.put_record_in(&mut tx, &vault_name, &new).map_err(system)?;
                changed = true;
            }
        }
        let named = |name: &Name| -> Result<bool, ServiceError> {
            Ok(request.credentials.contains_key(name)
                || self.vault.get_record::<Credential>(&factory_name(name)).map_err(system)?.is_some())
        };
        for placed in request.site.hosts() {
            let credential = &placed.host.bmc.credential;
            if !named(credential)? {
                let text = format!(
                    "{}: the factory credential '{credential}' is not in the secret file",
                    placed.host.name
                );
                return Err(ServiceError::BadPlan(text));
            }
        }
        if !changed {
            return Ok(Applied { hash: preview.new, changed: false, text: preview.text });
        }
        let text =
            serde_json::to_vec(&request.site).map_err(|error| ServiceError::System(error.to_string()))?;
        let store = self.store.clone();
        let blob = tokio::task::spawn_blocking(move || store.put_blob(&text)).await;
        let site = blob.map_err(|error| ServiceError::System(error.to_string()))??;
        let record = PlanRecord { hash: preview.new, site, applied: self.now(), by: who.clone() };
        tx.put(&PLAN, &CURRENT.to_owned(), &record)?;
        self.commit(tx).await?;
        let plan = Plan::new(request.site, preview.new);
        self.mirror_mut().plan = Some(plan.clone());
        self.tell_person(None, &who, format!("applied plan {}", &preview.new.to_string()[..12]));
        self.read_manifest();
        // It is the plan from here on, whatever becomes of a host's step: the services hear of it first.
        self.replanned.notify_waiters();
        for placed in plan.site.hosts() {
            self.step_in_turn(&placed.host.name, |_| {}, None, Some(&plan)).await?;
        }
        Ok(Applied { hash: preview.new, changed: true, text: preview.text })
    }

    /// A proof that a person asked for: it counts as the host's flight, so that nothing else moves meanwhile.
    async fn proof_flight(
        self: &Arc<Self>,
        host: &HostName,
        leg: Option<Name>,
    ) -> Result<ProofReport, ServiceError> {
        let plan = self.must_know(host)?;
        let placed =
            plan.site.host(host).ok_or_else(|| refused("the host is not in the plan", "apply a plan"))?;
        if !self.record(host).conditions.is_met(Condition::Wired) {
            return Err(refused(format!("{host} is not wired"), format!("see `dayzero host show {host}`")));
        }
        let order = desired::proof(&plan.site, &placed)
            .map_err(|cause| refused(cause.sentence, cause.next_action))?;
        let (control, name) = (self.clone(), host.clone());
        let task = {
            let mut busy = self.busy();
            if busy.flights.contains_key(host) {
                return Err(refused(format!("something is under way on {host}"), "wait for it to end"));
            }
            busy.next += 1;
            let number = busy.next;
            let task = self.tasks.spawn(async move {
                let report = prove(&control, &name, order, leg).await;
                control.busy().flights.remove(&name);
                report
            });
            let flight = Flight { kind: ActionKind::Prove, number, abort: task.abort_handle() };
            busy.flights.insert(host.clone(), flight);
            task
        };
        let report = task.await;
        self.busy().flights.remove(host);
        match report {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(cause)) => Err(ServiceError::Refused {
                sentence: format!("{}: {}", cause.sentence, cause.observed),
                next_action: cause.next_action,
            }),
            Err(_) => Err(ServiceError::System("the proof was given up".to_owned())),
        }
    }

    async fn forget(self: &Arc<Self>, host: &HostName, reason: &str) -> Result<(), ServiceError> {
        self.abort_all(host);
        self.world.agents.disconnect(host);
        if let Some(vouch) = self.facts(host).and_then(|facts| facts.vouch.clone()) {
            let revocation = Revocation { host: host.clone(), reason: reason.to_owned(), at: self.now() };
            self.ca.revoke(vouch.certificate, revocation).await.map_err(system)?;
        }
        Ok(())
    }

    /// What the vault has of a BMC, also of one that left the plan.
    fn stored_credential(&self, host: &HostName) -> Result<Option<CredentialRecord>, ServiceError> {
        self.vault.get_record(&CredentialRecord::vault_name(host)).map_err(system)
    }

    async fn retire_in_turn(self: Arc<Self>, host: HostName) -> Result<(), ServiceError> {
        let _turn = self.turn.lock().await;
        let mut tx = self.store.tx();
        let facts = self.facts(&host).unwrap_or_default();
        records::put_facts(&self.store, &mut tx, &host, &facts, &HostFacts::default())?;
        for entry in self.store.scan(&records::FACTS, &format!("{host}/"))? {
            tx.delete(&records::FACTS, &entry.key)?;
        }
        tx.delete(&records::CONDITIONS, &host)?;
        self.vault.delete_in(&mut tx, &CredentialRecord::vault_name(&host)).map_err(system)?;
        self.commit(tx).await?;
        self.mirror_mut().hosts.remove(&host);
        Ok(())
    }
}

fn system(error: dayzero_trust::TrustError) -> ServiceError {
    ServiceError::System(error.to_string())
}

#[async_trait::async_trait]
impl Service for Arc<Control> {
    async fn plan_preview(&self, site: &Site) -> Result<PlanPreview, ServiceError> {
        self.lint(site)?;
        Ok(self.preview(site))
    }

    async fn apply(&self, request: ApplyRequest, who: &str) -> Result<Applied, ServiceError> {
        self.lint(&request.site)?;
        let applied = self.tasks.spawn(self.clone().apply_in_turn(request, who.to_owned()));
        applied.await.unwrap_or(Err(ServiceError::Store(StoreError::Closed)))
    }

    async fn status(&self) -> Result<StatusView, ServiceError> {
        Ok(self.status_view())
    }

    async fn host(&self, host: &HostName, events: usize) -> Result<HostView, ServiceError> {
        self.host_view(host, events)
    }

    async fn retry(&self, host: &HostName, who: &str) -> Result<(), ServiceError> {
        self.must_know(host)?;
        self.tell_person(Some(host), who, "retry");
        self.abort_all(host);
        self.read_manifest();
        let conditions = self.record(host).conditions.clone();
        self.step(host, move |facts| retry::retry(facts, &conditions)).await?;
        Ok(())
    }

    async fn consent(&self, host: &HostName, request: ConsentRequest, who: &str) -> Result<(), ServiceError> {
        self.must_know(host)?;
        let facts = self.record(host).facts;
        let show = format!("see `dayzero host show {host}`");
        let finding = facts
            .finding
            .as_ref()
            .ok_or_else(|| refused(format!("no foreign disk was found on {host}"), show.clone()))?;
        let disk = dayzero_lifecycle::cause::disk_name(finding);
        if request.serial != disk || request.finding != finding.digest {
            let sentence = format!(
                "the consent names disk {} and finding {}, but shown was disk {disk} and finding {}",
                request.serial, request.finding, finding.digest
            );
            return Err(refused(sentence, show));
        }
        let consent = DiskConsent {
            host: host.clone(),
            serial: request.serial,
            finding: request.finding,
            given_by: who.to_owned(),
            given_at: self.now(),
        };
        self.tell_person(
            Some(host),
            who,
            format!("consents to wipe disk {disk} ({})", finding.found.join("; ")),
        );
        self.step(host, move |facts| {
            facts.consent = Some(consent);
            facts.failure = None;
        })
        .await?;
        Ok(())
    }

    async fn why(&self, subject: &Subject) -> Result<WhyView, ServiceError> {
        if let Some(host) = self.host_of(subject) {
            self.look_at_links(&host).await;
        }
        self.why_view(subject)
    }

    async fn pcap(&self, subject: &Subject) -> Result<Vec<u8>, ServiceError> {
        let (control, subject) = (self.clone(), subject.to_owned());
        // Recordings of failed boots are files.
        let read = tokio::task::spawn_blocking(move || control.pcap_file(&subject)).await;
        read.unwrap_or_else(|error| Err(ServiceError::System(error.to_string())))
    }

    async fn doctor(&self, request: DoctorRequest) -> Result<Vec<DoctorFinding>, ServiceError> {
        Control::examined(self, request).await
    }

    async fn reset_host(&self, host: &HostName, who: &str) -> Result<(), ServiceError> {
        self.must_know(host)?;
        let runs = self
            .mirror()
            .vms
            .values()
            .any(|vm| vm.host.as_ref() == Some(host) && vm.state == dayzero_model::vm::VmState::Running);
        if runs {
            return Err(refused(format!("VMs run on {host}"), "stop them first"));
        }
        self.tell_person(Some(host), who, "reset: its life begins again with a network boot");
        self.forget(host, "reset").await?;
        self.step(host, retry::reset).await?;
        Ok(())
    }

    async fn bmc_credentials(&self, host: &HostName, who: &str) -> Result<Vec<Credential>, ServiceError> {
        let record = self.stored_credential(host)?;
        let known: Vec<Credential> = record.iter().flat_map(CredentialRecord::candidates).cloned().collect();
        if known.is_empty() {
            self.must_know(host)?;
            return Err(refused(
                format!("no credential of {host}'s BMC was generated yet"),
                "the plan's secret file has the factory's",
            ));
        }
        self.tell_person(Some(host), who, "was shown the BMC's credential");
        Ok(known)
    }

    async fn retire(&self, host: &HostName, forget_credential: bool, who: &str) -> Result<(), ServiceError> {
        if self.must_know(host).is_ok() {
            return Err(refused(
                format!("{host} is in the plan"),
                "take it out of the plan and apply it first",
            ));
        }
        if !self.mirror().hosts.contains_key(host) {
            let remedy =
                "hosts that left the plan and are not retired yet are shown by `dayzero apply`".to_owned();
            return Err(ServiceError::NotFound { kind: "host", name: host.to_string(), remedy });
        }
        let generated = self.stored_credential(host)?.is_some_and(|record| !record.is_factory());
        if generated && !forget_credential {
            return Err(refused(
                format!("only the generated credential opens {host}'s BMC, and nobody else knows it"),
                format!(
                    "note what `dayzero host credential {host}` shows, then retire with --forget-credential"
                ),
            ));
        }
        self.tell_person(Some(host), who, "retired");
        self.forget(host, "retired").await?;
        let retired = self.tasks.spawn(self.clone().retire_in_turn(host.clone()));
        retired.await.unwrap_or(Err(ServiceError::Store(StoreError::Closed)))
    }

    async fn prove(
        &self,
        host: &HostName,
        leg_missing: Option<Name>,
        who: &str,
    ) -> Result<ProofReport, ServiceError> {
        let what =
            leg_missing.as_ref().map_or("proof".to_owned(), |leg| format!("control trial without {leg}"));
        self.tell_person(Some(host), who, what);
        let control_trial = leg_missing.is_some();
        let report = self.proof_flight(host, leg_missing).await?;
        let basis: Option<Sha256> = self.plan().and_then(|plan| {
            plan.site
                .host(host)
                .and_then(|placed| desired::proof(&plan.site, &placed).ok())
                .map(|order| order.basis)
        });
        let counted = report.clone();
        self.step(host, move |facts| {
            if !control_trial {
                facts.proof = Some(counted);
                facts.proof_basis = basis;
            }
        })
        .await?;
        Ok(report)
    }

    async fn vm_create(&self, request: VmRequest, who: &str) -> Result<Vm, ServiceError> {
        self.create_vm(request, who).await
    }

    async fn vms(&self) -> Result<Vec<Vm>, ServiceError> {
        Ok(self.mirror().vms.values().cloned().collect())
    }

    async fn confirm(&self, id: &str, who: &str) -> Result<(), ServiceError> {
        if self.world.puller.confirm(id) {
            self.tell_person(None, who, format!("confirms {id}"));
            return Ok(());
        }
        let remedy = "see the to-do list of `dayzero status`".to_owned();
        Err(ServiceError::NotFound { kind: "request", name: id.chars().take(80).collect(), remedy })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.timeline.subscribe()
    }
}
