//! `dayzero status`, `why`, `confirm`, `claim`.

use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::text;
use dayzero_api::rest::session::ClaimCode;
use dayzero_control::view::{StatusView, WhyView};
use hyper::Method;

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
