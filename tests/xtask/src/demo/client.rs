//! `dayzero` as a person uses it, with `-o json`.

use crate::{paths, shell};
use anyhow::{Context, Result, bail};
use dayzero_model::condition::ConditionRecord;
use dayzero_model::event::Event;
use dayzero_model::facts::HostFacts;
use dayzero_model::proof::ProofReport;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::process::Command;

/// `dayzero status`, as far as the demo looks at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub racks: Vec<Rack>,
    pub todo: Vec<Todo>,
    pub pending: Vec<Pending>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Rack {
    pub hosts: Vec<Summary>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub name: String,
    pub phase: String,
    pub health: String,
    pub detail: String,
    pub progress: Option<Progress>,
    pub met: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Progress {
    pub what: String,
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Todo {
    pub host: Option<String>,
    pub code: String,
    pub sentence: String,
    pub next_action: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Pending {
    pub mac: String,
    pub count: u64,
}

/// `dayzero host show`.
#[derive(Clone, Debug, Deserialize)]
pub struct HostView {
    pub conditions: Vec<ConditionRecord>,
    pub facts: HostFacts,
    pub timeline: Vec<Event>,
}

/// `dayzero why`.
#[derive(Clone, Debug, Deserialize)]
pub struct Why {
    pub events: Vec<Event>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub rule: String,
    pub sentence: String,
    pub evidence: Vec<String>,
    pub next_action: String,
}

/// The session file, where the control plane is a machine: whoever has logged in to it.
pub fn session() -> PathBuf {
    paths::demo().join("session.json")
}

/// The CLI, against the demo's control plane: by its socket, or, once somebody has logged in to the appliance's machine,
/// over HTTPS.
pub struct Client;

impl Client {
    /// A call; the answer as text, whatever the exit code.
    pub fn call(&self, args: &[&str]) -> Result<shell::Said> {
        let mut command = Command::new(paths::binary("dayzero"));
        // The session file names the appliance; nothing else may.
        command.env("DAYZERO_SESSION", session()).env_remove("DAYZERO_SERVER").env_remove("DAYZERO_SOCKET");
        if !session().exists() {
            command.env("DAYZERO_SOCKET", paths::demo().join("data/dayzero.sock"));
        }
        command.args(args);
        shell::ask(&mut command)
    }

    /// A call that must end with 0, its answer as JSON.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let mut full = args.to_vec();
        full.extend(["-o", "json"]);
        let said = self.call(&full)?;
        if said.code != Some(0) {
            bail!("dayzero {}: exit code {:?}: {}", args.join(" "), said.code, said.stderr.trim());
        }
        serde_json::from_str(&said.stdout)
            .with_context(|| format!("dayzero {}: unexpected JSON", args.join(" ")))
    }

    pub fn status(&self) -> Result<Status> {
        self.json(&["status"])
    }

    pub fn host(&self, name: &str) -> Result<HostView> {
        self.json(&["host", "show", name, "--events", "1000"])
    }

    pub fn why(&self, subject: &str) -> Result<Why> {
        self.json(&["why", subject])
    }

    /// Proves a host without one leg: the control, which must fail. A proof that did not hold has exit code 1 and
    /// the report all the same.
    pub fn prove_without(&self, host: &str, leg: &str) -> Result<ProofReport> {
        let said = self.call(&["prove", host, "--without-leg", leg, "-o", "json"])?;
        serde_json::from_str(&said.stdout)
            .with_context(|| format!("dayzero prove {host}: {:?} {}", said.code, said.stderr.trim()))
    }

    /// A command to the rack itself.
    pub fn lab(&self, args: &[&str]) -> Result<String> {
        let dir = paths::demo().join("rack");
        let dir = dir.to_string_lossy();
        let mut full = vec!["lab"];
        full.extend(args);
        full.extend(["--dir", &*dir]);
        let said = self.call(&full)?;
        if said.code != Some(0) {
            bail!("dayzero lab {}: exit code {:?}: {}", args.join(" "), said.code, said.stderr.trim());
        }
        Ok(said.stdout)
    }
}
