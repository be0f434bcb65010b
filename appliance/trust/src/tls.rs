//! TLS settings of our listeners. Provider: ring, given explicitly, so that no process-wide default is needed.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use crate::{AGENT_ALPN, SiteCa, TrustError};

const DOING: &str = "set up TLS";

fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TrustError::certificate(DOING))
}

/// The agents' listener: a certificate of this CA is required. Revocation and the host's name are checked by the caller
/// with [`SiteCa::agent`].
pub fn agents_server_config(ca: &SiteCa, key: CertifiedKey) -> Result<Arc<ServerConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).map_err(TrustError::certificate(DOING))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(TrustError::certificate(DOING))?;
    let mut config = builder()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![AGENT_ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A listener for people, tools and enrolment: no client certificate; HTTP/2 and HTTP/1.1.
pub fn operators_server_config(key: CertifiedKey) -> Result<Arc<ServerConfig>, TrustError> {
    let mut config =
        builder()?.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The listener of HTTP boot: no client certificate; HTTP/1.1. AES-128-GCM comes first, whatever a client prefers: nothing
/// secret is sent there, and with the 256-bit key each gigabyte costs a fifth more.
pub fn boot_server_config(key: CertifiedKey) -> Result<Arc<ServerConfig>, TrustError> {
    use rustls::CipherSuite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256};
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(suite.suite(), TLS13_AES_128_GCM_SHA256 | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TrustError::certificate(DOING))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
