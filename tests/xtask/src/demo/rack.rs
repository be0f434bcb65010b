//! The demo's processes: the lab daemon and the control plane, each written down before it is used.

use super::appliance::{self, Machine};
use super::client::Client;
use super::leftovers::{self, Ending};
use crate::build::Images;
use crate::paths;
use anyhow::{Context, Result, anyhow, bail};
use dayzero_images::Appliance;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Namespace of the control plane.
pub const CONTROL: &str = "dz-ctl";

/// What `dayzero serve` printed when it was ready.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    pub console: String,
    pub fingerprint: String,
    /// One-time claim code; only at the first start.
    pub claim: Option<String>,
    /// From the start of the process.
    pub after: Duration,
}

/// The raised rack.
pub struct Rack {
    pub plan: PathBuf,
    pub zero: Instant,
    pub zero_ms: u64,
    pub ready: Ready,
    lab: Child,
    control: Control,
    peak_rss_mib: u64,
    /// Of the console, where it is a machine's.
    password: Option<String>,
}

/// The control plane.
enum Control {
    /// A process in a namespace of the rack.
    Process { serve: Child, config: PathBuf },
    /// A machine of the rack.
    Machine(Machine),
}

impl Rack {
    /// Raises the rack and starts the control plane in it, as a process.
    pub fn raise(images: &Images) -> Result<Self> {
        Self::raise_with(images, None)
    }

