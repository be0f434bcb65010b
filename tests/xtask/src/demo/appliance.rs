//! The control plane as a machine of the rack: a copy of the appliance's image, with the two files that a person writes on
//! its EFI partition, watched on its serial console and asked over HTTPS, as a person would.
//!
//! Nobody can log in there. What it keeps is read from its disk, once it is switched off.

use super::client::{self, Client};
use super::rack::Ready;
use crate::image::screen::{self, Shown};
use crate::{image, paths, secrets, shell};
use anyhow::{Context, Result, bail, ensure};
use dayzero_images::Appliance;
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the rack carries operators' connections from.
const CONSOLE: &str = "https://127.0.0.1:8443";
/// Until it serves, at most.
const START: Duration = Duration::from_secs(180);
/// Until it is off after its power button was pressed.
const STOP: Duration = Duration::from_secs(90);
/// So seldom its memory is asked for: each question is a TLS handshake in an emulated machine.
const SELDOM: Duration = Duration::from_secs(15);
/// Who pulls paths: the virtual rack, by the serial port that leads to it.
const PULLER: &str = "\n[puller]\nkind = \"lab\"\nsocket = \"/dev/virtio-ports/dayzero.lab\"\n";

/// The appliance in the rack.
pub struct Machine {
    fingerprint: String,
    claim: Option<String>,
    asked: Instant,
    on: bool,
}

/// `dayzero lab status`, as far as it is about the appliance.
#[derive(Deserialize)]
struct Lab {
    appliance: Option<Rig>,
}

#[derive(Deserialize)]
struct Rig {
    power: String,
    nics: Vec<Nic>,
}

#[derive(Deserialize)]
struct Nic {
    mac: String,
    address: String,
}

/// Its disk in the demo's directory.
pub fn disk() -> PathBuf {
    paths::demo().join("appliance.raw")
}

/// A copy of the image for the rack to start.
pub fn copy(image: &Appliance) -> Result<()> {
    image::copy(&image.disk, &disk())
}

fn rig() -> Result<Rig> {
    let said = Client.lab(&["status", "-o", "json"])?;
    serde_json::from_str::<Lab>(&said)?.appliance.context("the rack has no appliance")
}

fn console() -> Result<String> {
    let said: Value = serde_json::from_str(&Client.lab(&["console", "appliance", "-o", "json"])?)?;
    Ok(said["console"].as_str().context("the rack shows no console")?.to_owned())
}

impl Machine {
    /// Writes its network.conf, adds the rack's puller to its serve.toml, switches it on, and reads its screen.
    pub fn start() -> Result<(Self, Ready)> {
        let nics = rig()?.nics;
        let lines: String = nics.iter().map(|nic| format!("{} {}\n", nic.mac, nic.address)).collect();
        dayzero_images::put_on_esp(&disk(), "network.conf", &lines)?;
        let config = read_esp("serve.toml")?;
        dayzero_images::put_on_esp(&disk(), "serve.toml", &format!("{config}{PULLER}"))?;
        let began = Instant::now();
        Client.lab(&["power", "appliance", "on"])?;
        let shown = until_shown()?;
        ensure!(shown.faults.is_empty(), "the appliance shows faults: {}", shown.faults.join("; "));
        let first = nics.first().and_then(|nic| nic.address.split('/').next()).context("it has no NIC")?;
        let url = format!("https://{first}:8443/");
        ensure!(shown.consoles.contains(&url), "its screen does not show {url}, but {:?}", shown.consoles);
        let ready = Ready {
            console: format!("{CONSOLE}/"),
            fingerprint: shown.fingerprint.clone(),
            claim: shown.claim.clone(),
            after: began.elapsed(),
        };
        write_private(&paths::demo().join("master.key"), &read_esp("master.key")?)?;
        let Shown { fingerprint, claim, .. } = shown;
        Ok((Self { fingerprint, claim, asked: Instant::now(), on: true }, ready))
    }

    /// The command line logs in, by the password that the console was claimed with, or, if it was not, by the claim code.
    /// What it sends is gone from this process; its session is in the demo's directory.
    pub fn log_in(&self, password: Option<&str>) -> Result<()> {
        let login = ["login", CONSOLE, "--fingerprint", &self.fingerprint];
        let (args, input) = match password {
            Some(password) => (login.to_vec(), format!("{password}\n")),
            None => {
                let code = self.claim.as_deref().context("the appliance shows no claim code")?;
                ([&login[..], &["--claim"]].concat(), format!("{code}\n{}\n", secrets::password()?))
            }
        };
        let mut command = Command::new(paths::binary("dayzero"));
        command.env("DAYZERO_SESSION", client::session()).args(args);
        let said = shell::tell(&mut command, &input)?;
        ensure!(said.code == Some(0), "dayzero login {CONSOLE}: {}", said.stderr.trim());
        Ok(())
    }

