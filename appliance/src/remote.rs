//! An appliance elsewhere: its address, and TLS to it that trusts one certificate, known by its fingerprint.
//!
//! Invariants: nothing is sent before the fingerprint was compared; no proxy, no redirect, no authority of the machine's
//! own plays a part. A look at the fingerprint alone sends nothing but the handshake.

use crate::failure::{Failure, chain};
use dayzero_model::ids::Sha256;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The operators' port, where a URL has none.
const PORT: u16 = 8443;
/// How long a connection with its handshake may take.
const CONNECT: Duration = Duration::from_secs(15);

/// An appliance's address, shown as `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// `HOST:PORT`, as the headers `Host` and `Origin` have it.
    pub(crate) fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// TLS to it. The certificate must have the fingerprint.
    pub(crate) async fn connect(&self, fingerprint: Sha256) -> Result<TlsStream<TcpStream>, Failure> {
        self.handshake(Some(fingerprint)).await.map_err(|error| {
            let other = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(|error| match error {
                rustls::Error::InvalidCertificate(CertificateError::Other(other)) => Some(other.to_string()),
                _ => None,
            });
            match other {
                Some(shown) => Failure::System(format!(
                    "{self} shows the certificate {shown}, not the known {fingerprint}: either the appliance has a new one \
                     (compare it with the appliance's screen, then `dayzero login {self} --fingerprint …`), or somebody \
                     stands in between"
                )),
                None => self.unreachable(&error),
            }
        })
    }

    /// The fingerprint that it shows. Nobody vouches for it.
    pub(crate) async fn look(&self) -> Result<Sha256, Failure> {
        let stream = self.handshake(None).await.map_err(|error| self.unreachable(&error))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        shown
            .map(|der| Sha256::of(der))
            .ok_or_else(|| Failure::System(format!("{self} shows no certificate")))
    }

    async fn handshake(&self, fingerprint: Option<Sha256>) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Pinned { fingerprint, provider: provider.clone() };
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = match self.host.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?,
        };
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            notice_silence(&stream)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        tokio::time::timeout(CONNECT, connecting).await.unwrap_or_else(|_| {
            let said = format!("no answer within {} s", CONNECT.as_secs());
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, said))
        })
    }

    /// No connection.
    pub(crate) fn unreachable(&self, error: &std::io::Error) -> Failure {
        Failure::System(format!(
            "no appliance answers at {self}: {}; its screen shows where its console is",
            chain(error)
        ))
    }
}

/// An answer may take long, but one that lost its power is noticed: in half a minute (RFC 9293 section 3.8.4, RFC 5482).
fn notice_silence(stream: &TcpStream) -> std::io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &15)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &5)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &30_000)?;
    Ok(())
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| {
            Err(format!("'{text}' {what}: write https://ADDRESS:PORT as the appliance's screen shows it"))
        };
        if text.contains('@') {
            // The text may hold a password: it is not repeated.
            return Err("an address holds no user: write https://ADDRESS:PORT".to_owned());
        }
        let Some(rest) = text.strip_prefix("https://") else { return bad("does not begin with https://") };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => (host, port.strip_prefix(':')),
            Some(_) => return bad("has no IPv6 address in its brackets"),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return bad("is no address");
        }
        match port.map_or(Ok(PORT), str::parse) {
            Ok(port) if port > 0 => Ok(Self { host: host.to_ascii_lowercase(), port }),
            _ => bad("has no port number after the colon"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl TryFrom<String> for Server {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.to_string()
    }
}

/// Reads a fingerprint as screens and browsers show it: 64 hex digits, with or without colons.
pub(crate) fn fingerprint(text: &str) -> Result<Sha256, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    digits.to_ascii_lowercase().parse().map_err(|_| {
        "a fingerprint is 64 hex digits (SHA-256), as the appliance's screen shows them after 'fingerprint:'".to_owned()
    })
}

/// Trusts the one certificate of this fingerprint, or any, for a look.
#[derive(Debug)]
struct Pinned {
    fingerprint: Option<Sha256>,
    provider: Arc<CryptoProvider>,
}

/// The certificate is another one; it is shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Another(Sha256);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Sha256::of(end_entity);
        match self.fingerprint {
            Some(known) if known != shown => {
                let other = rustls::OtherError(Arc::new(Another(shown)));
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_screens_show_them() {
        for (text, shown) in [
            ("https://10.77.0.2:8443/", "https://10.77.0.2:8443"),
            ("https://10.77.0.2", "https://10.77.0.2:8443"),
            ("https://Dayzero.example:443", "https://dayzero.example:443"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:8443"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "10.77.0.2",
            "http://10.77.0.2",
            "https://",
            "https://x:y",
            "https://x:0",
            "https://x/y",
            "https://x?y",
            "https://[x]:1",
            "https://::1",
        ] {
            assert!(bad.parse::<Server>().unwrap_err().contains("https://ADDRESS:PORT"), "{bad}");
        }
        let secret = "https://admin:hunter2@x".parse::<Server>().unwrap_err();
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let digits = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(fingerprint(&digits).unwrap(), fingerprint(&colons).unwrap());
        assert!(fingerprint("abcd").unwrap_err().contains("64 hex digits"));
    }
}
