//! The play: a plan is applied, two servers become hosts, accidents and attacks happen, a VM runs, power is cut.

use super::bmc::{Bmc, Protocol};
use super::browser::Browser;
use super::client::{Client, Status, Summary};
use super::observed::{Clone, Observed, Seen, Sigkill, Stranger, Tick, Web, ticks};
use super::progress::Progress;
use super::rack::Rack;
use super::report::Run;
use crate::build::Images;
use crate::paths;
use crate::secrets::{self, Kind, Secret};
use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use dayzero_model::event::What;
use dayzero_model::vm::{Vm, VmState};
use std::time::{Duration, Instant};

/// The hosts of `lab.yaml` and their BMCs.
const HOSTS: [Bmc; 2] = [
    Bmc { host: "host1", protocol: Protocol::Redfish, address: "10.77.9.11" },
    Bmc { host: "host2", protocol: Protocol::Ipmi, address: "10.77.9.12" },
];
/// Host whose identity is cloned while it is held still inside its boot window.
const CLONED: &str = "host2";
const STRANGER: &str = "52:54:00:de:ad:01";
/// All hosts joined, at most.
const PATIENCE: Duration = Duration::from_secs(25 * 60);

/// Plays everything and collects what was seen, also of a play that ends early. With `once`, nobody needs the rack
/// afterwards: the host whose power was cut stays off.
pub fn play(rack: &mut Rack, images: &Images, once: bool) -> Run {
    let mut play = Play {
        client: Client,
        progress: Progress::new(rack.zero),
        seen: Observed::default(),
        browser: None,
        stranger_at: None,
        clone: None,
    };
    println!(
        "web console: {}   claim code: {}",
        rack.ready.console,
        rack.ready.claim.as_deref().unwrap_or("used already")
    );
    let done = play.all(rack, images, once).map_err(|error| rack.reason(error));
    if done.is_err() && play.seen.joined.is_empty() {
        // What the hosts came to is told all the same, if anybody still answers.
        play.seen.joined = play.all_hosts().unwrap_or_default();
        play.seen.hosts = play.all_hosts().unwrap_or_default();
    }
    let mut run = Run::new(rack.zero_ms, rack.zero.elapsed().as_secs_f64(), play.seen);
    run.broken = done.err().map(|error| format!("{error:#}"));
    run
}

struct Play {
    client: Client,
    progress: Progress,
    seen: Observed,
    browser: Option<Browser>,
    /// Its name in the rack, and since when it is on.
    stranger_at: Option<(String, Instant)>,
    clone: Option<Cloning>,
}

/// A clone at work.
struct Cloning {
    name: String,
    began: Instant,
}

impl Play {
    fn all(&mut self, rack: &mut Rack, images: &Images, once: bool) -> Result<()> {
        let password = self.claim(rack);
        rack.log_in(password.as_deref())?;
        self.expected(images)?;
        self.plan(rack)?;
        self.open_page(rack);
        self.hosts_join(rack)?;
        self.factory_credentials()?;
        self.virtual_machine(rack, images)?;
        self.controls()?;
        self.look_at_hosts()?;
        self.power_cut()?;
        if !once && let Some(host) = self.seen.vm.vm.as_ref().and_then(|vm| vm.host.clone()) {
            self.progress.say(&format!("{host} gets its power back, for whoever tries things now"));
            self.client.lab(&["power", host.as_str(), "on"])?;
            self.wait_until_ready(rack)?;
        }
        Ok(())
    }

    /// What the checks hold the run against.
    fn expected(&mut self, images: &Images) -> Result<()> {
        for loader in ["undionly.kpxe", "snponly.efi"] {
            let file = images.ipxe.join(loader);
            let size = std::fs::metadata(&file).with_context(|| file.display().to_string())?.len();
            self.seen.loaders.insert(loader.to_owned(), size);
        }
        let manifest =
            std::fs::read(images.host.join("manifest.json")).context("the host image's manifest")?;
        self.seen.chunks = chunks(&serde_json::from_slice(&manifest)?);
        Ok(())
    }

