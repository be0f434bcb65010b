//! Virtual media: a CD drive of the BMC into which an image is put by its URL.

use crate::client::{Client, Resource};
use crate::{RedfishError, view};
use serde_json::{Value, json};
use std::time::Duration;

/// Drives looked at.
const MAX_DRIVES: usize = 8;

/// A virtual drive as it is. The image's name is not shown: a single-use URL is a secret until it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct VirtualMedia {
    /// Its path on the service.
    pub path: String,
    /// `MediaTypes`.
    pub types: Vec<String>,
    /// `Inserted`.
    pub inserted: bool,
    /// `Image`.
    pub image: Option<String>,
}

impl std::fmt::Debug for VirtualMedia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtualMedia")
            .field("path", &self.path)
            .field("inserted", &self.inserted)
            .finish_non_exhaustive()
    }
}

impl VirtualMedia {
    fn from(path: &str, body: &Value) -> Self {
        let image = view::text(body, "/Image").map(str::to_owned);
        Self {
            path: path.to_owned(),
            types: view::texts(body, "/MediaTypes"),
            inserted: body.get("Inserted").and_then(Value::as_bool).unwrap_or(image.is_some()),
            image,
        }
    }

    fn is_cd(&self) -> bool {
        self.types.iter().any(|t| matches!(t.as_str(), "CD" | "DVD"))
    }
}

impl Client {
    async fn cd_drives(&self) -> Result<Vec<Resource>, RedfishError> {
        let mut drives = Vec::new();
        for owner in [self.manager_resource().await, self.system_resource().await].into_iter().flatten() {
            if self.link(&owner, "/VirtualMedia").is_err() {
                continue;
            }
            // Some services link to a collection that they do not have.
            let collection = match self.follow(&owner, "/VirtualMedia").await {
                Err(RedfishError::Http { status: 404 | 501, .. }) => continue,
                other => other?,
            };
            for link in self.members(&collection).await?.into_iter().take(MAX_DRIVES) {
                let drive = self.get(&link).await?;
                if VirtualMedia::from(&link, &drive.body).is_cd() {
                    drives.push(drive);
                }
            }
            if !drives.is_empty() {
                break;
            }
        }
        Ok(drives)
    }

    /// Virtual CD drives; empty where the service has none.
    pub async fn virtual_cds(&self) -> Result<Vec<VirtualMedia>, RedfishError> {
        Ok(self.cd_drives().await?.iter().map(|r| VirtualMedia::from(&r.path, &r.body)).collect())
    }

    /// Puts the image at `url` into a virtual CD drive: a free one, else the first after ejecting it. Reads it back.
    pub async fn insert_cd(&self, url: &str) -> Result<VirtualMedia, RedfishError> {
        let drives = self.cd_drives().await?;
        let free = drives.iter().find(|d| !VirtualMedia::from(&d.path, &d.body).inserted);
        let drive = free
            .or(drives.first())
            .ok_or_else(|| RedfishError::Unsupported { what: "virtual CD drive".into() })?;
        if free.is_none() {
            self.eject(drive).await?;
        }
        let drive = self.get(&drive.path).await?;
        match self.action(&drive, "#VirtualMedia.InsertMedia") {
            Ok(target) => {
                let body = json!({ "Image": url, "Inserted": true, "WriteProtected": true });
                self.post(&target, &body, true).await?;
            }
            // Services before VirtualMedia 1.2 have no action: the property itself is written.
            Err(_) => {
                self.patch(&drive, &json!({ "Image": url, "Inserted": true }), true).await?;
            }
        }
        self.wait_inserted(&drive.path, true).await
    }

    /// Empties all virtual CD drives that hold an image. Returns how many there were.
    pub async fn eject_cds(&self) -> Result<usize, RedfishError> {
        let mut ejected = 0;
        for drive in self.cd_drives().await? {
            if VirtualMedia::from(&drive.path, &drive.body).inserted {
                self.eject(&drive).await?;
                ejected += 1;
            }
        }
        Ok(ejected)
    }

    async fn eject(&self, drive: &Resource) -> Result<(), RedfishError> {
        match self.action(drive, "#VirtualMedia.EjectMedia") {
            Ok(target) => self.post(&target, &json!({}), false).await.map(|_| ())?,
            Err(_) => {
                self.patch(drive, &json!({ "Image": null, "Inserted": false }), false).await.map(|_| ())?
            }
        }
        self.wait_inserted(&drive.path, false).await.map(|_| ())
    }

    async fn wait_inserted(&self, path: &str, wanted: bool) -> Result<VirtualMedia, RedfishError> {
        let deadline = tokio::time::Instant::now() + self.limits.settle;
        loop {
            let media = VirtualMedia::from(path, &self.get(path).await?.body);
            if media.inserted == wanted {
                return Ok(media);
            }
            if tokio::time::Instant::now() >= deadline {
                let (wanted, observed) = (wanted.to_string(), media.inserted.to_string());
                return Err(RedfishError::ReadBack { what: "Inserted of the virtual CD", wanted, observed });
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_of_two_vendors_are_empty_cds() {
        for name in ["dell-media", "supermicro-media"] {
            let path = format!("{}/tests/data/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let body: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            let media = VirtualMedia::from("/x", &body);
            assert!(media.is_cd() && !media.inserted, "{name}: {media:?}");
        }
    }

    #[test]
    fn debug_does_not_show_the_url() {
        let body = json!({"Image": "http://10.0.0.1/once/s3cret", "Inserted": true});
        assert!(!format!("{:?}", VirtualMedia::from("/x", &body)).contains("s3cret"));
    }
}
