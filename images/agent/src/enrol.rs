//! Enrolment: asks the appliance for a certificate, trusting only a chain whose CA has the vouched fingerprint.

use crate::cmdline::Cmdline;
use crate::credentials::{Credentials, HostKey, provider};
use crate::vouch::Vouched;
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use dayzero_model::Sha256;
use dayzero_model::wire::{EnrolAnswer, EnrolRequest, VERSION};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// Longest answer that is read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Asks until the key is vouched for on the appliance's side too.
///
/// # Errors
/// Refused for good, or an answer that does not hold together. A connection that fails is tried again.
pub async fn enrol(cmdline: &Cmdline, key: &HostKey, vouched: &Vouched) -> Result<Credentials> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(pinned(vouched.ca)?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()?;
    let request = EnrolRequest {
        version: VERSION,
        boot: cmdline.boot,
        mac: cmdline.mac,
        public_key: base64::engine::general_purpose::STANDARD.encode(key.public_der()),
        csr: key.request()?,
        nonce: vouched.nonce.clone(),
    };
    let url = format!("{}/enrol", cmdline.enrol);
    loop {
        let pause = match ask(&client, &url, &request).await {
            Ok(EnrolAnswer::Granted { host, certificate, ca }) => {
                let der =
                    CertificateDer::from_pem_slice(ca.as_bytes()).context("CA certificate in the answer")?;
                ensure!(
                    Sha256::of(&der) == vouched.ca,
                    "the answer names another CA than the BMC's channel did"
                );
                return Ok(Credentials { host, key: key.private_pem(), certificate, ca });
            }
            Ok(EnrolAnswer::Wait { seconds }) => Duration::from_secs(u64::from(seconds.clamp(1, 30))),
            Ok(EnrolAnswer::Refused { reason }) => {
                bail!("the appliance refused to enrol this host: {reason}")
            }
            Err(error) => {
                tracing::warn!("enrolment: {error:#}");
                Duration::from_secs(2)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(client: &reqwest::Client, url: &str, request: &EnrolRequest) -> Result<EnrolAnswer> {
    let mut response = client.post(url).json(request).send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(body.len() + chunk.len() <= ANSWER_LIMIT, "the answer is longer than {ANSWER_LIMIT} bytes");
        body.extend_from_slice(&chunk);
    }
    let status = response.status();
    serde_json::from_slice(&body).with_context(|| format!("{url} answered {status}"))
}

fn pinned(ca: Sha256) -> Result<rustls::ClientConfig> {
    let verifier = PinnedCa { ca, provider: provider() };
    Ok(rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Accepts a server whose chain holds the CA with this fingerprint, and verifies as usual below that CA alone.
#[derive(Debug)]
struct PinnedCa {
    ca: Sha256,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|der| Sha256::of(der) == self.ca).ok_or_else(unknown)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let inner = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            self.provider.clone(),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
        inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
