//! Certificate pins: a BMC's certificate is self-signed, so the leaf's fingerprint is what identifies it.
//!
//! Invariant: one client sees one certificate. Without a pin the first one seen becomes the pin of that client. The
//! handshake signature is always checked, so that a copied certificate without its key does not pass.

use crate::RedfishError;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::Digest;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// SHA-256 of a leaf certificate's DER. In text: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(sha2::Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = RedfishError;
    fn from_str(text: &str) -> Result<Self, RedfishError> {
        let mut digest = [0; 32];
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        hex::decode_to_slice(&digits, &mut digest).map_err(|_| {
            RedfishError::Setup(format!("'{text}' is no SHA-256 fingerprint: write 64 hex digits"))
        })?;
        Ok(Self(digest))
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    first: Option<Fingerprint>,
    mismatch: Option<(Fingerprint, Fingerprint)>,
}

/// Accepts exactly one leaf certificate.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pin: Option<Fingerprint>,
    seen: Mutex<Seen>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    pub(crate) fn new(pin: Option<Fingerprint>, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, seen: Mutex::default(), provider }
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificate that was accepted, once a handshake was made.
    pub(crate) fn accepted(&self) -> Option<Fingerprint> {
        self.seen().first
    }

    /// (expected, observed) of the last refused certificate.
    pub(crate) fn mismatch(&self) -> Option<(Fingerprint, Fingerprint)> {
        self.seen().mismatch
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let observed = Fingerprint::of(end_entity);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.pin.or(seen.first) {
            Some(expected) if expected != observed => {
                seen.mismatch = Some((expected, observed));
                Err(rustls::CertificateError::ApplicationVerificationFailure.into())
            }
            _ => {
                seen.first = Some(observed);
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verifier: &PinVerifier, der: &[u8]) -> bool {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let der = CertificateDer::from(der.to_vec());
        verifier.verify_server_cert(&der, &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn the_first_certificate_becomes_the_pin() {
        let verifier = PinVerifier::new(None, Arc::new(rustls::crypto::ring::default_provider()));
        assert!(check(&verifier, b"one"));
        assert!(check(&verifier, b"one"));
        assert!(!check(&verifier, b"two"), "a second certificate in one client");
        assert_eq!(verifier.mismatch(), Some((Fingerprint::of(b"one"), Fingerprint::of(b"two"))));
    }

    #[test]
    fn a_given_pin_is_not_replaced() {
        let pin = Fingerprint::of(b"one");
        let verifier = PinVerifier::new(Some(pin), Arc::new(rustls::crypto::ring::default_provider()));
        assert!(!check(&verifier, b"two"));
        assert_eq!(verifier.accepted(), None);
        assert!(check(&verifier, b"one"));
        assert_eq!(pin.to_string().parse::<Fingerprint>().unwrap(), pin);
    }
}
