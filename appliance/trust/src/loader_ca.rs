//! The authority for what loaders and firmware fetch by HTTPS: one RSA key with a self-signed certificate, and the key of the
//! HTTP boot listener that it certifies, both sealed in the vault.
//!
//! RSA of 2048 bits with SHA-256, beside the site's P-256 authority: Debian 13's iPXE (of May 2025) reads no other kind of
//! certificate, and one of another kind in the firmware's list keeps it from reading those behind it. Made once and never
//! replaced by itself: firmware holds the certificate. It signs the certificate of one listener and no host's; nothing that
//! proves a host rests on it.

use std::net::IpAddr;

use dayzero_model::{Secret, Sha256};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{TrustError, Vault, ca, fingerprint, rsa_key};

const RECORD: &str = "loaders/ca";
const MAKING: &str = "make the authority for HTTPS boot";
const READING: &str = "read the authority for HTTPS boot";
const CERTIFYING: &str = "make the certificate for HTTPS boot";

/// The record. The whole of it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    certificate: String,
    key: Secret<String>,
    /// Of the listener.
    listener: Secret<String>,
}

/// The authority that loaders and firmware are told to trust.
pub struct LoaderCa {
    kept: Kept,
    der: CertificateDer<'static>,
    name: String,
}

impl std::fmt::Debug for LoaderCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoaderCa").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LoaderCa {
    /// Opens the authority, making it at first use (a second or two); durable when this returns. Blocks.
    ///
    /// # Errors
    /// The vault or the store fails, or what is in it is no key.
    pub fn open(vault: &Vault) -> Result<Self, TrustError> {
        let kept = rsa_key::kept_or_made(vault, RECORD, "storing the authority for HTTPS boot", make)?;
        let (der, name) = rsa_key::read(&kept.certificate, READING)?;
        Ok(Self { name, der, kept })
    }

    /// Its certificate, PEM: what a firmware's list for HTTPS boot is given.
    pub fn certificate(&self) -> &str {
        &self.kept.certificate
    }

    /// The certificate's common name, which no other site's has.
    pub fn common_name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the certificate, DER: what iPXE's `trust` setting holds, and what a person compares.
    pub fn fingerprint(&self) -> Sha256 {
        fingerprint(&self.der)
    }

    /// The certificate of the HTTP boot listener at these addresses, with its key and this authority behind it: loaders
    /// look for what they trust in what the server sends.
    ///
    /// # Errors
    /// A stored key cannot be used.
    pub fn listener(&self, addresses: &[IpAddr]) -> Result<rustls::sign::CertifiedKey, TrustError> {
        let authority =
            KeyPair::from_pem(self.kept.key.expose()).map_err(TrustError::certificate(READING))?;
        let issuer =
            Issuer::from_ca_cert_der(&self.der, authority).map_err(TrustError::certificate(CERTIFYING))?;
        let key = KeyPair::from_pem(self.kept.listener.expose()).map_err(TrustError::certificate(READING))?;
        let mut params = ca::named("dayzero");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = addresses.iter().map(|ip| SanType::IpAddress(*ip)).collect();
        let certificate = params.signed_by(&key, &issuer).map_err(TrustError::certificate(CERTIFYING))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&der)
            .map_err(TrustError::certificate(CERTIFYING))?;
        Ok(rustls::sign::CertifiedKey::new(vec![certificate.der().clone(), self.der.clone()], signing))
    }
}

fn make() -> Result<Kept, TrustError> {
    let (key, listener) = (rsa_key::generate(MAKING)?, rsa_key::generate(MAKING)?);
    let pair = KeyPair::from_pem(&key).map_err(TrustError::certificate(MAKING))?;
    let id: [u8; 4] = rand::random();
    let mut params = ca::named(&format!("Dayzero site {} HTTPS boot", hex::encode(id)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&pair).map_err(TrustError::certificate(MAKING))?.pem();
    let secret = |pem: &Zeroizing<String>| Secret::new(pem.to_string());
    Ok(Kept { certificate, key: secret(&key), listener: secret(&listener) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeySource;
    use dayzero_store::{Options, Store};
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn one_authority_a_site_sealed_and_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let store = Store::open(&dir.path().join("data"), Options::default()).unwrap();
            let vault = Vault::open(&store, &KeySource::File(dir.path().join("key"))).unwrap();
            (LoaderCa::open(&vault).unwrap(), store)
        };
        let (first, store) = open();
        assert!(first.common_name().ends_with("HTTPS boot") && !format!("{first:?}").contains("PRIVATE"));
        let mut export = Vec::new();
        store.export(&mut export).unwrap();
        let text = String::from_utf8(zstd::decode_all(&export[..]).unwrap()).unwrap();
        assert!(text.contains(RECORD) && !text.contains("PRIVATE KEY"));
        let addresses: Vec<IpAddr> = ["10.77.0.2", "fd77::2"].map(|ip| ip.parse().unwrap()).into();
        let listener = first.listener(&addresses).unwrap();
        assert_eq!(listener.cert[1], first.der, "the authority is sent with it");
        let (_, leaf) = X509Certificate::from_der(&listener.cert[0]).unwrap();
        let (_, authority) = X509Certificate::from_der(&first.der).unwrap();
        assert_eq!(leaf.issuer(), authority.subject());
        assert!(authority.is_ca() && !leaf.is_ca());
        for certificate in [&leaf, &authority] {
            let key = certificate.public_key().parsed().unwrap();
            assert!(matches!(key, x509_parser::public_key::PublicKey::RSA(_)), "iPXE reads nothing else");
            assert_eq!(key.key_size(), rsa_key::BITS);
            let oid = certificate.signature_algorithm.algorithm.to_id_string();
            assert_eq!(oid, "1.2.840.113549.1.1.11", "RSA with SHA-256");
        }
        drop(store);
        let (second, _) = open();
        assert_eq!(first.fingerprint(), second.fingerprint());
    }
}
