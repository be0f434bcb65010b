//! Collects the secrets of a run from where each belongs: the rack's own socket, the key file, the vault (opened with the
//! key once the control plane has ended), the hosts' disks.

use super::forms::{Kind, Secret};
use crate::{paths, shell};
use anyhow::{Context, Result, bail};
use dayzero_store::{Options, Store};
use dayzero_trust::{KeySource, Vault};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where an installed agent keeps its key.
const AGENT_KEY: &str = "/var/lib/dayzero/agent.key";

/// The claim code as it was printed, and as a person might type it.
pub fn claim(code: &str) -> Result<Vec<Secret>> {
    Ok(vec![
        Secret::new(Kind::ClaimCode, "", code)?,
        Secret::new(Kind::ClaimCode, "without dashes", code.replace('-', ""))?,
    ])
}

/// The factory password of the plan's secret file.
pub fn factory() -> Result<Secret> {
    let text = fs::read_to_string(paths::demo().join("lab.secrets.yaml"))?;
    let password = text.lines().find_map(|line| line.trim().strip_prefix("password: "));
    Secret::new(Kind::FactoryPassword, "", password.context("lab.secrets.yaml has no password")?.trim())
}

/// The master key.
pub fn master_key() -> Result<Secret> {
    let text = fs::read_to_string(paths::demo().join("master.key")).context("reading the key file")?;
    Secret::from_hex(Kind::MasterKey, "", &text)
}

/// The command line's session at an appliance that is a machine; none where it has none.
pub fn session() -> Result<Option<Secret>> {
    let Ok(text) = fs::read_to_string(crate::demo::client::session()) else { return Ok(None) };
    let mut found = Vec::new();
    values_of(&serde_json::from_str(&text).context("the session file is no JSON")?, "session", &mut found);
    let session = found.first().context("the session file has no session")?;
    Secret::from_hex(Kind::ConsoleSession, "dayzero", session).map(Some)
}

/// What the BMCs were entrusted with, as the rack tells it on its own socket.
pub fn rack() -> Result<Vec<Secret>> {
    let mut stream = UnixStream::connect(paths::demo().join("rack/lab.sock")).context("the rack's socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"\"secrets\"\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the rack's secrets")?;
    of_rack(&serde_json::from_str(&line).context("the rack's secrets are no JSON")?)
}

fn of_rack(answer: &Value) -> Result<Vec<Secret>> {
    let hosts = answer["secrets"].as_array().context("the rack did not tell its secrets")?;
    let mut found = Vec::new();
    for host in hosts {
        let name = host["host"].as_str().unwrap_or_default();
        for entry in host["secrets"].as_array().into_iter().flatten() {
            let value = entry["value"].as_str().unwrap_or_default();
            found.push(match entry["kind"].as_str() {
                Some("password") => Secret::new(Kind::BmcPassword, name, value)?,
                Some("session-token") => Secret::new(Kind::BmcSession, name, value)?,
                Some("vouch-nonce") => Secret::from_hex(Kind::VouchNonce, name, value)?,
                Some("media-url") => {
                    // What nobody can guess of it: the file's name.
                    let file = value.rsplit('/').next().unwrap_or_default();
                    Secret::new(Kind::MediaUrl, name, file.split('.').next().unwrap_or_default())?
                }
                other => bail!("the rack tells a secret of kind {other:?}"),
            });
        }
    }
    Ok(found)
}

/// All that the vault of a data directory holds. Nobody else may have the store open.
pub fn vault(data: &Path, key: &Path) -> Result<Vec<Secret>> {
    let store = Store::open(&data.join("store"), Options::default()).context("opening the run's store")?;
    let vault = Vault::open(&store, &KeySource::File(key.to_owned())).context("opening the run's vault")?;
    let mut found = Vec::new();
    for name in vault.names("").context("listing the vault")? {
        if let Some(value) = vault.get(&name).with_context(|| format!("opening {name}"))? {
            found.extend(of_vault(&name, value.expose())?);
        }
    }
    Ok(found)
}

