//! What hosts that enforce Secure Boot load: the discovery image as one file, signed here by the site's key, and Debian's
//! shim and GRUB.
//!
//! Invariants: the key is made at the first start that has something to sign; nothing unsigned is served under a signed
//! file's name; what cannot be signed is on the to-do list, and everything else is served all the same. The site's
//! certificate is also a file in the data directory, for people who enrol it by hand. Signed files are large, so they are
//! made, and kept in memory, from the first host on that needs them; services listen before that.

use crate::config::Images;
use crate::control::Control;
use crate::view::Todo;
use bytes::Bytes;
use dayzero_lifecycle::boot;
use dayzero_model::boot::Chain;
use dayzero_model::site::Placed;
use dayzero_pxe::{LateFiles, PxeConfig, SecureLoaders};
use dayzero_trust::{SecureBootKey, Vault};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The site's certificate in the data directory.
const CERTIFICATE: &str = "secure-boot.pem";
const AIL: &str = "secure-boot";

/// What helps where something cannot be signed.
pub(crate) const REMEDY: &str = "mend what it says (files under `secure` in serve.toml, Debian's sbsigntool)";

/// GRUB's script: the same for all hosts; the agent asks what boot it is. By TFTP from whom GRUB came: Debian's signed GRUB
/// has no HTTP.
const GRUB_SCRIPT: &str = "set timeout=0\n\
    linux (tftp)/shim/vmlinuz console=ttyS0 quiet no_timer_check dayzero.ask=1\n\
    initrd (tftp)/shim/initrd.img\nboot\n";

/// Key and files of a control plane that runs.
#[derive(Default)]
pub(crate) struct SecureBoot {
    key: OnceCell<SecureBootKey>,
    served: OnceCell<()>,
    late: LateFiles,
}

/// What is served under Secure Boot, ready: signed and named.
#[derive(Debug)]
pub struct SecureFiles {
    uki: Bytes,
    shim: Bytes,
    grub: Bytes,
    kernel: Bytes,
    initrd: Bytes,
}

impl SecureFiles {
    /// Signs `uki.efi` of `images.secure` with the site's key, and reads the loaders beside it and the kernel and initial RAM
    /// disk that GRUB loads; `data` holds the signed file meanwhile. None where the appliance has no such files. Blocks.
    ///
    /// # Errors
    /// In words: a file cannot be read or written, or signing fails.
    pub fn prepare(key: &SecureBootKey, data: &Path, images: &Images) -> Result<Option<Self>, String> {
        let Some(directory) = &images.secure else { return Ok(None) };
        let (shim, grub) = (read(&directory.join("shimx64.efi"))?, read(&directory.join("grubx64.efi"))?);
        let (kernel, initrd) = (read(&images.kernel)?, read(&images.initrd)?);
        let signed = data.join("uki.signed.efi");
        key.sign(&directory.join("uki.efi"), &signed).map_err(|error| error.to_string())?;
        let uki = read(&signed)?;
        std::fs::remove_file(&signed).map_err(failed(&signed))?;
        Ok(Some(Self { uki, shim, grub, kernel, initrd }))
    }

    /// Adds the files to what TFTP and HTTP serve.
    ///
    /// # Errors
    /// In words: a name cannot be served.
    pub fn serve(&self, late: &LateFiles) -> Result<(), String> {
        let script = Bytes::from_static(GRUB_SCRIPT.as_bytes());
        let files = [
            (Chain::Uki.loader(), &self.uki),
            (Chain::Mok.loader(), &self.shim),
            (Chain::Mok.second(), &self.uki),
            (Chain::Shim.loader(), &self.shim),
            (Chain::Shim.second(), &self.grub),
            // GRUB looks below where it came from, or at the top.
            (Some("grub/grub.cfg"), &script),
            (Some("shim/grub/grub.cfg"), &script),
            (Some("shim/vmlinuz"), &self.kernel),
            (Some("shim/initrd.img"), &self.initrd),
        ];
        let named = files.into_iter().filter_map(|(name, bytes)| Some((name?.to_owned(), bytes.clone())));
        late.add(named).map_err(|error| error.to_string())
    }
}

