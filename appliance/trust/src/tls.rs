//! TLS settings of our listeners. Provider: ring, given explicitly, so that no process-wide default is needed.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, RootCertStore, ServerConfig};

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

/// Certificates of the HTTP boot listener: who asks which is told apart by the greeting.
#[derive(Debug)]
struct ByGreeting {
    agents: Arc<CertifiedKey>,
    loaders: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByGreeting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(if is_loader(hello.alpn().is_some(), hello.cipher_suites()) {
            &self.loaders
        } else {
            &self.agents
        }))
    }
}

/// Loaders and firmware name no application protocol (ALPN) and know TLS 1.2, which they speak with RSA; agents and tools
/// name HTTP, or know nothing older than TLS 1.3.
fn is_loader(names_protocol: bool, suites: &[CipherSuite]) -> bool {
    let by_rsa = [
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384,
    ];
    !names_protocol && suites.iter().any(|suite| by_rsa.contains(suite))
}

/// The listener of HTTP boot: no client certificate; HTTP/1.1. Agents see a certificate of the site's CA (`agents`), loaders
/// and firmware one that they can read (`loaders`, see [`crate::LoaderCa`]). AES-128-GCM comes first, whatever a client
/// prefers: nothing secret is sent there, and with the 256-bit key each gigabyte costs a fifth more.
pub fn boot_server_config(
    agents: CertifiedKey,
    loaders: CertifiedKey,
) -> Result<Arc<ServerConfig>, TrustError> {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS13_AES_128_GCM_SHA256,
    };
    let first = [
        TLS13_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !first.contains(&suite.suite()));
    // Last, for firmware that knows no elliptic curve.
    provider.cipher_suites.extend(crate::ffdhe::suites());
    provider.kx_groups.push(crate::ffdhe::GROUP);
    let certificates = ByGreeting { agents: Arc::new(agents), loaders: Arc::new(loaders) };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TrustError::certificate(DOING))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_told_from_agents_by_their_greeting() {
        use CipherSuite::{
            TLS_DHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_EMPTY_RENEGOTIATION_INFO_SCSV, TLS_RSA_WITH_AES_128_CBC_SHA, TLS13_AES_128_GCM_SHA256,
        };
        let ipxe = [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA];
        let ovmf = [TLS_DHE_RSA_WITH_AES_256_GCM_SHA384, TLS_RSA_WITH_AES_128_CBC_SHA];
        let edk2 = [TLS13_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        let agent = [TLS13_AES_128_GCM_SHA256, TLS_EMPTY_RENEGOTIATION_INFO_SCSV];
        for (protocol, suites, want) in [
            (false, &ipxe, true),
            (false, &ovmf, true),
            (false, &edk2, true),
            (true, &edk2, false),
            (false, &agent, false),
            (true, &agent, false),
        ] {
            assert_eq!(is_loader(protocol, suites), want, "{protocol} {suites:?}");
        }
    }
}
