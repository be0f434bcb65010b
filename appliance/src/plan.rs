//! `dayzero plan …`: needs no appliance.

use crate::cli::PlanCommand;
use crate::failure::Failure;
use crate::output::{Format, Output};
use dayzero_model::site::Site;
use dayzero_plan::Known;
use std::collections::BTreeMap;
use std::path::Path;

/// `dayzero plan …`.
pub(crate) fn run(out: Output, command: PlanCommand) -> Result<(), Failure> {
    match command {
        PlanCommand::Check { file } => check(out, &file),
        PlanCommand::Init { csv } => init(out, csv.as_deref()),
        PlanCommand::Schema => {
            let schema = dayzero_plan::json_schema();
            let text = serde_json::to_string_pretty(&schema).map_err(|e| Failure::system(&e))?;
            out.raw(&format!("{text}\n"))
        }
        PlanCommand::Switches { file } => {
            let site = load(out, &file)?;
            out.show(&dayzero_plan::switch_settings(&site), Clone::clone)
        }
    }
}

fn known() -> Known {
    let profiles = dayzero_profiles::names().map(str::to_owned).collect();
    Known { profiles: Some(profiles), credentials: None }
}

fn check(out: Output, file: &Path) -> Result<(), Failure> {
    let (found, fails) = match dayzero_plan::load_with(file, &known()) {
        Ok((_, source)) => (source.warnings().clone(), false),
        Err(found) => (found, true),
    };
    match out.format {
        Format::Json => out.show(&found.to_json(), |_| String::new())?,
        Format::Text => out.text(&found.to_string())?,
    }
    if fails { Err(Failure::Quiet(2)) } else { Ok(()) }
}

/// A plan that broke no rule; what is wrong or to be looked at goes to standard error.
pub(crate) fn load(out: Output, file: &Path) -> Result<Site, Failure> {
    match dayzero_plan::load_with(file, &known()) {
        Ok((site, source)) => {
            if !source.warnings().is_empty() {
                out.note(&source.warnings().to_string());
            }
            Ok(site)
        }
        Err(found) => {
            out.note(&found.to_string());
            Err(Failure::Quiet(2))
        }
    }
}

fn init(out: Output, csv: Option<&Path>) -> Result<(), Failure> {
    let hosts = match csv {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| {
                Failure::user(format!("the list of hosts {name} cannot be read: {error}"))
            })?;
            Some(dayzero_plan::hosts_csv::read(&name, file).map_err(|e| Failure::User(e.to_string()))?)
        }
    };
    let mut answers = BTreeMap::new();
    for question in
        dayzero_plan::init::questions().filter(|question| question.id != "hosts" || hosts.is_none())
    {
        let Some(answer) = out.ask(&format!("{} [{}]:", question.text, question.default))? else { break };
        answers.insert(question.id.to_owned(), answer);
    }
    let text =
        dayzero_plan::init::write(&answers, hosts.as_deref()).map_err(|e| Failure::User(e.to_string()))?;
    out.raw(&text)
}
