//! `dayzero apply`: check, show the difference, ask, commit.

use crate::client::Client;
use crate::failure::Failure;
use crate::host::sure;
use crate::output::{Format, Output};
use crate::plan;
use dayzero_control::view::{Applied, PlanPreview};
use dayzero_control::{ApplyRequest, Login};
use dayzero_model::ids::Name;
use dayzero_model::site::Site;
use std::collections::BTreeMap;
use std::path::Path;

/// Applies a plan. Exit code 2 if it breaks a rule or nobody agreed.
pub(crate) async fn apply(client: &Client, out: Output, file: &Path, yes: bool) -> Result<(), Failure> {
    let site = plan::load(out, file)?;
    let credentials = credentials(out, file, &site)?;
    let preview: PlanPreview = client.post("/v1/plan/preview", &site).await?;
    if out.format == Format::Text {
        out.text(&preview.text)?;
        for sentence in &preview.consequences {
            out.text(&format!("! {sentence}"))?;
        }
    }
    if !preview.empty {
        sure(out, yes, "Apply this? (yes/no)")?;
    }
    // Also where the plan is the same: credentials of the secret file may be new.
    let request = ApplyRequest { site, credentials, base: preview.base };
    let applied: Applied = client.post("/v1/plan", &request).await?;
    out.show(&applied, |applied| {
        let done = if applied.changed { "applied" } else { "nothing to do: this plan is applied already" };
        format!("{done} (plan {})", &applied.hash.to_string()[..12])
    })
}

/// Factory credentials from the secret file that the plan names. One that others may read is refused.
fn credentials(out: Output, file: &Path, site: &Site) -> Result<BTreeMap<Name, Login>, Failure> {
    let path = file.parent().unwrap_or(Path::new("")).join(&site.secrets);
    if !path.exists() {
        out.note(&format!(
            "note: no secret file at {}; credentials stay as the appliance has them",
            path.display()
        ));
        return Ok(BTreeMap::new());
    }
    let secrets = dayzero_plan::secrets::load(&path).map_err(|e| Failure::User(crate::failure::chain(&e)))?;
    if let Some(warning) = secrets.warning() {
        return Err(Failure::user(format!("{}: {warning}", path.display())));
    }
    let login = |name: &Name| {
        let found = secrets.get(name)?;
        Some((name.clone(), Login { user: found.user.clone(), password: found.password.clone() }))
    };
    Ok(secrets.names().filter_map(login).collect())
}
