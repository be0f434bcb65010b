//! Starts the appliance's image in QEMU, by BIOS and by UEFI, with no other file, and judges what it shows: it serves, its
//! certificate is the one on its screen, the claim code lets a person in from outside, and a restart keeps all of it.

use super::screen::{self, Shown};
use crate::{paths, shell};
use anyhow::{Context, Result, bail, ensure};
use dayzero_images::Appliance;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Until it serves, at most: emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
const PASSWORD: &str = "an appliance of my own";
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Starts copies of the image by each firmware.
pub fn check(image: &Appliance) -> Result<()> {
    for firmware in ["BIOS", "UEFI"] {
        let began = Instant::now();
        let lab = Lab::new(&image.disk, firmware == "UEFI")
            .context("preparing a start of the appliance's image")?;
        let told = lab.live().with_context(|| {
            format!("the appliance's image, started by {firmware}; its console:\n{}", tail(&lab.console()))
        })?;
        println!("appliance image by {firmware}: {told}; {:.0} s in all", began.elapsed().as_secs_f64());
    }
    Ok(())
}

/// A directory with a copy of the image; removed with this.
struct Lab {
    dir: PathBuf,
    uefi: bool,
    port: u16,
}

/// A running machine. Dropped, its power is cut.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Lab {
    fn new(disk: &Path, uefi: bool) -> Result<Self> {
        let dir = PathBuf::from(format!("/var/tmp/dayzero-start-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let lab = Self { dir, uefi, port };
        super::copy(disk, &lab.file("disk.raw"))?;
        // A disk is seldom as large as the image: one of the two is larger.
        let larger = fs::File::options().write(true).open(lab.file("disk.raw"))?;
        larger.set_len(larger.metadata()?.len() + if uefi { 0 } else { 1 << 30 })?;
        if uefi {
            fs::copy(OVMF_VARS, lab.file("vars.fd")).context("copying EDK2's variables (package ovmf)")?;
        }
        Ok(lab)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("console")).unwrap_or_default()).into_owned()
    }

    /// First start, claim, power button; second start.
    fn live(&self) -> Result<String> {
        let mut machine = self.power_on()?;
        let (first, took) = self.ready(&mut machine)?;
        ensure!(first.faults.is_empty(), "it shows faults: {:?}", first.faults);
        ensure!(
            first.consoles == ["https://10.0.2.15:8443/"],
            "it shows its console at {:?}",
            first.consoles
        );
        let address = format!("127.0.0.1:{}", self.port);
        let seen = shell::fingerprint(&address)?;
        ensure!(
            seen == first.fingerprint,
            "it serves the certificate {seen} and shows {}",
            first.fingerprint
        );
        let code = first.claim.as_deref().context("the first start shows no claim code")?;
        let url = format!("https://{address}");
        let claim = ["login", &url, "--fingerprint", &first.fingerprint, "--claim"];
        self.dayzero(&claim, &format!("{code}\n{PASSWORD}\n"))?;
        let before = self.revision()?;
        self.until(&mut machine, "the claim code is off the screen", |shown| shown.claim.is_none())?;
        self.press_power(&mut machine)?;
        self.key_is_kept()?;

        let mut machine = self.power_on()?;
        let (second, again) = self.ready(&mut machine)?;
        ensure!(
            second.fingerprint == first.fingerprint,
            "a restart shows another certificate: {}",
            second.fingerprint
        );
        ensure!(second.claim.is_none(), "a claimed appliance shows a claim code");
        let after = self.revision().context("the session of before the restart")?;
        ensure!(after >= before, "the store went back from revision {before} to {after}");
        self.dayzero(&["login", &url], &format!("{PASSWORD}\n"))?;
        Ok(format!(
            "ready after {took:.0} s, claimed from outside; after the power button ready again in {again:.0} s"
        ))
    }

    fn power_on(&self) -> Result<Machine> {
        let _before = fs::remove_file(self.file("console"));
        // Ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]);
        command.args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
        ]);
        command.arg("-serial").arg(format!("file:{}", self.file("console").display()));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", self.file("qmp").display()));
        let disk = self.file("disk.raw");
        command.arg("-drive").arg(format!("if=none,id=d0,format=raw,file={}", disk.display()));
        command.args(["-device", "virtio-blk-pci,drive=d0,bootindex=1"]);
        // Only the one forwarded port leads anywhere.
        let net = format!("user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{}-:8443", self.port);
        command.args(["-netdev", &net, "-device", "virtio-net-pci,netdev=n0,romfile="]);
        if self.uefi {
            let vars = self.file("vars.fd");
            command.arg("-drive").arg(format!("if=pflash,unit=0,format=raw,readonly=on,file={OVMF_CODE}"));
            command.arg("-drive").arg(format!("if=pflash,unit=1,format=raw,file={}", vars.display()));
        }
        let log = fs::File::create(self.file("qemu.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Machine(child.context("starting QEMU (package qemu-system-x86)")?))
    }

    /// What it shows once it serves, and after how many seconds.
    fn ready(&self, machine: &mut Machine) -> Result<(Shown, f64)> {
        let began = Instant::now();
        let shown = self.until(machine, "it serves", |_| true)?;
        Ok((shown, began.elapsed().as_secs_f64()))
    }

    fn until(&self, machine: &mut Machine, what: &str, enough: impl Fn(&Shown) -> bool) -> Result<Shown> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(shown) = screen::read(&self.console()).filter(&enough) {
                return Ok(shown);
            }
            if let Some(status) = machine.0.try_wait()? {
                let log = fs::read_to_string(self.file("qemu.log")).unwrap_or_default();
                bail!("waiting until {what}: the machine ended ({status}): {log}");
            }
            ensure!(Instant::now() < until, "not within {} s: {what}", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The power button: it ends by itself.
    fn press_power(&self, machine: &mut Machine) -> Result<()> {
        let mut qmp = UnixStream::connect(self.file("qmp")).context("QMP")?;
        let mut lines = BufReader::new(qmp.try_clone()?).lines();
        for command in ["qmp_capabilities", "system_powerdown"] {
            qmp.write_all(format!("{{\"execute\": \"{command}\"}}\n").as_bytes())?;
            lines
                .by_ref()
                .find(|line| line.as_ref().map_or(true, |line| line.contains("\"return\"")))
                .transpose()?;
        }
        let until = Instant::now() + PATIENCE;
        while machine.0.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "the power button does not switch it off");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The master key lies on the EFI partition.
    fn key_is_kept(&self) -> Result<()> {
        let image = format!("{}@@2M", self.file("disk.raw").display());
        let key = shell::read(Command::new("mtype").args(["-i", &image, "::/dayzero/master.key"]))?;
        let digits = key.trim();
        ensure!(
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "the master key is none"
        );
        Ok(())
    }

    fn dayzero(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(paths::binary("dayzero"));
        command.env("DAYZERO_SESSION", self.file("session.json")).env_remove("DAYZERO_SOCKET");
        let said = shell::tell(command.env_remove("DAYZERO_SERVER").args(args), input)?;
        ensure!(said.code == Some(0), "dayzero {}: {}", args.join(" "), said.stderr.trim());
        Ok(said.stdout)
    }

    fn revision(&self) -> Result<u64> {
        let health: serde_json::Value = serde_json::from_str(&self.dayzero(&["health", "-o", "json"], "")?)?;
        health["store"]["revision"].as_u64().context("no revision in the health")
    }
}

/// The console's end, without a claim code.
fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().filter(|line| !line.starts_with("claim:")).collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
