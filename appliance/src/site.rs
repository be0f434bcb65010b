//! `dayzero status`, `why`, `confirm`, `claim`, `health`.

use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::text;
use dayzero_api::Health;
use dayzero_api::rest::session::ClaimCode;
use dayzero_control::view::{StatusView, WhyView};
use hyper::Method;
use std::path::Path;

/// The site at a glance.
pub(crate) async fn status(client: &Client, out: Output) -> Result<(), Failure> {
    let view: StatusView = client.get("/v1/status").await?;
    out.show(&view, text::status::status)
}

/// The boot flight recorder.
pub(crate) async fn why(client: &Client, out: Output, subject: &str) -> Result<(), Failure> {
    let view: WhyView = client.get(&format!("/v1/why/{}", segment(subject))).await?;
    out.show(&view, text::why::why)
}

/// The recorder's datagrams, to a file or a pipe.
pub(crate) async fn pcap(
    client: &Client,
    out: Output,
    subject: &str,
    write: Option<&Path>,
) -> Result<(), Failure> {
    if write.is_none() && out.writes_to_terminal() {
        return Err(Failure::user(
            "this is a file for Wireshark, not for a terminal: --write FILE, or pipe it (`| tshark -r -`)",
        ));
    }
    let file = client.get_bytes(&format!("/v1/pcap/{}", segment(subject))).await?;
    match write {
        None => out.bytes(&file),
        Some(path) => {
            std::fs::write(path, &file)
                .map_err(|error| Failure::user(format!("{} cannot be written: {error}", path.display())))?;
            out.done(&format!("{} bytes in {}: Wireshark opens it", file.len(), path.display()))
        }
    }
}

/// A person did what was asked for.
pub(crate) async fn confirm(client: &Client, out: Output, id: &str) -> Result<(), Failure> {
    client.act(Method::POST, &format!("/v1/confirm/{}", segment(id))).await?;
    out.done(&format!("confirmed: {id}"))
}

/// A new claim code.
pub(crate) async fn claim(client: &Client, out: Output) -> Result<(), Failure> {
    let code: ClaimCode = client.post_empty("/v1/claim").await?;
    if out.format == Format::Text {
        out.note("Open the console and enter this code with a new password for 'admin'. It works once.");
    }
    out.show(&code, |code| format!("claim: {}", code.claim.expose()))
}

/// The appliance's own state.
pub(crate) async fn health(client: &Client, out: Output) -> Result<(), Failure> {
    let health: Health = client.get("/v1/health").await?;
    out.show(&health, |health| {
        let mut text =
            format!("{}: version {}", health.status, health.version.as_deref().unwrap_or("unknown"));
        if let Some(store) = &health.store {
            let closed = if store.clean { "closed in order before" } else { "not closed in order before" };
            text.push_str(&format!(
                "\nstore: revision {}, {closed}, opened in {} ms",
                store.revision, store.open_ms
            ));
        }
        if let Some(peak) = health.peak_memory {
            text.push_str(&format!("\nmemory: {} MiB at most", peak.div_ceil(1 << 20)));
        }
        text
    })
}