    /// Raises the rack; with an appliance, the control plane is a machine that starts from a copy of that image.
    pub fn raise_with(images: &Images, appliance: Option<&Appliance>) -> Result<Self> {
        let dir = paths::demo();
        for part in ["rack", "data", "store", "images"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let plan = copy_plan(&dir)?;
        copy_template(images, &dir.join("store"))?;
        if let Some(image) = appliance {
            appliance::copy(image)?;
        }
        let config = write_config(images, &dir)?;
        let zero = Instant::now();
        let zero_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
        let mut lab = start_lab(&plan, &dir, appliance.is_some())?;
        let started = match appliance {
            None => start_serve(&config).map(|(serve, ready)| (Control::Process { serve, config }, ready)),
            Some(_) => Machine::start().map(|(machine, ready)| (Control::Machine(machine), ready)),
        };
        match started {
            Ok((control, ready)) => {
                Ok(Self { plan, zero, zero_ms, ready, lab, control, peak_rss_mib: 0, password: None })
            }
            Err(error) => {
                let _ = end(&mut lab, Duration::from_secs(30));
                Err(error)
            }
        }
    }

    /// SIGKILL to the control plane, and a new one; where it is a machine, a power cut. How long until it answered.
    pub fn kill_and_restart_control(&mut self) -> Result<Duration> {
        self.note_peak(true);
        match &mut self.control {
            Control::Process { serve, config } => {
                serve.kill()?;
                serve.wait()?;
                let (again, ready) = start_serve(config)?;
                *serve = again;
                Ok(ready.after)
            }
            Control::Machine(machine) => machine.cut_power(),
        }
    }

    /// Before the command line is used: where the control plane is a machine, it logs in there.
    pub fn log_in(&mut self, password: Option<&str>) -> Result<()> {
        self.password = password.map(str::to_owned);
        match &self.control {
            Control::Process { .. } => Ok(()),
            Control::Machine(machine) => machine.log_in(password),
        }
    }

    /// Where the control plane is a machine, it examines itself; how that ended.
    pub fn examine(&self) -> Result<Option<String>> {
        match &self.control {
            Control::Process { .. } => Ok(None),
            Control::Machine(machine) => machine.examine(&self.plan).map(Some),
        }
    }

    /// Peak resident memory of the control plane so far (VmHWM), MiB.
    pub fn note_rss(&mut self) -> u64 {
        self.note_peak(false)
    }

    fn note_peak(&mut self, now: bool) -> u64 {
        let peak = match &mut self.control {
            Control::Process { serve, .. } => {
                let text = fs::read_to_string(format!("/proc/{}/status", serve.id())).unwrap_or_default();
                let kib = text.lines().find_map(|line| {
                    line.strip_prefix("VmHWM:")?.split_ascii_whitespace().next()?.parse::<u64>().ok()
                });
                kib.map(|kib| kib.div_ceil(1024))
            }
            Control::Machine(machine) => machine.peak_memory(now),
        };
        self.peak_rss_mib = self.peak_rss_mib.max(peak.unwrap_or(0));
        self.peak_rss_mib
    }

    /// Both processes still run.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.lab.try_wait()? {
            bail!("the lab daemon ended ({status}); its log: {}", tail(&paths::demo().join("lab.log")));
        }
        if let Control::Process { serve, .. } = &mut self.control
            && let Some(status) = serve.try_wait()?
        {
            bail!("the control plane ended ({status}); its log: {}", tail(&paths::demo().join("serve.log")));
        }
        Ok(())
    }

    /// Why a step failed: by itself, or since a process of the rack ended under it.
    pub fn reason(&mut self, error: anyhow::Error) -> anyhow::Error {
        reason(error, || self.check_alive())
    }

    /// Ends the control plane alone, in order: others can then open what it keeps.
    pub fn stop_control(&mut self) -> Result<()> {
        self.note_peak(true);
        match &mut self.control {
            Control::Process { serve, .. } => end(serve, Duration::from_secs(20)),
            Control::Machine(machine) => machine.stop(),
        }
    }

    /// Ends both, the control plane first. Its peak memory, MiB.
    pub fn tear_down(&mut self) -> Result<u64> {
        self.stop_control()?;
        let rss = self.peak_rss_mib;
        end(&mut self.lab, Duration::from_secs(30))?;
        for cleared in leftovers::clear()? {
            println!("cleared: {cleared}");
        }
        Ok(rss)
    }

    /// What a person can do while the rack is left running.
    pub fn things_to_try(&self) {
        println!("The rack keeps running. Web console: {}", self.ready.console);
        println!("{}", self.way_in());
        let (variable, place) = match self.control {
            Control::Process { .. } => ("DAYZERO_SOCKET", paths::demo().join("data/dayzero.sock")),
            Control::Machine(_) => ("DAYZERO_SESSION", super::client::session()),
        };
        println!("Things to try ({variable}={}):", place.display());
        let binary = paths::binary("dayzero");
        let (binary, lab) = (binary.display(), paths::demo().join("rack"));
        for line in ["lab pull-cable host1 0", "lab swap-cables host2 0 1", "lab wrong-password host2"] {
            println!("  {binary} {line} --dir {}", lab.display());
        }
        println!("  {binary} status; {binary} why host1; {binary} why host2");
        println!("Ctrl-C ends it, as does `cargo xtask demo --stop` from another terminal.");
    }

    /// How a person logs in: the code that was printed first is spent, on the demo's own browser.
    fn way_in(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Code {
            claim: String,
        }
        match (&self.control, &self.password) {
            (Control::Machine(_), Some(password)) => format!("Log in as admin, password {password}"),
            _ => match super::client::Client.json::<Code>(&["claim"]) {
                Ok(Code { claim }) => format!("New claim code, for a password of yours: {claim}"),
                Err(error) => format!("There is no new claim code: {error:#}"),
            },
        }
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        // After an error on the way: nothing outlives the demo but its logs.
        if let Control::Process { serve, .. } = &mut self.control {
            let _ = end(serve, Duration::from_secs(5));
        }
        let _ = end(&mut self.lab, Duration::from_secs(30));
        if let Err(error) = leftovers::end_all() {
            eprintln!("xtask: {error:#}; the next run, or `cargo xtask demo --stop`, tries again");
        }
    }
}

fn end(child: &mut Child, patience: Duration) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let _ = kill(nix::unistd::Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM);
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
}

/// The lab's plan and its secret file, 0600.
fn copy_plan(dir: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let examples = paths::root().join("appliance/plan/examples");
    for name in ["lab.yaml", "lab.secrets.yaml"] {
        fs::copy(examples.join(name), dir.join(name)).with_context(|| format!("copying {name}"))?;
    }
    fs::set_permissions(dir.join("lab.secrets.yaml"), fs::Permissions::from_mode(0o600))?;
    Ok(dir.join("lab.yaml"))
}

/// The guest template into secondary storage, with its checksum beside it.
fn copy_template(images: &Images, store: &Path) -> Result<()> {
    let bytes = fs::read(&images.tiny)?;
    fs::write(store.join("tiny.raw"), &bytes)?;
    let digest = dayzero_model::Sha256::of(&bytes);
    fs::write(store.join("tiny.raw.sha256"), format!("{digest}  tiny.raw\n"))?;
    Ok(())
}