/// A sealed value: a key in PEM, a record with passwords, or hex digits.
fn of_vault(name: &str, value: &str) -> Result<Vec<Secret>> {
    let kind = match name.split('/').next() {
        Some("factory") => Kind::FactoryPassword,
        Some("bmc") => Kind::BmcPassword,
        Some("ca") => Kind::CaKey,
        _ => Kind::Vault,
    };
    let of = name.split_once('/').map_or(name, |(_, of)| of);
    if value.starts_with("-----BEGIN") {
        return Ok(vec![Secret::from_pem(kind, of, value)?]);
    }
    if let Ok(record @ Value::Object(_)) = serde_json::from_str::<Value>(value) {
        if let Some(key) = record["key"].as_str().filter(|key| key.starts_with("-----BEGIN")) {
            return Ok(vec![Secret::from_pem(kind, of, key)?]);
        }
        let mut passwords = Vec::new();
        values_of(&record, "password", &mut passwords);
        if passwords.is_empty() {
            bail!("the vault's record {name} has no field that is known as secret");
        }
        return passwords.iter().map(|password| Secret::new(kind, of, password.as_str())).collect();
    }
    Ok(vec![Secret::from_hex(kind, of, value).or_else(|_| Secret::new(kind, of, value))?])
}

fn values_of(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == key => found.push(text.clone()),
                    value => values_of(value, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| values_of(value, key, found)),
        _ => {}
    }
}

/// Where the partition of that name begins on a disk, in bytes.
pub fn partition(disk: &Path, name: &str) -> Result<u64> {
    let table =
        shell::read(Command::new("sfdisk").arg("--json").arg(disk)).context("reading the disk's table")?;
    let table: Value = serde_json::from_str(&table)?;
    let sector = table["partitiontable"]["sectorsize"].as_u64().unwrap_or(512);
    let start = table["partitiontable"]["partitions"]
        .as_array()
        .and_then(|partitions| partitions.iter().find(|part| part["name"] == name)?["start"].as_u64());
    Ok(start.with_context(|| format!("{} has no partition '{name}'", disk.display()))? * sector)
}

/// The private key of the agent that is installed on a disk.
pub fn agent_key(host: &str, disk: &Path) -> Result<Secret> {
    let root = partition(disk, "dayzero-root").with_context(|| format!("the disk of {host}"))?;
    let device = format!("{}?offset={root}", disk.display());
    // The host runs and writes: bitmaps and their checksums may not agree at any one moment, and a file is found without them.
    let read = format!("cat {AGENT_KEY}");
    let said = shell::ask(Command::new("debugfs").args(["-c", "-R", &read, &device]))?;
    Secret::from_pem(Kind::AgentKey, host, &said.stdout)
        .with_context(|| format!("{AGENT_KEY} on the disk of {host}: {}", said.stderr.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_that_the_rack_tells_is_known_and_a_new_one_is_an_error() {
        let entry = |kind: &str, value: &str| serde_json::json!({"kind": kind, "value": value});
        let answer =
            |entries: Vec<Value>| serde_json::json!({"secrets": [{"host": "host1", "secrets": entries}]});
        let known = of_rack(&answer(vec![
            entry("password", "set-by-somebody"),
            entry("session-token", "0123456789abcdef"),
            entry("media-url", "http://10.77.9.2:8082/media/00112233445566778899aabbccddeeff.iso"),
            entry("vouch-nonce", &"ab".repeat(32)),
        ]));
        let names: Vec<String> = known.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 4);
        assert_eq!(names[2], "virtual medium's URL of host1");
        assert!(of_rack(&answer(vec![entry("something-new", "0123456789")])).is_err());
        assert!(of_rack(&serde_json::json!("done")).is_err());
    }

    #[test]
    fn each_record_of_the_vault_gives_its_secrets_and_an_unknown_one_is_an_error() {
        let two = r#"{"state":"applied","factory":{"user":"root","password":"calvin-lab"},
            "current":{"user":"dayzero","password":"made-by-us-0"}}"#;
        assert_eq!(of_vault("bmc/host1", two).unwrap().len(), 2);
        assert_eq!(of_vault("nonce/1", &"ab".repeat(32)).unwrap().len(), 1);
        assert!(of_vault("new", r#"{"token":"0123456789abcdef"}"#).is_err());
    }
}
