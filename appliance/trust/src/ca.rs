//! The site's certificate authority: one P-256 key, sealed in the vault; certificates for our listeners and for hosts.
//!
//! A host's certificate has the subject `CN=host/<name>` and serves for both directions of mutual TLS. Revocation is by
//! fingerprint, checked by the listener on each connection. Validity does not depend on a host's clock, which may have lost
//! its battery: certificates are valid from 2000 on, and what ends one is revocation.
//! It does not decide who gets a certificate: that is [`crate::Enrolment`].

use std::net::IpAddr;
use std::sync::Arc;

use dayzero_model::{HostName, Sha256, Timestamp};
use dayzero_store::{Store, Table};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use crate::{TrustError, Vault};

static CERTIFICATE: Table<String, String> = Table::new("ca.certificate");
static REVOKED: Table<Sha256, Revocation> = Table::new("ca.revoked");
const KEY_NAME: &str = "ca/key";
const ROOT: &str = "root";
const MAX_CSR: usize = 4096;
const MAKING: &str = "make a listener's certificate";
/// ALPN of the agents' listener.
pub const AGENT_ALPN: &[u8] = b"dayzero-agent/1";

/// Why a certificate no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Whose it was.
    pub host: HostName,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// SHA-256 of the DER.
    pub fingerprint: Sha256,
}

/// A request whose signature was checked: the sender has the private key.
#[derive(Debug)]
pub struct CheckedRequest {
    params: CertificateSigningRequestParams,
    /// SHA-256 of the SubjectPublicKeyInfo, DER: what a BMC vouches for.
    pub key: Sha256,
}

/// The site's CA. Cheap to clone.
#[derive(Clone)]
pub struct SiteCa {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for SiteCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteCa").field("fingerprint", &self.fingerprint()).finish()
    }
}

impl SiteCa {
    /// Opens the site's CA, making it at the first start: key and certificate in one transaction. Blocks.
    pub fn open(vault: &Vault) -> Result<Self, TrustError> {
        let store = vault.store();
        let reading = TrustError::store("reading the CA");
        let stored = store.get(&CERTIFICATE, &ROOT.to_owned()).map_err(reading)?;
        let (pem, key_pem) = match stored {
            Some(pem) => {
                let key =
                    vault.get(KEY_NAME)?.ok_or_else(|| TrustError::Sealed { name: KEY_NAME.to_owned() })?;
                (pem, key)
            }
            None => create(vault)?,
        };
        let key =
            KeyPair::from_pem(key_pem.expose()).map_err(TrustError::certificate("read the CA's key"))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(TrustError::certificate("read the CA's certificate"))?;
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(TrustError::certificate("use the CA's certificate"))?;
        Ok(Self { inner: Arc::new(Inner { store: store.clone(), issuer, der, pem }) })
    }

    /// The CA's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.inner.pem
    }

    /// The CA's certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.inner.der
    }

    /// SHA-256 of the CA's certificate, DER: what the virtual medium and the serial console tell a host.
    pub fn fingerprint(&self) -> Sha256 {
        fingerprint(&self.inner.der)
    }

    /// A key and certificate for one of our listeners, valid for these names and addresses. Made anew at each start; the
    /// key is never stored. One that people compare by its fingerprint: [`SiteCa::kept_listener`].
    pub fn listener(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<rustls::sign::CertifiedKey, TrustError> {
        let (key, certificate) = self.sign_listener(names, addresses)?;
        self.certified(certificate.der().clone(), &PrivatePkcs8KeyDer::from(key.serialize_der()))
    }

    /// A new key for a listener, and its certificate.
    pub(crate) fn sign_listener(
        &self,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<(KeyPair, rcgen::Certificate), TrustError> {
        let doing = MAKING;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TrustError::certificate(doing))?;
        let mut params = leaf("dayzero");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            let name = (*name).try_into().map_err(TrustError::certificate(doing))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        let certificate =
            params.signed_by(&key, &self.inner.issuer).map_err(TrustError::certificate(doing))?;
        Ok((key, certificate))
    }

    /// A listener's certificate with its key and our chain, as rustls takes it.
    pub(crate) fn certified(
        &self,
        certificate: CertificateDer<'static>,
        key: &PrivatePkcs8KeyDer<'_>,
    ) -> Result<rustls::sign::CertifiedKey, TrustError> {
        let der = PrivateKeyDer::Pkcs8(key.clone_key());
        let signing =
            rustls::crypto::ring::sign::any_supported_type(&der).map_err(TrustError::certificate(MAKING))?;
        Ok(rustls::sign::CertifiedKey::new(vec![certificate, self.inner.der.clone()], signing))
    }

    /// Issues a host's certificate for the key of a checked request. Names in the request are ignored.
    ///
    /// Only enrolment calls this, once a BMC vouched for the key.
    pub(crate) fn issue(&self, host: &HostName, request: &CheckedRequest) -> Result<Issued, TrustError> {
        let doing = "issue a host's certificate";
        let mut params = leaf(&format!("host/{host}"));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let name = host.as_str().try_into().map_err(TrustError::certificate(doing))?;
        params.subject_alt_names.push(SanType::DnsName(name));
        let certificate = params
            .signed_by(&request.params.public_key, &self.inner.issuer)
            .map_err(TrustError::certificate(doing))?;
        Ok(Issued { fingerprint: fingerprint(certificate.der()), pem: certificate.pem() })
    }

    /// The certificate no longer counts; durable when this resolves.
    pub async fn revoke(&self, certificate: Sha256, revocation: Revocation) -> Result<(), TrustError> {
        let mut tx = self.inner.store.tx();
        tx.put(&REVOKED, &certificate, &revocation).map_err(TrustError::store("revoking a certificate"))?;
        tx.commit().await.map_err(TrustError::store("revoking a certificate"))?;
        Ok(())
    }

    /// Why a certificate no longer counts; `None` if it does.
    pub fn revocation(&self, certificate: Sha256) -> Result<Option<Revocation>, TrustError> {
        self.inner.store.get(&REVOKED, &certificate).map_err(TrustError::store("reading a revocation"))
    }

    /// Who a connected agent is: its host, by its certificate, which TLS has verified against this CA. `None` if it was
    /// revoked. The listener calls this on each connection.
    pub fn agent(&self, certificate: &CertificateDer<'_>) -> Result<Option<HostName>, TrustError> {
        if self.revocation(fingerprint(certificate))?.is_some() {
            return Ok(None);
        }
        host_of(certificate).map(Some)
    }
}

