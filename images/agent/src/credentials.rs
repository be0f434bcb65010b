//! The host's key and certificate.

use anyhow::{Context, Result};
use dayzero_model::{HostName, Secret, Sha256};
use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::path::Path;
use std::sync::Arc;

/// A key made on this host; it never leaves it but for the host's own disk.
pub struct HostKey(rcgen::KeyPair);

impl HostKey {
    /// A new P-256 key.
    ///
    /// # Errors
    /// The system's random source fails.
    pub fn generate() -> Result<Self> {
        Ok(Self(rcgen::KeyPair::generate().context("making a key")?))
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn public_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// SHA-256 of [`Self::public_der`]: what the BMC vouches for.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.public_der())
    }

    /// A signing request, PEM; its subject is empty, since the appliance decides whose key it is.
    ///
    /// # Errors
    /// Signing fails.
    pub fn request(&self) -> Result<String> {
        let params = rcgen::CertificateParams::new(Vec::<String>::new())?;
        Ok(params.serialize_request(&self.0)?.pem()?)
    }

    /// PKCS #8, PEM.
    pub fn private_pem(&self) -> Secret<String> {
        Secret::new(self.0.serialize_pem())
    }
}

/// What a host shows to the appliance, and what it trusts.
#[derive(Clone)]
pub struct Credentials {
    /// The host, as the certificate says.
    pub host: HostName,
    /// Private key, PEM.
    pub key: Secret<String>,
    /// Certificate, PEM.
    pub certificate: String,
    /// CA certificate, PEM.
    pub ca: String,
}

impl Credentials {
    /// Reads `agent.key`, `agent.crt` and `ca.crt` from a directory.
    ///
    /// # Errors
    /// A file is missing or unreadable.
    pub fn load(directory: &Path, host: HostName) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Self {
            host,
            key: Secret::new(read("agent.key")?),
            certificate: read("agent.crt")?,
            ca: read("ca.crt")?,
        })
    }

    /// TLS that shows our certificate and trusts this CA alone.
    ///
    /// # Errors
    /// A PEM text is malformed, or key and certificate do not fit.
    pub fn tls(&self) -> Result<Arc<rustls::ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).context("CA certificate")?)?;
        let chain =
            vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("host certificate")?];
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes()).context("host key")?;
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

/// The one cryptography provider of the agent.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
