//! What a person does at a BMC with foreign clients, curl and ipmitool, beside the control plane.

use super::appliance::write_private;
use super::client::Client;
use super::rack::CONTROL;
use crate::{paths, shell};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// How a BMC says that it lets nobody in with this login; silence, or a BMC that is not there, is none of them.
const REFUSALS: [&str; 5] = [
    "unauthorized name",
    "HMAC is invalid",
    "invalid role",
    "Insufficient privilege",
    "Unable to set Session Privilege Level",
];

/// A BMC of the lab.
#[derive(Clone, Copy, Debug)]
pub struct Bmc {
    pub host: &'static str,
    pub protocol: Protocol,
    pub address: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Redfish,
    Ipmi,
}

/// A login; none of it is shown.
struct Login<'a> {
    user: &'a str,
    password: &'a str,
}

impl Bmc {
    /// Whether the BMC refuses that login, in its own words.
    pub fn refuses(&self, user: &str, password: &str) -> Result<(bool, String)> {
        let login = Login { user, password };
        match self.protocol {
            Protocol::Redfish => {
                let said = self.curl(&login, "Systems", &["-o", "/dev/null", "-w", "%{http_code}"])?;
                let code = said.stdout.trim();
                Ok((code == "401", format!("curl got HTTP {code}")))
            }
            Protocol::Ipmi => {
                let said = self.ipmitool(&login, &["-v", "chassis", "power", "status"])?;
                Ok(refusal(&said))
            }
        }
    }

    /// Cuts the host's power, with the login that the control plane tells a person who asks for it.
    pub fn cut_power(&self) -> Result<()> {
        let known: Value = Client.json(&["host", "credential", self.host])?;
        let text =
            |key: &str| known[0][key].as_str().with_context(|| format!("no {key} of {}'s BMC", self.host));
        let login = Login { user: text("user")?, password: text("password")? };
        let said = match self.protocol {
            Protocol::Redfish => {
                let systems: Value = serde_json::from_str(&self.curl(&login, "Systems", &[])?.stdout)?;
                let system =
                    systems["Members"][0]["@odata.id"].as_str().context("the BMC shows no system")?;
                let reset =
                    format!("{}/Actions/ComputerSystem.Reset", system.trim_start_matches("/redfish/v1/"));
                let body =
                    ["-H", "Content-Type: application/json", "-d", r#"{"ResetType":"ForceOff"}"#, "--fail"];
                self.curl(&login, &reset, &body)?
            }
            Protocol::Ipmi => self.ipmitool(&login, &["chassis", "power", "off"])?,
        };
        ensure!(said.code == Some(0), "{}'s BMC does not cut its power: {}", self.host, said.stderr.trim());
        Ok(())
    }

    fn curl(&self, login: &Login<'_>, path: &str, more: &[&str]) -> Result<shell::Said> {
        let netrc = paths::demo().join("person.netrc");
        let Login { user, password } = login;
        write_private(&netrc, &format!("machine {} login {user} password {password}\n", self.address))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", CONTROL, "curl", "-sS", "-k", "--noproxy", "*", "--max-time", "20"]);
        command.args(more).arg("--netrc-file").arg(&netrc);
        let said = shell::ask(command.arg(format!("https://{}/redfish/v1/{path}", self.address)));
        fs::remove_file(&netrc)?;
        said
    }

    fn ipmitool(&self, login: &Login<'_>, args: &[&str]) -> Result<shell::Said> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", CONTROL, "ipmitool", "-I", "lanplus", "-C", "3", "-R", "1", "-N", "3"]);
        command.args(["-H", self.address, "-U", login.user, "-E"]).args(args);
        shell::ask(command.env("IPMITOOL_PASSWORD", login.password))
    }
}

/// Whether ipmitool was refused, and by which words.
fn refusal(said: &shell::Said) -> (bool, String) {
    let words = format!("{}\n{}", said.stdout, said.stderr);
    let line = words.lines().find(|line| REFUSALS.iter().any(|refusal| line.contains(refusal)));
    let first = || words.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    let shown = line.unwrap_or_else(first).trim();
    (said.code != Some(0) && line.is_some(), format!("ipmitool: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_that_is_not_there_refuses_nobody() {
        let said =
            |code, err: &str| shell::Said { code: Some(code), stdout: String::new(), stderr: err.to_owned() };
        let away = said(1, "Error: Unable to establish IPMI v2 / RMCP+ session\n");
        assert!(!refusal(&away).0);
        let refused =
            said(1, "RAKP 2 message indicates an error : unauthorized name\nError: Unable to establish\n");
        assert_eq!(
            refusal(&refused),
            (true, "ipmitool: RAKP 2 message indicates an error : unauthorized name".to_owned())
        );
        assert!(!refusal(&said(0, "")).0);
    }
}