    fn plan(&mut self, rack: &Rack) -> Result<()> {
        let plan = rack.plan.to_string_lossy().into_owned();
        self.seen.plan_good = self.client.call(&["plan", "check", &plan])?;
        self.seen.site = dayzero_plan::load(&rack.plan).ok().map(|(site, _)| site);
        let text = std::fs::read_to_string(&rack.plan)?;
        let faulty = paths::demo().join("faulty.yaml");
        std::fs::write(&faulty, text.replace("cidr: 10.77.12.0/24", "cidr: 10.77.11.0/24"))?;
        self.seen.plan_bad = self.client.call(&["plan", "check", &faulty.to_string_lossy()])?;
        self.seen.shown.command(
            "plan-check",
            40,
            &self.client,
            &["plan", "check", &faulty.to_string_lossy()],
        )?;
        if let Some(found) = rack.examine()? {
            self.progress.say(&format!("the appliance examined itself: {found}"));
        }
        let said = self.client.call(&["apply", &plan, "--yes"])?;
        ensure!(said.code == Some(0), "dayzero apply: {}{}", said.stdout, said.stderr);
        self.progress.say("the plan is applied");
        Ok(())
    }

    /// The browser claims the console, with a password that it makes up; one that fails costs the check, not the run.
    fn claim(&mut self, rack: &Rack) -> Option<String> {
        match claim(rack) {
            Ok((browser, password, secrets)) => {
                self.seen.secrets.extend(secrets);
                self.browser = Some(browser);
                Some(password)
            }
            Err(error) => {
                self.progress.say(&format!("web console: {error:#}"));
                None
            }
        }
    }

    /// The browser opens the first page early and stays on it.
    fn open_page(&mut self, rack: &Rack) {
        let Some(browser) = &self.browser else { return };
        match open_page(browser, rack) {
            Ok(web) => {
                self.progress.say(&format!("logged in to the web console: \"{}\"", web.title));
                self.seen.web = Some(web);
            }
            Err(error) => {
                self.progress.say(&format!("web console: {error:#}"));
                self.browser = None;
            }
        }
    }

