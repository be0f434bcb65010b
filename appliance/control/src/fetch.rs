//! Small HTTP GETs to secondary storage.

use bytes::BytesMut;
use futures::StreamExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// A short text by plain HTTP. The error is a sentence.
pub(crate) async fn text(url: &str, most: usize) -> Result<String, String> {
    let uri: hyper::Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!(
            "{url}: give the template's sha256 in the plan; only http is fetched by the appliance"
        ));
    }
    let get = async {
        let client: Client<_, axum::body::Body> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.get(uri).await.map_err(|error| format!("{url}: {error}"))?;
        if !response.status().is_success() {
            return Err(format!("{url}: answered {}", response.status()));
        }
        let mut stream = axum::body::Body::new(response.into_body()).into_data_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| format!("{url}: {error}"))?;
            if bytes.len() + chunk.len() > most {
                return Err(format!("{url}: longer than {most} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes.to_vec()).map_err(|error| format!("{url}: {error}"))
    };
    tokio::time::timeout(LIMIT, get).await.map_err(|_| format!("{url}: no answer in time"))?
}
