//! The site's key for Secure Boot: one RSA key with a self-signed certificate, sealed in the vault; it signs what firmware
//! starts.
//!
//! RSA of 2048 bits with SHA-256, since no firmware is sure to know anything else. It is made once and never replaced by
//! itself: hosts' firmware holds its certificate. Invariants: the private key leaves the vault only into memory that has no
//! name in any file system, for as long as `sbsign` runs; its path, not its text, is an argument; what was signed is
//! verified before it is used. It does not enrol the certificate anywhere: that is the BMC's, or a person's.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use dayzero_model::{Secret, Sha256};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};

use crate::{TrustError, Vault, ca, fingerprint, rsa_key};

const RECORD: &str = "secure-boot/key";
const MAKING: &str = "make the site's key for Secure Boot";
const READING: &str = "read the site's certificate for Secure Boot";

/// The record. The whole of it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    certificate: String,
    key: Secret<String>,
}

/// The site's key for Secure Boot.
pub struct SecureBootKey {
    kept: Kept,
    name: String,
    fingerprint: Sha256,
}

impl std::fmt::Debug for SecureBootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureBootKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SecureBootKey {
    /// Opens the key, making it at first use (a second or two); durable when this returns. Blocks.
    ///
    /// # Errors
    /// The vault or the store fails, or what is in it is no key.
    pub fn open(vault: &Vault) -> Result<Self, TrustError> {
        let kept = rsa_key::kept_or_made(vault, RECORD, "storing the key for Secure Boot", make)?;
        let (der, name) = rsa_key::read(&kept.certificate, READING)?;
        Ok(Self { name, fingerprint: fingerprint(&der), kept })
    }

    /// Its certificate, PEM: what a firmware's `db`, or shim as a machine owner's key, is given.
    pub fn certificate(&self) -> &str {
        &self.kept.certificate
    }

    /// The certificate's common name, which no other site's has.
    pub fn common_name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the certificate, DER: what a person compares.
    pub fn fingerprint(&self) -> Sha256 {
        self.fingerprint
    }

    /// Signs an EFI program (Authenticode) into another file, and verifies that. Blocks: some 100 ms for 30 MB.
    ///
    /// # Errors
    /// [`TrustError::Signing`]: Debian's `sbsigntool` is missing or refuses; no file is left at `signed` then.
    pub fn sign(&self, unsigned: &Path, signed: &Path) -> Result<(), TrustError> {
        let certificate = in_memory(self.kept.certificate.as_bytes())?;
        let key = in_memory(self.kept.key.expose().as_bytes())?;
        let mut sign = Command::new("sbsign");
        sign.arg("--key").arg(path_of(&key)).arg("--cert").arg(path_of(&certificate));
        sign.arg("--output").arg(signed).arg(unsigned);
        let result = run(sign, "sbsign", unsigned).and_then(|()| {
            let mut verify = Command::new("sbverify");
            verify.arg("--cert").arg(path_of(&certificate)).arg(signed);
            run(verify, "sbverify", signed)
        });
        if result.is_err() {
            let _ = std::fs::remove_file(signed);
        }
        result
    }
}

fn make() -> Result<Kept, TrustError> {
    let pem = rsa_key::generate(MAKING)?;
    let pair = KeyPair::from_pem(&pem).map_err(TrustError::certificate(MAKING))?;
    let id: [u8; 4] = rand::random();
    let mut params = ca::named(&format!("Dayzero site {} Secure Boot", hex::encode(id)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let certificate = params.self_signed(&pair).map_err(TrustError::certificate(MAKING))?.pem();
    Ok(Kept { certificate, key: Secret::new(pem.to_string()) })
}

/// A file without a name, closed to programs that are started: they may open it by our process's list.
fn in_memory(bytes: &[u8]) -> Result<File, TrustError> {
    let failed = |detail: String| TrustError::Signing { detail };
    let memory = memfd_create(c"dayzero", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(e.to_string()))?;
    let mut file = File::from(memory);
    file.write_all(bytes).map_err(|e| failed(e.to_string()))?;
    Ok(file)
}

fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

fn run(mut command: Command, program: &str, file: &Path) -> Result<(), TrustError> {
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C").output().map_err(|e| {
        let detail = format!("{program} cannot be run: {e}; install Debian's package sbsigntool");
        TrustError::Signing { detail }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: String =
        said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").chars().take(300).collect();
    Err(TrustError::Signing { detail: format!("{program} {}: {}: {last}", file.display(), output.status) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeySource;
    use dayzero_store::{Options, Store};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn one_key_a_site_sealed_and_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let store = Store::open(&dir.path().join("data"), Options::default()).unwrap();
            let vault = Vault::open(&store, &KeySource::File(dir.path().join("key"))).unwrap();
            (SecureBootKey::open(&vault).unwrap(), store)
        };
        let (first, store) = open();
        assert!(
            first.common_name().starts_with("Dayzero site ") && !format!("{first:?}").contains("PRIVATE")
        );
        let mut export = Vec::new();
        store.export(&mut export).unwrap();
        let text = String::from_utf8(zstd::decode_all(&export[..]).unwrap()).unwrap();
        assert!(text.contains(RECORD) && !text.contains("PRIVATE KEY"));
        drop(store);
        let (second, _) = open();
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(first.fingerprint(), second.fingerprint());
        let der = CertificateDer::from_pem_slice(first.certificate().as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let key = parsed.public_key().parsed().unwrap();
        assert_eq!(key.key_size(), rsa_key::BITS, "firmware knows RSA of 2048 bits");
    }

    #[test]
    fn what_is_no_program_is_not_signed_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, signed) = (dir.path().join("plain"), dir.path().join("signed"));
        std::fs::write(&plain, "no PE image").unwrap();
        let key = SecureBootKey { kept: make().unwrap(), name: String::new(), fingerprint: Sha256([0; 32]) };
        let error = key.sign(&plain, &signed).unwrap_err().to_string();
        assert!(error.contains("sbsign"), "{error}");
        assert!(!error.contains("PRIVATE") && !signed.exists(), "{error}");
    }
}