    fn hosts_join(&mut self, rack: &mut Rack) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut told = String::new();
        loop {
            rack.check_alive()?;
            rack.note_rss();
            let status = self.client.status()?;
            self.progress.show(&status);
            self.stranger(&status)?;
            self.cloning()?;
            self.sigkill(rack, &status)?;
            self.watch_page();
            if hosts(&status).all(|host| host.health == "ready") && hosts(&status).count() == HOSTS.len() {
                self.seen.joined = self.all_hosts()?;
                return Ok(());
            }
            let failed: Vec<String> = status
                .todo
                .iter()
                .map(|todo| {
                    format!(
                        "{}: {} ({}): {}",
                        todo.host.as_deref().unwrap_or("site"),
                        todo.sentence,
                        todo.code,
                        todo.next_action
                    )
                })
                .collect();
            let failed = failed.join("\n        ");
            if failed != told && !failed.is_empty() {
                self.progress.say(&format!("a person must: {failed}"));
                told = failed;
            }
            if hosts(&status).any(|host| host.health == "failed") {
                self.diagnose();
                bail!("a host stopped: {told}");
            }
            if Instant::now() > until {
                self.diagnose();
                bail!("the hosts have not joined after {} minutes", PATIENCE.as_secs() / 60);
            }
            std::thread::sleep(Duration::from_millis(700));
        }
    }

    /// What a person would look at next.
    fn diagnose(&self) {
        for bmc in HOSTS {
            if let Ok(said) = self.client.call(&["why", bmc.host]) {
                println!("{}", said.stdout);
            }
        }
    }

    /// A machine of unknown MAC powers on as soon as the rack works; it must stay without answer.
    fn stranger(&mut self, status: &Status) -> Result<()> {
        match &self.stranger_at {
            None if hosts(status).any(|host| host.met >= 2) => {
                self.stranger_at = Some((self.spawn(&["spawn-stranger", STRANGER])?, Instant::now()));
                self.progress.say(&format!("a machine that is in no plan powers on: {STRANGER}"));
            }
            Some((_, began)) if self.seen.stranger.is_none() => {
                // Long enough for an answer that must not come.
                if began.elapsed() < Duration::from_secs(25) {
                    return Ok(());
                }
                let pending = status.pending.iter().any(|client| client.mac == STRANGER && client.count >= 1);
                let events = self.client.why(STRANGER)?.events;
                let asked = events.iter().filter(|event| matches!(event.what, What::DhcpIn { .. })).count();
                let answered =
                    events.iter().filter(|event| matches!(event.what, What::DhcpOut { .. })).count();
                self.seen.shown.command("why", 20, &self.client, &["why", STRANGER])?;
                self.seen.stranger = Some(Stranger { mac: STRANGER.to_owned(), pending, asked, answered });
                if let Some((name, _)) = &self.stranger_at {
                    self.client.lab(&["kill-extra", name])?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Powers a machine on that is not in the plan; its name in the rack.
    fn spawn(&self, args: &[&str]) -> Result<String> {
        let mut full = args.to_vec();
        full.extend(["-o", "json"]);
        let said: serde_json::Value = serde_json::from_str(&self.client.lab(&full)?)?;
        Ok(said["spawned"]["name"].as_str().context("the rack did not name the machine")?.to_owned())
    }

    /// The real host is held still inside its window, and a machine with its MAC, serial and UUID takes its place.
    fn cloning(&mut self) -> Result<()> {
        if self.seen.clone.is_some() {
            return Ok(());
        }
        let facts = self.client.host(CLONED)?.facts;
        match &self.clone {
            None => {
                let open = facts.vouch.is_none()
                    && facts.window.as_ref().is_some_and(|window| window.script_served.is_some());
                if open {
                    self.client.lab(&["pause", CLONED])?;
                    let name = self.spawn(&["spawn-clone", CLONED])?;
                    self.progress.say(&format!(
                        "{CLONED} is held still; a clone of its MAC, serial and UUID boots in its place"
                    ));
                    self.clone = Some(Cloning { name, began: Instant::now() });
                }
            }
            Some(clone) => {
                let asked = facts.window.as_ref().is_some_and(|window| !window.waiting.is_empty());
                if !asked && clone.began.elapsed() < Duration::from_secs(180) {
                    return Ok(());
                }
                let console = self.client.lab(&["console", &clone.name])?;
                self.client.lab(&["kill-extra", &clone.name])?;
                self.client.lab(&["resume", CLONED])?;
                self.progress.say(&format!(
                    "the clone {} and got nothing; {CLONED} goes on",
                    if asked { "asked for a certificate" } else { "did not even ask for a certificate" }
                ));
                self.seen.clone = Some(Clone { of: CLONED.to_owned(), refused: Vec::new(), console });
            }
        }
        Ok(())
    }

    /// SIGKILL to the control plane while a host writes its image.
    fn sigkill(&mut self, rack: &mut Rack, status: &Status) -> Result<()> {
        if self.seen.sigkill.is_some() {
            return Ok(());
        }
        let writing = hosts(status).find(|host| {
            host.phase == "Imaged"
                && host.progress.as_ref().is_some_and(|step| step.total > 0 && step.done * 10 > step.total)
        });
        let Some(host) = writing else { return Ok(()) };
        let step = host
            .progress
            .as_ref()
            .map(|step| format!("{} {}/{}", step.what, step.done, step.total))
            .unwrap_or_default();
        let during = format!("{} was installing ({step})", host.name);
        let before = counts(status);
        let answered = rack.kill_and_restart_control()?;
        let after = counts(&self.client.status()?);
        self.progress.say(&format!(
            "the control plane was killed while {during}; it answered again after {} ms",
            answered.as_millis()
        ));
        self.seen.sigkill = Some(Sigkill { during, answered_ms: answered.as_millis() as u64, before, after });
        Ok(())
    }

    /// Reads the phase off the open page until it has changed.
    fn watch_page(&mut self) {
        let (Some(browser), Some(web)) = (&self.browser, &mut self.seen.web) else { return };
        let Ok(now) = browser.text(PHASE) else { return };
        if web.first.is_empty() {
            web.first = now;
        } else if now != web.first {
            web.later = now;
            web.same_page = browser.script("return window.dayzeroMark === 7").is_ok_and(|mark| mark == true);
            let picture = paths::demo().join("console.png");
            let mut taken = || browser.picture(&picture).and_then(|()| self.seen.shown.picture(&picture));
            if web.same_page && taken().is_ok() {
                self.progress.say(&format!(
                    "the open page followed: {} then {}; picture in {}",
                    web.first,
                    web.later,
                    picture.display()
                ));
            }
            self.browser = None;
        }
    }

    fn factory_credentials(&mut self) -> Result<()> {
        let secrets = std::fs::read_to_string(paths::demo().join("lab.secrets.yaml"))?;
        let value = |key: &str| {
            secrets.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
        };
        let (user, password) = (value("user").context("user")?, value("password").context("password")?);
        for bmc in HOSTS {
            let (refused, said) = bmc.refuses(user, password)?;
            self.seen.factory.push((bmc.host.to_owned(), refused, said));
        }
        Ok(())
    }

    fn virtual_machine(&mut self, rack: &mut Rack, images: &Images) -> Result<()> {
        let bytes = std::fs::read(&images.tiny)?;
        self.seen.vm.template_sha256 = dayzero_model::Sha256::of(&bytes).to_string();
        let said = self.client.call(&[
            "vm",
            "create",
            "--offering",
            "small",
            "--template",
            "tiny",
            "--name",
            "hello",
        ])?;
        ensure!(said.code == Some(0), "dayzero vm create: {}{}", said.stdout, said.stderr);
        self.progress.say("a virtual machine was asked for");
        let vm = self.wait_for_vm(rack, Duration::from_secs(300), |vm| {
            vm.state == VmState::Failed
                || vm.console.iter().any(|line| line.contains("DAYZERO-VM") && line.contains("address="))
        })?;
        self.progress.say(&format!(
            "{:?} on {}: {}",
            vm.state,
            vm.host.as_ref().map_or("no host", |h| h.as_str()),
            vm.console.iter().rev().find(|line| line.contains("address=")).cloned().unwrap_or_default()
        ));
        self.seen.shown.command("status", 40, &self.client, &["status"])?;
        let host = vm.host.clone();
        self.seen.vm.vm = Some(vm);
        if let Some(host) = host {
            self.pull_path(host.as_str())?;
            self.wait_until_ready(rack)?;
        }
        Ok(())
    }

    /// A storage path is away until the guest has read its disk twice without it, or long enough for that.
    fn pull_path(&mut self, host: &str) -> Result<()> {
        let newest = |vm: &Option<Vm>| {
            let ticks = vm.as_ref().map(|vm| ticks(&vm.console)).unwrap_or_default();
            (ticks.iter().map(|tick| tick.number).max().unwrap_or(0), ticks)
        };
        self.client.lab(&["pull-cable", host, "2"])?;
        let until = Instant::now() + Duration::from_secs(90);
        // Ticks count from the moment on in which the path is known to be away.
        let mut before = None;
        loop {
            let paths = self.client.host(host)?.facts.luns.into_iter().flat_map(|lun| lun.paths);
            let inactive = paths.filter(|path| !path.active).count();
            let vm = self.vm()?;
            let (number, ticks) = newest(&vm);
            if inactive > 0 {
                self.seen.vm.inactive = self.seen.vm.inactive.max(inactive);
                before.get_or_insert(number);
            }
            self.seen.vm.after_pull = vm;
            if let Some(before) = before {
                let during: Vec<Tick> = ticks.into_iter().filter(|tick| tick.number > before).collect();
                self.seen.vm.ticks = (before, during);
            }
            if self.seen.vm.ticks.1.len() >= 2 || Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.client.lab(&["plug", host, "2"])?;
        Ok(())
    }

    /// After a path came back, what rested on it is made true again.
    fn wait_until_ready(&mut self, rack: &mut Rack) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(400);
        loop {
            rack.check_alive()?;
            let status = self.client.status()?;
            self.progress.show(&status);
            if hosts(&status).all(|host| host.health == "ready") {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the hosts are not ready again after a path came back");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn vm(&self) -> Result<Option<Vm>> {
        Ok(self.client.json::<Vec<Vm>>(&["vm", "list"])?.into_iter().find(|vm| vm.name.as_str() == "hello"))
    }

    fn wait_for_vm(
        &mut self,
        rack: &mut Rack,
        patience: Duration,
        enough: impl Fn(&Vm) -> bool,
    ) -> Result<Vm> {
        let until = Instant::now() + patience;
        loop {
            rack.check_alive()?;
            rack.note_rss();
            let vm = self.vm()?.context("the VM is not listed")?;
            if enough(&vm) || Instant::now() > until {
                return Ok(vm);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// The control: with one leg missing a proof must fail.
    fn controls(&mut self) -> Result<()> {
        let host = HOSTS[0].host;
        self.progress.say(&format!("the control: a proof of {host} with one leg missing must fail"));
        let report = self.client.prove_without(host, "pod-b")?;
        self.seen.controls.push((host.to_owned(), report));
        Ok(())
    }

    fn all_hosts(&self) -> Result<Vec<Seen>> {
        HOSTS
            .iter()
            .map(|bmc| Ok(Seen { name: bmc.host.to_owned(), view: self.client.host(bmc.host)? }))
            .collect()
    }

    fn look_at_hosts(&mut self) -> Result<()> {
        self.seen.hosts = self.all_hosts()?;
        if let Some(clone) = &mut self.seen.clone
            && let Some(host) = self.seen.hosts.iter().find(|host| host.name == clone.of)
        {
            clone.refused.clone_from(&host.view.facts.refused_keys);
        }
        Ok(())
    }

    /// Last, since it costs a host: the BMC of the VM's host cuts its power, and the VM must be shown lost.
    fn power_cut(&mut self) -> Result<()> {
        let Some(host) = self.seen.vm.vm.as_ref().and_then(|vm| vm.host.clone()) else { return Ok(()) };
        let bmc = HOSTS
            .iter()
            .find(|bmc| bmc.host == host.as_str())
            .context("the VM's host is none of the plan")?;
        bmc.cut_power()?;
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let vm = self.vm()?;
            if vm.as_ref().is_some_and(|vm| vm.state == VmState::Lost) || Instant::now() > until {
                self.seen.vm.after_power_cut = vm;
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

fn hosts(status: &Status) -> impl Iterator<Item = &Summary> {
    status.racks.iter().flat_map(|rack| &rack.hosts)
}

/// Chunks of a manifest with content, and those that are of zeros.
fn chunks(manifest: &serde_json::Value) -> (u64, u64) {
    let partitions = manifest["partitions"].as_array().into_iter().flatten();
    let all = partitions.flat_map(|partition| partition["chunks"].as_array().into_iter().flatten());
    let (content, zeros): (Vec<_>, Vec<_>) = all.partition(|chunk| chunk.get("data").is_some());
    (content.len() as u64, zeros.len() as u64)
}

fn counts(status: &Status) -> Vec<(String, usize)> {
    hosts(status).map(|host| (host.name.clone(), host.met)).collect()
}

const PHASE: &str = r#"[data-host="host1"] [data-field="phase"]"#;

/// Claims the console with the one-time code, over a certificate whose fingerprint is the printed one. The browser, the
/// password, and what of it is secret.
fn claim(rack: &Rack) -> Result<(Browser, String, Vec<Secret>)> {
    let claim = rack.ready.claim.as_deref().context("no claim code was printed")?;
    let address = rack.ready.console.trim_start_matches("https://").trim_end_matches('/').to_owned();
    let shown = shell::fingerprint(&address)?;
    ensure!(
        shown == rack.ready.fingerprint,
        "the console shows certificate {shown}, not the printed {}",
        rack.ready.fingerprint
    );
    let browser = Browser::start()?;
    browser.open(&rack.ready.console)?;
    let password = secrets::password()?;
    browser.fill("#claim-code", claim)?;
    browser.fill("#new-password", &password)?;
    browser.fill("#new-password-again", &password)?;
    browser.click("#login-submit")?;
    let until = Instant::now() + Duration::from_secs(20);
    while browser.has("#login-submit") {
        ensure!(Instant::now() < until, "the login's page is still there 20 s after the claim");
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut known = vec![Secret::new(Kind::ConsolePassword, "admin", password.as_str())?];
    for cookie in browser.cookies()?.into_iter().filter(|cookie| cookie.len() >= 16) {
        let session = Secret::from_hex(Kind::ConsoleSession, "admin", &cookie);
        known.push(session.or_else(|_| Secret::new(Kind::ConsoleSession, "admin", cookie))?);
    }
    Ok((browser, password, known))
}

/// The first page, with a mark that a reload would wipe.
fn open_page(browser: &Browser, rack: &Rack) -> Result<Web> {
    browser.open(&rack.ready.console)?;
    let until = Instant::now() + Duration::from_secs(20);
    while !browser.has(PHASE) {
        ensure!(Instant::now() < until, "no page with host1's phase 20 s after the plan was applied");
        std::thread::sleep(Duration::from_millis(200));
    }
    browser.script("window.dayzeroMark = 7; return true")?;
    Ok(Web { title: browser.title()?, first: browser.text(PHASE)?, later: String::new(), same_page: false })
}