fn create(vault: &Vault) -> Result<(String, dayzero_model::Secret<String>), TrustError> {
    let doing = "make the site's CA";
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TrustError::certificate(doing))?;
    let id: [u8; 4] = rand::random();
    let mut params = leaf(&format!("Dayzero site {}", hex::encode(id)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let pem = params.self_signed(&key).map_err(TrustError::certificate(doing))?.pem();
    let key_pem = dayzero_model::Secret::new(key.serialize_pem());
    let making = TrustError::store;
    let mut tx = vault.store().tx();
    tx.expect_absent(&CERTIFICATE, &ROOT.to_owned()).map_err(making(doing))?;
    tx.put(&CERTIFICATE, &ROOT.to_owned(), &pem).map_err(making(doing))?;
    vault.put_in(&mut tx, KEY_NAME, &key_pem)?;
    tx.commit_blocking().map_err(making(doing))?;
    Ok((pem, key_pem))
}

/// Parameters of a certificate of this name. It is valid whatever the clock says of who reads it, who may have lost his
/// battery, as far as firmware knows dates at all; what ends trust in it is its removal or revocation.
pub(crate) fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2099, 12, 31);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn leaf(common_name: &str) -> CertificateParams {
    let mut params = named(common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Sha256 {
    Sha256::of(certificate)
}

/// The host in a certificate of ours (`CN=host/<name>`). Verifies nothing.
pub fn host_of(certificate: &CertificateDer<'_>) -> Result<HostName, TrustError> {
    let bad = |problem: String| TrustError::BadRequest { what: "the agent's certificate", problem };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| bad(e.to_string()))?;
    let common_name =
        parsed.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    let name = common_name.strip_prefix("host/").ok_or_else(|| bad(format!("'{common_name}' is no host")))?;
    name.parse().map_err(|e: dayzero_model::ids::BadId| bad(e.to_string()))
}

/// Reads a certificate signing request (PEM, P-256 or Ed25519) and checks its signature.
pub fn check_request(csr_pem: &str) -> Result<CheckedRequest, TrustError> {
    let bad = |problem: String| TrustError::BadRequest { what: "the certificate signing request", problem };
    if csr_pem.len() > MAX_CSR {
        return Err(bad(format!("{} bytes are too many", csr_pem.len())));
    }
    let der =
        CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| bad(e.to_string()))?;
    let key = Sha256::of(parsed.certification_request_info.subject_pki.raw);
    let params = CertificateSigningRequestParams::from_der(&der).map_err(|e| bad(e.to_string()))?;
    let algorithm = params.public_key.algorithm();
    if *algorithm != PKCS_ECDSA_P256_SHA256 && *algorithm != PKCS_ED25519 {
        return Err(bad("its key is neither P-256 nor Ed25519".to_owned()));
    }
    Ok(CheckedRequest { params, key })
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
