//! What the site's RSA keys have in common: how one is made, kept and read again.
//!
//! RSA of [`BITS`] bits with SHA-256, since neither firmware nor loaders are sure to know anything else. A key is made once,
//! sealed in the vault with its certificate as one record, and never replaced by itself: firmware holds the certificate.

use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{TrustError, Vault};

/// Size of a key.
pub(crate) const BITS: usize = 2048;

/// A new key, PKCS #8 in PEM; `making` says for what. Takes a second or two.
pub(crate) fn generate(making: &'static str) -> Result<Zeroizing<String>, TrustError> {
    let failed = TrustError::certificate::<String>(making);
    let made = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|error| error.to_string());
    let pem = made.and_then(|key| key.to_pkcs8_pem(LineEnding::LF).map_err(|error| error.to_string()));
    pem.map_err(failed)
}

/// The record that is kept, or what `make` makes, which is durable when this returns; `storing` is what fails if it cannot be.
/// Blocks.
pub(crate) fn kept_or_made<T: Serialize + DeserializeOwned>(
    vault: &Vault,
    record: &str,
    storing: &'static str,
    make: impl FnOnce() -> Result<T, TrustError>,
) -> Result<T, TrustError> {
    if let Some(kept) = vault.get_record(record)? {
        return Ok(kept);
    }
    let made = make()?;
    let mut tx = vault.store().tx();
    vault.put_record_in(&mut tx, record, &made)?;
    tx.commit_blocking().map_err(TrustError::store(storing))?;
    Ok(made)
}

/// A certificate, PEM, as DER, and its common name; empty: it has none.
pub(crate) fn read(
    certificate: &str,
    reading: &'static str,
) -> Result<(CertificateDer<'static>, String), TrustError> {
    let der =
        CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(TrustError::certificate(reading))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(TrustError::certificate(reading))?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = name.unwrap_or_default().to_owned();
    Ok((der, name))
}
