//! `dayzero rehearse` runs the virtual rack; `dayzero lab …` does something to it.

use crate::cli::{Button, Lab, LabCommand, Rehearse};
use crate::failure::{Failure, chain};
use crate::output::{Format, Output};
use crate::{plan, text};
use dayzero_rehearsal::client::ClientError;
use dayzero_rehearsal::lab::FactoryAccount;
use dayzero_rehearsal::protocol::{PowerAction, Request, Response};
use dayzero_rehearsal::{LabClient, LabOptions, cleanup, run_lab};
use std::collections::BTreeMap;
use std::path::Path;

/// Runs the rack of a plan until it is told to end, or only clears a former one.
pub(crate) async fn rehearse(out: Output, options: Rehearse) -> Result<(), Failure> {
    // QEMU, the BMCs and others are told of it, and each runs in a directory of its own.
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Failure::User(chain(&e)));
    let dir = absolute(&options.dir)?;
    let Some(file) = options.plan.filter(|_| !options.clean) else {
        return clean(out, &dir);
    };
    let site = plan::load(out, &file)?;
    let secret_file = file.parent().unwrap_or(Path::new("")).join(&site.secrets);
    let secrets = dayzero_plan::secrets::load(&secret_file).map_err(|e| Failure::User(chain(&e)))?;
    let mut factory = BTreeMap::new();
    for name in secrets.names() {
        if let Some(found) = secrets.get(name) {
            let account = FactoryAccount { user: found.user.clone(), password: found.password.clone() };
            factory.insert(name.clone(), account);
        }
    }
    let templates = options.templates.map_or_else(|| Ok(dir.join("store")), |path| absolute(&path))?;
    let appliance = options.appliance.map(|path| absolute(&path)).transpose()?;
    let lab = LabOptions {
        memory_mib: options.memory,
        factory,
        keep: options.keep,
        appliance,
        ..LabOptions::new(&dir, templates)
    };
    run_lab(&site, lab).await.map_err(|e| Failure::system(&e))
}

fn clean(out: Output, dir: &Path) -> Result<(), Failure> {
    cleanup::former(dir).map_err(|e| Failure::system(&e))?;
    out.done(&format!("nothing of a former rack is left of {}", dir.display()))
}

fn request(command: LabCommand) -> Request {
    match command {
        LabCommand::Status => Request::Status,
        LabCommand::PullCable { host, nic } => Request::PullCable { host, nic },
        LabCommand::Plug { host, nic } => Request::Plug { host, nic },
        LabCommand::SwapCables { host, a, b } => Request::SwapCables { host, a, b },
        LabCommand::KillSwitch { member } => Request::KillSwitch { member },
        LabCommand::ReviveSwitch { member } => Request::ReviveSwitch { member },
        LabCommand::MutePort { host, nic } => Request::MutePort { host, nic },
        LabCommand::UnmutePort { host, nic } => Request::UnmutePort { host, nic },
        LabCommand::LacpFallbackOff { host } => Request::LacpFallback { host, on: false },
        LabCommand::LacpFallbackOn { host } => Request::LacpFallback { host, on: true },
        LabCommand::Power { host, action } => Request::Power { host, action: button(action) },
        LabCommand::WrongPassword { host } => Request::WrongPassword { host, wrong: true },
        LabCommand::RightPassword { host } => Request::WrongPassword { host, wrong: false },
        LabCommand::EmptyBattery { host } => Request::ClockBattery { host, empty: true },
        LabCommand::NewBattery { host } => Request::ClockBattery { host, empty: false },
        LabCommand::StaleMedia { host } => Request::StaleMedia { host, stale: true },
        LabCommand::FreshMedia { host } => Request::StaleMedia { host, stale: false },
        LabCommand::Pause { host } => Request::Pause { host },
        LabCommand::Resume { host } => Request::Resume { host },
        LabCommand::SpawnStranger { mac } => Request::SpawnStranger { mac },
        LabCommand::SpawnClone { of } => Request::SpawnClone { of },
        LabCommand::KillExtra { name } => Request::KillExtra { name },
        LabCommand::Console { machine } => Request::Console { machine },
        LabCommand::WipeDisk { host } => Request::WipeDisk { host },
        LabCommand::PutForeignData { host } => Request::PutForeignData { host },
        LabCommand::Shutdown => Request::Shutdown,
    }
}

fn button(button: Button) -> PowerAction {
    match button {
        Button::On => PowerAction::On,
        Button::Off => PowerAction::Off,
        Button::Reset => PowerAction::Reset,
        Button::Graceful => PowerAction::Graceful,
    }
}

/// Asks the rack for something and shows its answer.
pub(crate) async fn run(out: Output, lab: Lab) -> Result<(), Failure> {
    let mut client = LabClient::connect(&lab.dir).await.map_err(failed)?;
    let answer = client.ask(&request(lab.command)).await.map_err(failed)?;
    match (&answer, out.format) {
        // The status alone, as `dayzero status` gives its view; the others as they are on the wire.
        (Response::Status(status), _) => out.show(status, text::lab::status),
        // No command asks for them; a test speaks to the socket itself.
        (Response::Secrets(_), _) => Err(Failure::user("the rack's secrets are not shown")),
        (_, Format::Json) => out.show(&answer, |_| String::new()),
        (Response::Console(tail), Format::Text) => out.text(&tail.replace('\r', "")),
        (Response::Spawned { name, mac }, Format::Text) => out.text(&format!("{name} ({mac}) boots")),
        (Response::Done, Format::Text) => out.text("done"),
        (Response::Refused { reason }, Format::Text) => Err(Failure::user(reason.clone())),
    }
}

fn failed(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(_) => Failure::User(error.to_string()),
        ClientError::NoLab { .. } | ClientError::Io(_) => Failure::system(&error),
    }
}
