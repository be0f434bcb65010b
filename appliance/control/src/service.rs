//! What people and tools may ask of the control plane. API, console and CLI use this trait and nothing else of control.
//!
//! Invariants: a method either does nothing and says why, or its effect is durable when it returns; each method that
//! changes something names who asked, and that is on the timeline. It neither authenticates nor authorises: the
//! listeners do. [`crate::Control`] implements it; tests of a listener may bring their own.

use crate::view::{Applied, DoctorFinding, HostView, PlanPreview, StatusView, VmRequest, WhyView};
use dayzero_model::event::Event;
use dayzero_model::ids::{HostName, Name, Sha256};
use dayzero_model::proof::ProofReport;
use dayzero_model::secret::Secret;
use dayzero_model::site::Site;
use dayzero_model::vm::Vm;
use dayzero_trust::Credential;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::broadcast;

/// A factory credential, as the secret file holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Login name.
    pub user: String,
    /// Password.
    pub password: Secret<String>,
}

/// A plan to apply. Body of `POST /v1/plan`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The plan, checked by the sender and again by control.
    pub site: Site,
    /// Factory credentials by name; those already in the store may be left out.
    #[serde(default)]
    pub credentials: BTreeMap<Name, Login>,
    /// Hash of the plan that the diff was made against ([`PlanPreview::base`]).
    pub base: Option<Sha256>,
}

/// What the doctor is to look at. Body of `POST /v1/doctor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoctorRequest {
    /// The plan whose networks are looked at; it need not be the one that is applied.
    pub site: Site,
    /// Seconds to listen, 1 to 3600: nothing is sent. None: others are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_only: Option<u16>,
}

/// Consent to wipe a disk. Body of `POST /v1/hosts/{host}/consent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentRequest {
    /// Serial (or WWN) of the disk.
    pub serial: String,
    /// Digest of the finding that was shown.
    pub finding: Sha256,
}

/// What `dayzero why` may be asked about: a host's name or a MAC, as text.
pub type Subject = str;

/// Why a request was not carried out. The first four are the asker's fault, the rest the system's.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such thing.
    #[error("there is no {kind} '{name}': {remedy}")]
    NotFound {
        /// `host`, `VM`, `offering`, …
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What would help.
        remedy: String,
    },
    /// It makes no sense now.
    #[error("{sentence}; {next_action}")]
    Refused {
        /// Why.
        sentence: String,
        /// What to do instead.
        next_action: String,
    },
    /// Someone else changed it meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// The plan breaks rules.
    #[error("the plan is refused:\n{0}")]
    BadPlan(String),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] dayzero_store::StoreError),
    /// Anything else of the system's.
    #[error("{0}")]
    System(String),
}

impl ServiceError {
    /// True if the asker must change something (HTTP 4xx), false if the system failed (5xx).
    pub fn is_askers_fault(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::System(_))
    }
}

/// The control plane's services.
#[async_trait::async_trait]
pub trait Service: Send + Sync {
    /// What an apply of this plan would change. Changes nothing.
    async fn plan_preview(&self, site: &Site) -> Result<PlanPreview, ServiceError>;

    /// Commits a plan and its factory credentials in one transaction. [`ServiceError::Conflict`] if the plan in the
    /// store is no longer `request.base`. Applying what is there already changes nothing.
    async fn apply(&self, request: ApplyRequest, who: &str) -> Result<Applied, ServiceError>;

    /// Racks, hosts, to-do list, pending clients, clusters, VMs.
    async fn status(&self) -> Result<StatusView, ServiceError>;

    /// All of one host, with the last `events` of its timeline.
    async fn host(&self, host: &HostName, events: usize) -> Result<HostView, ServiceError>;

    /// Carries on after a fix: forgets the failure and what must be observed again.
    async fn retry(&self, host: &HostName, who: &str) -> Result<(), ServiceError>;

    /// Consent to wipe the disk that was found foreign; refused unless serial and digest are the shown ones.
    async fn consent(&self, host: &HostName, request: ConsentRequest, who: &str) -> Result<(), ServiceError>;

    /// Why a host (by name) or a client (by MAC) does not go on.
    async fn why(&self, subject: &Subject) -> Result<WhyView, ServiceError>;

    /// The recorded datagrams of a host (by name) or a client (by MAC) as pcapng: of its last failed boots, and what is in
    /// memory. No HTTP, no TLS: it holds no secret.
    async fn pcap(&self, subject: &Subject) -> Result<Vec<u8>, ServiceError>;

    /// What would hinder network boot on the appliance itself and on the plan's networks; the worst comes first. It takes
    /// half a minute, or as long as it shall only listen; refused while it is at work already.
    async fn doctor(&self, request: DoctorRequest) -> Result<Vec<DoctorFinding>, ServiceError>;

    /// Begins a host's life again from `Vouched`: it is booted by network, inventoried and installed anew (its disk is
    /// then foreign and asks for consent, unless it is ours).
    async fn reset_host(&self, host: &HostName, who: &str) -> Result<(), ServiceError>;

    /// The credentials that its BMC takes, the likeliest first: a person wants to log in, or gives the server away. That
    /// somebody asked goes on the timeline.
    async fn bmc_credentials(&self, host: &HostName, who: &str) -> Result<Vec<Credential>, ServiceError>;

    /// Forgets a host that is no longer in the plan: its state, its certificate and, only if `forget_credential` says so,
    /// a generated BMC credential: nobody else knows it.
    async fn retire(&self, host: &HostName, forget_credential: bool, who: &str) -> Result<(), ServiceError>;

    /// Proves the host's paths again. `leg_missing`: first pulls that leg and leaves it out: the control, which must fail.
    /// The report of the control is returned and put on the timeline, but never counts as the host's proof.
    async fn prove(
        &self,
        host: &HostName,
        leg_missing: Option<Name>,
        who: &str,
    ) -> Result<ProofReport, ServiceError>;

    /// Accepts a VM; it is placed and started by and by.
    async fn vm_create(&self, request: VmRequest, who: &str) -> Result<Vm, ServiceError>;

    /// All VMs.
    async fn vms(&self) -> Result<Vec<Vm>, ServiceError>;

    /// A person says that a hand-pulled path is done (racks without a puller of their own). `id` stands in the to-do list.
    async fn confirm(&self, id: &str, who: &str) -> Result<(), ServiceError>;

    /// Events from now on. A slow reader is told that it lagged, and reads [`Service::status`] again.
    fn events(&self) -> broadcast::Receiver<Event>;
}
