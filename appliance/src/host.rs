//! `dayzero host …` and `dayzero prove`.

use crate::cli::HostCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::text;
use dayzero_api::rest::hosts::ProveRequest;
use dayzero_control::ConsentRequest;
use dayzero_control::view::HostView;
use dayzero_model::ids::{HostName, Name};
use dayzero_model::proof::ProofReport;
use dayzero_trust::Credential;
use hyper::Method;

/// `dayzero host …`.
pub(crate) async fn run(client: &Client, out: Output, command: HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::Show { host, events } => {
            let view: HostView = client.get(&format!("/v1/hosts/{host}?events={events}")).await?;
            out.show(&view, text::host::host)
        }
        HostCommand::Retry { host } => {
            client.act(Method::POST, &format!("/v1/hosts/{host}/retry")).await?;
            out.done(&format!("{host} carries on; `dayzero status` shows how it fares"))
        }
        HostCommand::Consent { host, serial, finding } => {
            let request = ConsentRequest { serial, finding };
            client.act_with(&format!("/v1/hosts/{host}/consent"), &request).await?;
            out.done(&format!("disk {} of {host} will be wiped and installed", request.serial))
        }
        HostCommand::Reset { host, yes } => {
            sure(out, yes, &format!("Install {host} anew? What is on its disk is lost. (yes/no)"))?;
            client.act(Method::POST, &format!("/v1/hosts/{host}/reset")).await?;
            out.done(&format!("{host} begins again"))
        }
        HostCommand::Retire { host, forget_credential, yes } => {
            sure(out, yes, &format!("Forget {host} and its certificate? (yes/no)"))?;
            let path = format!("/v1/hosts/{host}?forget_credential={forget_credential}");
            client.act(Method::DELETE, &path).await?;
            out.done(&format!("{host} is forgotten"))
        }
        HostCommand::Credential { host } => {
            let known: Vec<Credential> = client.post_empty(&format!("/v1/hosts/{host}/credential")).await?;
            out.show(&known, |known| text::host::credentials(known))
        }
    }
}

/// Asks unless told not to; anything but `yes` ends it.
pub(crate) fn sure(out: Output, yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !out.is_person() {
        return Err(Failure::user("nobody is there to ask: look at it, then add --yes"));
    }
    match out.ask(question)?.as_deref().map(str::trim) {
        Some("yes" | "y") => Ok(()),
        _ => Err(Failure::user("nothing was changed")),
    }
}

/// `dayzero prove`: exit code 1 if the proof did not hold, with the report all the same.
pub(crate) async fn prove(
    client: &Client,
    out: Output,
    host: &HostName,
    without_leg: Option<Name>,
) -> Result<(), Failure> {
    let request = ProveRequest { without_leg };
    let report: ProofReport = client.post(&format!("/v1/hosts/{host}/prove"), &request).await?;
    out.show(&report, text::host::proof)?;
    if report.held { Ok(()) } else { Err(Failure::Quiet(1)) }
}