/// The names of what firmware loads first.
pub fn loaders() -> SecureLoaders {
    let [uki, mok, shim] =
        [Chain::Uki, Chain::Mok, Chain::Shim].map(|chain| chain.loader().map(str::to_owned));
    SecureLoaders { uki, mok, shim }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

fn read(path: &Path) -> Result<Bytes, String> {
    std::fs::read(path).map(Bytes::from).map_err(failed(path))
}

/// The site's key, made where there is none; its certificate as a file in `data`. Blocks.
///
/// # Errors
/// In words: the vault fails, or the file cannot be written.
pub fn site_key(vault: &Vault, data: &Path) -> Result<SecureBootKey, String> {
    let key = SecureBootKey::open(vault).map_err(|error| error.to_string())?;
    let certificate = data.join(CERTIFICATE);
    std::fs::write(&certificate, key.certificate()).map_err(failed(&certificate))?;
    tracing::info!(certificate = %key.fingerprint(), "the site's key for Secure Boot");
    Ok(key)
}

/// Says in the services' configuration what is served under Secure Boot, where the appliance has such files.
pub(crate) fn name(control: &Control, config: &mut PxeConfig) {
    if control.config.images.secure.is_some() {
        config.loaders.secure = loaders();
        config.late = control.secure.late.clone();
    }
}

/// Opens the key, so that people find its certificate; and makes the files, where a host of the plan needs them already.
pub(crate) async fn begin(control: Arc<Control>) {
    let needs = |control: &Control| {
        let plan = control.plan()?;
        let mut hosts = plan.site.hosts();
        let chain = |placed: Placed<'_>| {
            let facts = control.facts(&placed.host.name);
            boot::chain(placed.host.secure_boot, facts.and_then(|facts| facts.bmc.clone()).as_ref())
        };
        Some(hosts.any(|placed| chain(placed) != Chain::Ipxe))
    };
    if control.secure_key().await.is_some() && needs(&control) == Some(true) {
        // What is wrong is on the to-do list.
        let _ = control.secure_files().await;
    }
}

impl Control {
    /// The site's key; none where this appliance signs nothing, or cannot: that is on the to-do list then.
    pub(crate) async fn secure_key(self: &Arc<Self>) -> Option<&SecureBootKey> {
        let opened = self.open_key().await;
        opened.map_err(|reason| self.cannot_sign(Some(&reason))).ok().flatten()
    }

    async fn open_key(self: &Arc<Self>) -> Result<Option<&SecureBootKey>, String> {
        if self.secure.key.get().is_none() && self.config.images.secure.is_none() {
            return Ok(None);
        }
        let make = || {
            let control = self.clone();
            blocking(move || site_key(&control.vault, &control.config.data))
        };
        self.secure.key.get_or_try_init(make).await.map(Some)
    }

    /// Has the files served, if this appliance has any; makes them the first time.
    ///
    /// # Errors
    /// In words, and on the to-do list.
    pub(crate) async fn secure_files(self: &Arc<Self>) -> Result<(), String> {
        let make = async || {
            if self.open_key().await?.is_none() {
                return Ok(());
            }
            let control = self.clone();
            let work = move || {
                let Some(key) = control.secure.key.get() else { return Ok(()) };
                let files = SecureFiles::prepare(key, &control.config.data, &control.config.images)?;
                files.map_or(Ok(()), |files| files.serve(&control.secure.late))
            };
            blocking(work).await
        };
        let served = self.secure.served.get_or_try_init(make).await.copied();
        self.cannot_sign(served.as_ref().err());
        served
    }

    fn cannot_sign(&self, reason: Option<&String>) {
        let todo = reason.map(|reason| {
            tracing::error!(reason, "nothing is signed for Secure Boot");
            Todo {
                host: None,
                code: "secure-boot-files".to_owned(),
                sentence: format!("hosts that enforce Secure Boot get nothing to boot: {reason}"),
                evidence: Vec::new(),
                next_action: format!("{REMEDY}, then retry the host, or restart"),
                since: self.now(),
            }
        });
        self.ail(AIL, todo);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
impl SecureBoot {
    /// As if it had been opened.
    pub(crate) fn know(&self, key: SecureBootKey) {
        assert!(self.key.set(key).is_ok(), "the key is known already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_store::{Options, Store};
    use dayzero_trust::KeySource;

    #[test]
    fn what_is_missing_is_named_and_nothing_is_served_without_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
        let vault = Vault::open(&store, &KeySource::File(dir.path().join("key"))).unwrap();
        let mut images = Images::default();
        let key = site_key(&vault, dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(CERTIFICATE)).unwrap(), key.certificate());
        assert!(SecureFiles::prepare(&key, dir.path(), &images).unwrap().is_none());
        images.secure = Some(dir.path().join("secure"));
        let reason = SecureFiles::prepare(&key, dir.path(), &images).unwrap_err();
        assert!(reason.contains("secure/shimx64.efi"), "{reason}");
    }
}
