//! Secure Boot of the system (DSP0268 `SecureBoot`, `SecureBootDatabase`): whether it is on, and who is trusted; and whom its
//! firmware trusts when it boots by HTTPS (`ComputerSystem`'s `Boot/Certificates`).

use crate::client::{Client, Resource};
use crate::{RedfishError, view};
use serde_json::{Value, json};

/// Databases looked at, and certificates of one.
const MAX_DATABASES: usize = 16;
const MAX_CERTIFICATES: usize = 64;

/// `SecureBoot` of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureBoot {
    /// `SecureBootEnable`: what the next boot does.
    pub enable: Option<bool>,
    /// `SecureBootCurrentBoot`: `Enabled` or `Disabled`.
    pub current: Option<String>,
    /// `SecureBootMode`: `UserMode`, `DeployedMode`, `SetupMode`, `AuditMode`.
    pub mode: Option<String>,
}

impl SecureBoot {
    fn from(body: &Value) -> Self {
        Self {
            enable: body.get("SecureBootEnable").and_then(Value::as_bool),
            current: view::owned(body, "/SecureBootCurrentBoot"),
            mode: view::owned(body, "/SecureBootMode"),
        }
    }

    /// The next boot refuses what nobody trusted signed: it is on, and the mode is one that checks (without a platform key
    /// firmware checks nothing; in audit mode it only writes down).
    pub fn enforced(&self) -> bool {
        let on = self.enable.unwrap_or(self.current.as_deref() == Some("Enabled"));
        on && !matches!(self.mode.as_deref(), Some("SetupMode" | "AuditMode"))
    }
}

/// A certificate of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseCertificate {
    /// `CertificateString`, where the service shows it: Dell's shows `null`.
    pub pem: Option<String>,
    /// `Subject.CommonName`.
    pub common_name: Option<String>,
}

impl DatabaseCertificate {
    fn from(body: &Value) -> Self {
        Self {
            pem: view::owned(body, "/CertificateString"),
            common_name: view::owned(body, "/Subject/CommonName"),
        }
    }
}

/// Absent, or linked to and not there.
fn absent<T>(result: Result<T, RedfishError>) -> Result<Option<T>, RedfishError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(RedfishError::Missing { .. } | RedfishError::Http { status: 404 | 501, .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

impl Client {
    async fn secure_boot_resource(&self) -> Result<Option<Resource>, RedfishError> {
        let system = self.system_resource().await?;
        absent(self.follow(&system, "/SecureBoot").await)
    }

    /// Secure Boot of the system; none where the service does not tell.
    pub async fn secure_boot(&self) -> Result<Option<SecureBoot>, RedfishError> {
        Ok(self.secure_boot_resource().await?.map(|resource| SecureBoot::from(&resource.body)))
    }

    /// The certificates' collection of a database (`db`, `KEK`, `PK`); none where the service offers no such database.
    async fn secure_boot_certificates(&self, database: &str) -> Result<Option<Resource>, RedfishError> {
        let Some(resource) = self.secure_boot_resource().await? else { return Ok(None) };
        let Some(databases) = absent(self.follow(&resource, "/SecureBootDatabases").await)? else {
            return Ok(None);
        };
        for link in self.members(&databases).await?.into_iter().take(MAX_DATABASES) {
            let member = self.get(&link).await?;
            let id = view::text(&member.body, "/DatabaseId").or_else(|| view::text(&member.body, "/Id"));
            if id == Some(database) {
                return absent(self.follow(&member, "/Certificates").await);
            }
        }
        Ok(None)
    }

    /// The certificates of a database (`db`, `KEK`, `PK`); none where the service offers no such database.
    pub async fn secure_boot_database(
        &self,
        database: &str,
    ) -> Result<Option<Vec<DatabaseCertificate>>, RedfishError> {
        let Some(collection) = self.secure_boot_certificates(database).await? else { return Ok(None) };
        self.certificates_in(&collection).await.map(Some)
    }

    async fn certificates_in(&self, collection: &Resource) -> Result<Vec<DatabaseCertificate>, RedfishError> {
        let mut found = Vec::new();
        for link in self.members(collection).await?.into_iter().take(MAX_CERTIFICATES) {
            found.push(DatabaseCertificate::from(&self.get(&link).await?.body));
        }
        Ok(found)
    }

    async fn add_certificate(&self, collection: &Resource, pem: &str) -> Result<(), RedfishError> {
        let body = json!({ "CertificateString": pem, "CertificateType": "PEM" });
        self.post(&collection.path, &body, false).await.map(drop)
    }

    async fn https_boot_collection(&self) -> Result<Option<Resource>, RedfishError> {
        let system = self.system_resource().await?;
        absent(self.follow(&system, "/Boot/Certificates").await)
    }

    /// The authorities that firmware trusts when it boots by HTTPS; none where the service shows no such list.
    pub async fn https_boot_certificates(&self) -> Result<Option<Vec<DatabaseCertificate>>, RedfishError> {
        let Some(collection) = self.https_boot_collection().await? else { return Ok(None) };
        self.certificates_in(&collection).await.map(Some)
    }

    /// Adds an authority's certificate (PEM) to that list. Some firmware takes it up at the next boot only.
    ///
    /// # Errors
    /// [`RedfishError::Unsupported`] where there is no such list; the service's refusal.
    pub async fn add_https_boot_certificate(&self, pem: &str) -> Result<(), RedfishError> {
        let none = || RedfishError::Unsupported { what: "certificates for HTTPS boot".to_owned() };
        let collection = self.https_boot_collection().await?.ok_or_else(none)?;
        self.add_certificate(&collection, pem).await
    }

    /// Adds a certificate (PEM) to a database. Some firmware takes it up at the next boot only.
    ///
    /// # Errors
    /// [`RedfishError::Unsupported`] where there is no such database; the service's refusal.
    pub async fn add_secure_boot_certificate(&self, database: &str, pem: &str) -> Result<(), RedfishError> {
        let none = || RedfishError::Unsupported { what: format!("Secure Boot database {database}") };
        let collection = self.secure_boot_certificates(database).await?.ok_or_else(none)?;
        self.add_certificate(&collection, pem).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::capture;

    #[test]
    fn what_two_vendors_tell() {
        let dell = SecureBoot::from(&capture("dell-secure-boot"));
        let (current, mode) = (Some("Disabled".to_owned()), Some("DeployedMode".to_owned()));
        assert_eq!(dell, SecureBoot { enable: Some(false), current, mode });
        let supermicro = SecureBoot::from(&capture("supermicro-secure-boot"));
        assert_eq!(supermicro.mode.as_deref(), Some("SetupMode"));
        let certificate = DatabaseCertificate::from(&capture("dell-secure-boot-db-certificate"));
        let common_name = Some("Microsoft Corporation UEFI CA 2011".to_owned());
        assert_eq!(certificate, DatabaseCertificate { pem: None, common_name });
    }

    #[test]
    fn enforced_is_what_the_next_boot_does() {
        for (enable, current, mode, want) in [
            (Some(true), "Enabled", Some("UserMode"), true),
            (Some(true), "Disabled", Some("DeployedMode"), true),
            (Some(true), "Disabled", Some("SetupMode"), false),
            (Some(true), "Enabled", Some("AuditMode"), false),
            (Some(false), "Enabled", Some("UserMode"), false),
            (None, "Enabled", None, true),
            (None, "Disabled", None, false),
        ] {
            let (current, mode) = (Some(current.to_owned()), mode.map(str::to_owned));
            let told = SecureBoot { enable, current, mode };
            assert_eq!(told.enforced(), want, "{told:?}");
        }
    }
}
