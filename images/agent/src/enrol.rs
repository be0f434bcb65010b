//! Enrolment: asks the appliance for a certificate, trusting only a chain whose CA has the vouched fingerprint.

use crate::cmdline::Cmdline;
use crate::credentials::{Credentials, HostKey, provider};
use crate::vouch::Vouched;
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use dayzero_model::wire::{ClockReport, EnrolAnswer, EnrolRequest, VERSION};
use dayzero_model::{Sha256, Timestamp};
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
    let client = client(rustls_config(Trust::Ca(vouched.ca))?)?;
    let request = request(cmdline, key, vouched.nonce.clone())?;
    let url = format!("{}/enrol", cmdline.enrol);
    tell_clock(cmdline).await;
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

/// Tells the appliance what time we have, so that it can say so: nobody else sees this machine's clock.
async fn tell_clock(cmdline: &Cmdline) {
    let told = async {
        let client = open_client()?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let clock = Timestamp(u64::try_from(since.as_millis())?);
        let report = ClockReport { boot: cmdline.boot, mac: cmdline.mac, clock };
        client.post(format!("{}/clock", cmdline.enrol)).json(&report).send().await?;
        anyhow::Ok(())
    };
    if let Err(error) = told.await {
        tracing::warn!("telling our clock: {error:#}");
    }
}

/// Tells the appliance of this key every five seconds until the BMC's channel has spoken: a host without such a channel,
/// and a machine that only pretends to be one, show up there with their fingerprint and are reported. Nothing secret is
/// sent, no answer is believed: the server is not authenticated yet.
///
/// # Errors
/// TLS cannot be set up, or the request cannot be signed.
pub async fn announce(cmdline: &Cmdline, key: &HostKey) -> Result<std::convert::Infallible> {
    let client = open_client()?;
    let request = request(cmdline, key, None)?;
    let url = format!("{}/enrol", cmdline.enrol);
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if let Err(error) = ask(&client, &url, &request).await {
            tracing::info!("announcing the key: {error:#}");
        }
    }
}

/// A client for what anybody may read, and whose answers are not believed.
pub(crate) fn open_client() -> Result<reqwest::Client> {
    client(rustls_config(Trust::Nobody)?)
}

fn client(tls: rustls::ClientConfig) -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()?)
}

fn request(cmdline: &Cmdline, key: &HostKey, nonce: Option<String>) -> Result<EnrolRequest> {
    Ok(EnrolRequest {
        version: VERSION,
        boot: cmdline.boot,
        mac: cmdline.mac,
        public_key: base64::engine::general_purpose::STANDARD.encode(key.public_der()),
        csr: key.request()?,
        nonce,
    })
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

/// Whom a connection trusts.
#[derive(Clone, Copy, Debug)]
enum Trust {
    /// A chain that ends in the CA with this fingerprint, from the BMC's channel.
    Ca(Sha256),
    /// Nobody: for what may be read by anyone, and whose answer is not believed.
    Nobody,
}

fn rustls_config(trust: Trust) -> Result<rustls::ClientConfig> {
    let verifier = Verifier { trust, provider: provider() };
    Ok(rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Accepts a server whose chain holds the trusted CA, and verifies as usual below that CA alone.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Ca(trusted) = self.trust else { return Ok(ServerCertVerified::assertion()) };
        let unknown = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|der| Sha256::of(der) == trusted).ok_or_else(unknown)?;
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
