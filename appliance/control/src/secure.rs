//! What hosts that enforce Secure Boot load: the discovery image as one file, signed here by the site's key, and Debian's
//! shim and GRUB.
//!
//! Invariants: the key is made at the first start that has something to sign; nothing unsigned is served under a signed
//! file's name; what cannot be signed is on the to-do list, and everything else is served all the same. The site's
//! certificate is also a file in the data directory, for people who enrol it by hand.

use crate::config::Images;
use crate::control::Control;
use crate::view::Todo;
use bytes::Bytes;
use dayzero_model::boot::Chain;
use dayzero_pxe::{PxeConfig, SecureLoaders};
use dayzero_trust::{SecureBootKey, Vault};
use std::path::Path;
use std::sync::Arc;

/// The site's certificate in the data directory.
const CERTIFICATE: &str = "secure-boot.pem";
const AIL: &str = "secure-boot";

/// GRUB's script: the same for all hosts; the agent asks what boot it is. By TFTP from whom GRUB came: Debian's signed GRUB
/// has no HTTP.
const GRUB_SCRIPT: &str = "set timeout=0\n\
    linux (tftp)/shim/vmlinuz console=ttyS0 quiet no_timer_check dayzero.ask=1\n\
    initrd (tftp)/shim/initrd.img\nboot\n";

/// What is served under Secure Boot, ready: signed and named.
#[derive(Debug)]
pub struct SecureFiles {
    /// The site's key.
    pub key: SecureBootKey,
    uki: Bytes,
    shim: Bytes,
    grub: Bytes,
    kernel: Bytes,
    initrd: Bytes,
}

impl SecureFiles {
    /// Signs `uki.efi` of `images.secure` with the site's key, and reads the loaders beside it and the kernel and initial RAM
    /// disk that GRUB loads; leaves the site's certificate in `data`. None where the appliance has no such files. Blocks.
    ///
    /// # Errors
    /// In words: a file cannot be read or written, the vault fails, or signing does.
    pub fn prepare(vault: &Vault, data: &Path, images: &Images) -> Result<Option<Self>, String> {
        let Some(directory) = &images.secure else { return Ok(None) };
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| format!("{path}: {error}")
        };
        let read = |path: &Path| std::fs::read(path).map(Bytes::from).map_err(failed(path));
        let (shim, grub) = (read(&directory.join("shimx64.efi"))?, read(&directory.join("grubx64.efi"))?);
        let (kernel, initrd) = (read(&images.kernel)?, read(&images.initrd)?);
        let key = SecureBootKey::open(vault).map_err(|error| error.to_string())?;
        let certificate = data.join(CERTIFICATE);
        std::fs::write(&certificate, key.certificate()).map_err(failed(&certificate))?;
        let signed = data.join("uki.signed.efi");
        key.sign(&directory.join("uki.efi"), &signed).map_err(|error| error.to_string())?;
        let uki = read(&signed)?;
        std::fs::remove_file(&signed).map_err(failed(&signed))?;
        Ok(Some(Self { key, uki, shim, grub, kernel, initrd }))
    }

    /// Adds the files to what TFTP and HTTP serve, and names the loaders.
    pub fn serve(&self, config: &mut PxeConfig) {
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
        config.tftp.extend(named);
        let [uki, mok, shim] =
            [Chain::Uki, Chain::Mok, Chain::Shim].map(|chain| chain.loader().map(str::to_owned));
        config.loaders.secure = SecureLoaders { uki, mok, shim };
    }
}

/// Adds the files, where the appliance has them.
pub(crate) async fn add(control: &Arc<Control>, config: &mut PxeConfig) {
    let (vault, settings) = (control.vault.clone(), control.config.clone());
    let prepare = move || SecureFiles::prepare(&vault, &settings.data, &settings.images);
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let problem = match prepared {
        Ok(Ok(None)) => None,
        Ok(Ok(Some(files))) => {
            tracing::info!(certificate = %files.key.fingerprint(), "signed for Secure Boot");
            files.serve(config);
            // The same key at each round: whoever was first stays.
            let _ = control.secure_boot.set(files.key);
            None
        }
        Ok(Err(reason)) => Some(reason),
        Err(error) => Some(error.to_string()),
    };
    let todo = problem.map(|reason| {
        tracing::error!(reason, "nothing is signed for Secure Boot");
        Todo {
            host: None,
            code: "secure-boot-files".to_owned(),
            sentence: format!("hosts that enforce Secure Boot get nothing to boot: {reason}"),
            evidence: Vec::new(),
            next_action:
                "mend what it says (files under `secure` in serve.toml, Debian's sbsigntool), then restart"
                    .to_owned(),
            since: control.now(),
        }
    });
    control.ail(AIL, todo);
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
        assert!(SecureFiles::prepare(&vault, dir.path(), &images).unwrap().is_none());
        images.secure = Some(dir.path().join("secure"));
        let reason = SecureFiles::prepare(&vault, dir.path(), &images).unwrap_err();
        assert!(reason.contains("secure/shimx64.efi"), "{reason}");
    }
}