    /// It examines itself, before a plan is applied: its disk, its boot files, its links and its ports must be in order.
    pub fn examine(&self, plan: &Path) -> Result<String> {
        let said = Client.call(&["doctor", "--plan", &plan.to_string_lossy(), "-o", "json"])?;
        let found: Vec<Value> = serde_json::from_str(&said.stdout)
            .with_context(|| format!("dayzero doctor: {:?} {}", said.code, said.stderr.trim()))?;
        for check in ["disk", "boot-files", "link", "port"] {
            let mut of = found.iter().filter(|finding| finding["check"] == check).peekable();
            ensure!(of.peek().is_some(), "the appliance did not look at its {check}: {}", said.stdout);
            if let Some(bad) = of.find(|finding| finding["severity"] != "good") {
                bail!("the appliance finds {check} not in order: {bad}");
            }
        }
        let count = |severity: &str| found.iter().filter(|finding| finding["severity"] == severity).count();
        Ok(format!("{} good, {} warnings, {} faults", count("good"), count("warning"), count("fault")))
    }

    /// Cuts its power and switches it on again. How long until it answered.
    pub fn cut_power(&mut self) -> Result<Duration> {
        let began = Instant::now();
        Client.lab(&["power", "appliance", "off"])?;
        Client.lab(&["power", "appliance", "on"])?;
        let mut last = String::new();
        while began.elapsed() < START {
            // The certificate is pinned: another one than before the cut would be refused.
            let said = Client.call(&["health"])?;
            if said.code == Some(0) {
                return Ok(began.elapsed());
            }
            last = said.stderr;
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("the appliance does not answer {} s after a power cut: {}", START.as_secs(), last.trim())
    }

    /// Peak memory of its `dayzero serve` (VmHWM), MiB, as its health route tells; none = not asked now, or no answer.
    pub fn peak_memory(&mut self, now: bool) -> Option<u64> {
        if !self.on || (!now && self.asked.elapsed() < SELDOM) {
            return None;
        }
        self.asked = Instant::now();
        let health: Value = Client.json(&["health"]).ok()?;
        Some(health["peak_memory"].as_u64()?.div_ceil(1 << 20))
    }

    /// Presses its power button, waits until it is off, and puts what it keeps where a control plane that is a process
    /// keeps it: `data`, `serve.log`.
    pub fn stop(&mut self) -> Result<()> {
        if !self.on {
            return Ok(());
        }
        Client.lab(&["power", "appliance", "graceful"])?;
        let until = Instant::now() + STOP;
        while rig()?.power != "off" {
            ensure!(Instant::now() < until, "the power button does not switch the appliance off");
            std::thread::sleep(Duration::from_millis(200));
        }
        self.on = false;
        let (dir, kept) = (paths::demo(), paths::demo().join("kept"));
        fs::create_dir_all(&kept)?;
        for part in ["/dayzero", "/log"] {
            debugfs(&format!("rdump {part} {}", kept.display()))?;
        }
        let _empty = fs::remove_dir(dir.join("data"));
        fs::rename(kept.join("dayzero"), dir.join("data")).context("the appliance's data")?;
        fs::rename(kept.join("log/serve.log"), dir.join("serve.log")).context("the appliance's log")?;
        Ok(())
    }
}

/// What its screen shows once it serves.
fn until_shown() -> Result<Shown> {
    let until = Instant::now() + START;
    loop {
        let console = console()?;
        if let Some(shown) = screen::read(&console) {
            return Ok(shown);
        }
        if Instant::now() > until {
            let lines: Vec<&str> = console.lines().filter(|line| !line.contains("claim:")).collect();
            let end = lines[lines.len().saturating_sub(20)..].join("\n");
            bail!("the appliance does not serve after {} s; its screen:\n{end}", START.as_secs());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A file of its EFI partition, as any PC reads it.
fn read_esp(name: &str) -> Result<String> {
    let image = format!("{}@@2M", disk().display());
    shell::read(Command::new("mtype").args(["-i", &image, &format!("::/dayzero/{name}")]))
}

/// A command of debugfs on its data partition, which must not be in use.
fn debugfs(command: &str) -> Result<()> {
    let table: Value = serde_json::from_str(&shell::read(Command::new("sfdisk").arg("--json").arg(disk()))?)?;
    let table = &table["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let data =
        table["partitions"].as_array().into_iter().flatten().find(|part| part["name"] == "dayzero-data");
    let start =
        data.and_then(|part| part["start"].as_u64()).context("the appliance made no data partition")?;
    let device = format!("{}?offset={}", disk().display(), start * sector);
    shell::read(Command::new("debugfs").args(["-R", command, &device])).map(drop)
}

/// A file for its owner alone.
pub fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())?;
    Ok(())
}
