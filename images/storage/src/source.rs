//! Where chunks come from: HTTPS of the appliance, whose certificate the host's CA signed. Nothing in it is secret, and
//! each chunk is checked by its hash too; it need not be there all the time: the appliance may be restarting, and in a
//! boot storm it says when to come back.

use crate::error::StorageError;
use bytes::Bytes;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::time::{Duration, Instant};

/// How long a server may be away before a download fails.
const PATIENCE: Duration = Duration::from_secs(180);
/// Longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(3);
/// Longest pause that a server may ask for.
const LONGEST_WAIT: u64 = 60;
/// How often it may ask: at its longest pauses, over an hour.
const WAITS: u32 = 600;
/// A server that sends nothing for so long is tried anew.
const SILENCE: Duration = Duration::from_secs(20);

/// Something that has chunks.
pub trait ChunkSource: Send + Sync {
    /// The packed bytes of the chunk of this name, at most `limit`.
    fn fetch<'a>(&'a self, blake3: &'a str, limit: usize) -> BoxFuture<'a, Result<Bytes, StorageError>>;
}

/// Files by HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    patience: Duration,
}

/// Chunks below a URL, in `chunks/<first two digits>/<hash>`.
#[derive(Clone, Debug)]
pub struct HttpChunks {
    http: Http,
    base: String,
}

/// A client without proxy and with bounded silences. It trusts what `ca_pem` signed, if that is given, and no other
/// certificate: the discovery image has none, and the default client cannot even be made there.
///
/// # Errors
/// If it cannot be made; `ca_pem` is no certificate.
pub(crate) fn client(ca_pem: Option<&str>) -> Result<reqwest::Client, StorageError> {
    let failed = |e: &dyn std::error::Error| StorageError::Fetch { url: "any".to_owned(), reason: chain(e) };
    let mut roots = rustls::RootCertStore::empty();
    if let Some(pem) = ca_pem {
        let ca = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| failed(&e))?;
        roots.add(ca).map_err(|e| failed(&e))?;
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // By this the appliance knows an agent from a loader, to which it shows another certificate.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(SILENCE);
    builder.build().map_err(|e| failed(&e))
}

impl Http {
    /// Plain HTTP, with the client of [`client`].
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self, StorageError> {
        Ok(Self { client: client(None)?, patience: PATIENCE })
    }

    /// What fetches this URL: over TLS with the host's CA as the only root.
    ///
    /// # Errors
    /// If it cannot be made; `ca_pem` is no certificate.
    pub fn for_url(url: &str, ca_pem: &str) -> Result<Self, StorageError> {
        let ca = url.starts_with("https:").then_some(ca_pem);
        Ok(Self { client: client(ca)?, patience: PATIENCE })
    }

    /// With less patience, for tests.
    #[cfg(test)]
    pub(crate) fn impatient(mut self) -> Self {
        self.patience = Duration::from_millis(10);
        self
    }

    /// A whole file of at most `limit` bytes. Tries again while the server is away (minutes); an answer that will not
    /// change (404 and the like) fails after a few tries.
    ///
    /// # Errors
    /// [`StorageError::Fetch`].
    pub async fn get(&self, url: &str, limit: usize) -> Result<Bytes, StorageError> {
        let mut start = Instant::now();
        let (mut refusals, mut waits) = (0, 0);
        let mut pause = Duration::from_millis(100);
        loop {
            let failure = match self.once(url, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => failure,
            };
            if let Some(seconds) = failure.come_back.filter(|_| waits < WAITS) {
                waits += 1;
                tracing::info!(url, seconds, "the server is busy and said when to come back");
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                start = Instant::now();
                continue;
            }
            if failure.lasting {
                refusals += 1;
            }
            if start.elapsed() >= self.patience || refusals >= 5 {
                return Err(StorageError::Fetch { url: url.to_owned(), reason: failure.reason });
            }
            tracing::warn!(url, reason = failure.reason, "download is tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }

    async fn once(&self, url: &str, limit: usize) -> Result<Bytes, Failure> {
        let passing = |e: reqwest::Error| Failure { reason: chain(&e), lasting: false, come_back: None };
        let lasting = |reason: String| Failure { reason, lasting: true, come_back: None };
        let mut response = self.client.get(url).send().await.map_err(passing)?;
        let status = response.status();
        if !status.is_success() {
            let reason = format!("the server answered {status}");
            let after = response.headers().get(reqwest::header::RETRY_AFTER);
            let seconds = after.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
            let busy = status == reqwest::StatusCode::SERVICE_UNAVAILABLE;
            let come_back = seconds.filter(|_| busy).map(|seconds| seconds.clamp(1, LONGEST_WAIT));
            return Err(Failure { reason, lasting: status.is_client_error(), come_back });
        }
        let mut bytes = bytes::BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(passing)? {
            if bytes.len() + part.len() > limit {
                return Err(lasting(format!("it is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }
}

struct Failure {
    reason: String,
    lasting: bool,
    /// Seconds after which the server wants to be asked again (`Retry-After`).
    come_back: Option<u64>,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

impl HttpChunks {
    /// Chunks below `base`.
    pub fn new(http: Http, base: &str) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned() }
    }
}

impl ChunkSource for HttpChunks {
    fn fetch<'a>(&'a self, blake3: &'a str, limit: usize) -> BoxFuture<'a, Result<Bytes, StorageError>> {
        Box::pin(async move {
            let folder = blake3.get(..2).unwrap_or_default();
            self.http.get(&format!("{}/chunks/{folder}/{blake3}", self.base), limit).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// A server that gives these answers, one a connection.
    fn server(answers: Vec<&'static [u8]>) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).unwrap();
                let _ = stream.write_all(answer);
            }
        });
        format!("http://{address}/x")
    }

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

    #[tokio::test]
    async fn a_server_that_goes_away_in_between_is_asked_again() {
        let url = server(vec![
            b"",
            &GOOD[..GOOD.len() - 2],
            b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            GOOD,
        ]);
        let bytes = Http::new().unwrap().get(&url, 100).await.unwrap();
        assert_eq!(&bytes[..], b"hello");
    }

    #[tokio::test]
    async fn a_busy_server_says_when_to_come_back_and_that_costs_no_patience() {
        let busy = b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let url = server(vec![busy, busy, GOOD]);
        let begin = Instant::now();
        let bytes = Http::new().unwrap().impatient().get(&url, 100).await.unwrap();
        assert_eq!(&bytes[..], b"hello");
        assert!(begin.elapsed() >= Duration::from_secs(2), "it came back when it was told to, not before");
    }

    #[tokio::test]
    async fn what_will_not_change_fails_with_url_and_reason() {
        let url = server(vec![GOOD; 5]);
        let error = Http::new().unwrap().get(&url, 4).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot fetch {url}: it is longer than 4 bytes"));
        let url = server(vec![b"HTTP/1.1 404 None\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]);
        let error = Http::new().unwrap().impatient().get(&url, 4).await;
        assert!(matches!(error, Err(StorageError::Fetch { .. })), "{error:?}");
    }
}