fn write_config(images: &Images, dir: &Path) -> Result<PathBuf> {
    let path = |path: &Path| path.display().to_string();
    let text = format!(
        r#"# The demo's control plane; every key is explained in appliance/examples/serve.toml.
data_dir = "{data}"
key_file = "{key}"

[operators]
listen = "127.0.0.1:8443"

[files]
kernel = "{kernel}"
initrd = "{initrd}"
host_image = "{host}"
ipxe = "{ipxe}"

[puller]
kind = "lab"
socket = "{lab}"
"#,
        data = path(&dir.join("data")),
        key = path(&dir.join("master.key")),
        kernel = path(&images.vmlinuz),
        initrd = path(&images.initrd),
        host = path(&images.host),
        ipxe = path(&images.ipxe),
        lab = path(&dir.join("rack/lab.sock")),
    );
    let file = dir.join("serve.toml");
    fs::write(&file, text)?;
    Ok(file)
}

/// How long a killed process may take from its closed sockets, which a step notices, to its end.
const DYING: Duration = Duration::from_secs(1);

/// A process that ended is the reason for whatever failed after it; what failed is told behind it.
fn reason(failed: anyhow::Error, mut alive: impl FnMut() -> Result<()>) -> anyhow::Error {
    let until = Instant::now() + DYING;
    let ended = loop {
        match alive() {
            Err(ended) => break ended,
            Ok(()) if Instant::now() > until => return failed,
            Ok(()) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let (ended, failed) = (format!("{ended:#}"), format!("{failed:#}"));
    if failed == ended { anyhow!(ended) } else { anyhow!("{ended}\nfailed by it: {failed}") }
}

fn start_lab(plan: &Path, dir: &Path, appliance: bool) -> Result<Child> {
    let log = File::create(dir.join("lab.log"))?;
    let mut command = Command::new(paths::binary("dayzero"));
    command.arg("rehearse").arg("--plan").arg(plan).arg("--dir").arg(dir.join("rack"));
    command.arg("--templates").arg(dir.join("store"));
    if appliance {
        command.arg("--appliance").arg(appliance::disk());
    }
    let mut child = spawn(command.stdout(log.try_clone()?).stderr(log))?;
    let until = Instant::now() + Duration::from_secs(60);
    while Client.lab(&["status"]).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the lab daemon ended ({status}): {}", tail(&dir.join("lab.log")));
        }
        if Instant::now() > until {
            let _ = end(&mut child, Duration::from_secs(10));
            bail!("the rack is not up after 60 s: {}", tail(&dir.join("lab.log")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(child)
}

fn start_serve(config: &Path) -> Result<(Child, Ready)> {
    let log = fs::OpenOptions::new().create(true).append(true).open(paths::demo().join("serve.log"))?;
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", CONTROL])
        .arg(paths::binary("dayzero"))
        .arg("serve")
        .arg("--config")
        .arg(config);
    let began = Instant::now();
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(log))?;
    let mut ready = Ready::default();
    let stdout = child.stdout.take().context("stdout")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match line.split_once(": ") {
            Some(("console", url)) => ready.console = url.to_owned(),
            Some(("fingerprint", print)) => ready.fingerprint = print.to_owned(),
            Some(("claim", code)) => ready.claim = Some(code.to_owned()),
            _ if line == "ready" => {
                ready.after = began.elapsed();
                return Ok((child, ready));
            }
            _ => {}
        }
    }
    let status = child.wait()?;
    bail!("dayzero serve ended ({status}): {}", tail(&paths::demo().join("serve.log")))
}

fn spawn(command: &mut Command) -> Result<Child> {
    leftovers::start(command.stdin(Stdio::null()), Ending::Asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_after_its_rack_is_told_by_the_racks_end() {
        // Its sockets are closed, it is not yet dead.
        let mut looks = 0;
        let told = reason(anyhow!("no lab answers"), || {
            looks += 1;
            if looks < 3 { Ok(()) } else { Err(anyhow!("signal 9").context("the lab daemon ended")) }
        });
        assert_eq!(told.to_string(), "the lab daemon ended: signal 9\nfailed by it: no lab answers");
        // The step was the look at the rack itself.
        let told = reason(anyhow!("the lab daemon ended"), || Err(anyhow!("the lab daemon ended")));
        assert_eq!(told.to_string(), "the lab daemon ended");
    }

    #[test]
    fn a_step_that_fails_while_the_rack_lives_is_told_by_itself() {
        let told = reason(anyhow!("refused").context("dayzero apply"), || Ok(()));
        assert_eq!(format!("{told:#}"), "dayzero apply: refused");
    }
}
