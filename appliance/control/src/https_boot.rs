//! Whom loaders and firmware trust when they fetch by HTTPS: the site's authority for it.
//!
//! Invariants: it is made before the boot services first listen, and never by anything else, so that whoever asks earlier is
//! told that there is none; its certificate is also a file in the data directory, for people who enrol it by hand. Where it
//! cannot be enrolled, the host boots by HTTP: that is told, and no reason to stop.

use crate::control::Control;
use dayzero_bmc::{Bmc, SiteCertificate};
use dayzero_model::facts::HostFacts;
use dayzero_model::site::Host;
use dayzero_trust::LoaderCa;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Its certificate in the data directory.
const CERTIFICATE: &str = "https-boot.pem";

/// The authority, once it is opened.
pub(crate) type Loaders = OnceCell<LoaderCa>;

impl Control {
    /// The authority, made at the first start.
    ///
    /// # Errors
    /// The vault or the store fails, or its file cannot be written.
    pub(crate) async fn open_loader_ca(self: &Arc<Self>) -> std::io::Result<&LoaderCa> {
        let make = || {
            let control = self.clone();
            let open = move || {
                let authority = LoaderCa::open(&control.vault).map_err(std::io::Error::other)?;
                let file = control.config.data.join(CERTIFICATE);
                std::fs::write(&file, authority.certificate()).map_err(|error| {
                    std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
                })?;
                tracing::info!(certificate = %authority.fingerprint(), "the site's authority for HTTPS boot");
                Ok(authority)
            };
            async { tokio::task::spawn_blocking(open).await.map_err(std::io::Error::other)? }
        };
        self.loaders.get_or_try_init(make).await
    }

    /// Its certificate, as a BMC is asked for it.
    fn https_certificate(&self) -> Option<SiteCertificate> {
        let authority = self.loaders.get()?;
        let (pem, common_name) = (authority.certificate().to_owned(), authority.common_name().to_owned());
        Some(SiteCertificate { pem, common_name })
    }

    /// Whether the firmware's list for HTTPS boot holds it, where the BMC tells.
    pub(crate) async fn https_boot_of(&self, planned: &Host, bmc: &dyn Bmc) -> Option<bool> {
        let site = self.https_certificate()?;
        bmc.https_boot(&site).await.unwrap_or_else(|error| {
            // It decides between HTTPS and HTTP: no reason to stop.
            tracing::warn!(%error, host = %planned.name, "the certificates for HTTPS boot could not be read from the BMC");
            None
        })
    }

    /// Gives it to the firmware, where the plan wants HTTPS and the BMC shows that it is missing.
    pub(crate) async fn enrol_https_boot(self: &Arc<Self>, planned: &Host, bmc: &dyn Bmc) {
        let host = &planned.name;
        let told = self.facts(host).and_then(|facts| facts.bmc.as_ref().and_then(|bmc| bmc.https_boot));
        let (Some(true), Some(false), Some(site)) = (planned.https_boot, told, self.https_certificate())
        else {
            return;
        };
        let enrolled = bmc.enrol_https_boot(&site).await;
        self.tell_bmc(host, "enrol the site's authority for HTTPS boot", &enrolled, "it is in the list");
        if enrolled.is_err() {
            return;
        }
        let change = |facts: &mut HostFacts| {
            if let Some(bmc) = &mut facts.bmc {
                bmc.https_boot = Some(true);
            }
        };
        if let Err(error) = self.step(host, change).await {
            tracing::error!(%error, %host, "that its firmware trusts the site for HTTPS boot could not be stored");
        }
    }
}
