//! No secret of a run lies where it does not belong: all are collected, and looked for in everything that the run made or
//! touched, in each form in which a program would write them.
//!
//! Looked at are: the data directory, logs, the machines' consoles, disks and LUN, the built images unpacked (of the initial
//! RAM disks each file, of an appliance's image both that lie in it), binaries,
//! arguments and environments of the run's processes, what the commands show, this program's own output and report; after
//! the tear-down, what is new in the machine's temporary directories. A find names the place, the byte and the secret,
//! never the secret itself. The names of the demo's checks are fixed, so that this is none of them: a leak makes the run
//! not ok in its own right, on a line of its own. What is in other machines' memory is not looked at.

mod forms;
mod gather;
mod places;
mod record;
mod scan;
mod unpack;
mod watch;

pub use forms::{Kind, Secret};
pub use gather::claim;
pub use record::give_back;

use crate::build::Images;
use crate::demo::client::Client;
use crate::demo::rack::Rack;
use crate::{paths, shell};
use anyhow::{Context, Result, ensure};
use dayzero_images::Appliance;
use record::Recorder;
use scan::{Find, Scanner};
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use watch::Watch;

/// What every run has.
pub const ALWAYS: &[Kind] = &[
    Kind::FactoryPassword,
    Kind::BmcPassword,
    Kind::BmcSession,
    Kind::MediaUrl,
    Kind::VouchNonce,
    Kind::ClaimCode,
    Kind::MasterKey,
    Kind::CaKey,
    Kind::AgentKey,
];
/// What a run with a browser has too.
pub const CONSOLE: &[Kind] = &[Kind::ConsolePassword, Kind::ConsoleSession];
/// Where a run could leave something behind.
const SHARED: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/dev/shm", "/var/log"];
/// A larger file in a shared directory is somebody else's.
const LARGEST: u64 = 1 << 30;

/// A search, from before the run's first process until after its last.
pub struct Hunt {
    began: SystemTime,
    recorder: Option<Recorder>,
    watch: Watch,
    scanner: Option<Scanner>,
    tally: Tally,
    /// What kept it from looking everywhere.
    problems: Vec<String>,
}

/// What was looked for, where, and what was found.
#[derive(Default)]
struct Tally {
    secrets: Vec<Secret>,
    leaks: BTreeSet<String>,
    places: usize,
    /// Of these, files in initial RAM disks.
    unpacked: usize,
    bytes: u64,
}

impl Hunt {
    /// # Errors
    /// What is printed cannot be recorded.
    pub fn begin() -> Result<Self> {
        Ok(Self {
            began: SystemTime::now(),
            recorder: Some(Recorder::begin()?),
            watch: Watch::begin(),
            scanner: None,
            tally: Tally::default(),
            problems: Vec::new(),
        })
    }

    /// While the rack still stands; ends the control plane, since its vault can only be opened after it. `known`: what the
    /// run itself has of its secrets; `kinds`: of which at least one must be among all that are collected.
    pub fn before_tear_down(
        &mut self,
        rack: &mut Rack,
        images: &Images,
        appliance: Option<&Appliance>,
        known: Vec<Secret>,
        kinds: &[Kind],
    ) {
        let looked = self.look_at_run(rack, known, kinds);
        if let Err(error) = looked.and_then(|()| self.look_at_images(images, appliance)) {
            self.problems.push(format!("{error:#}"));
        }
    }

    fn look_at_run(&mut self, rack: &mut Rack, known: Vec<Secret>, kinds: &[Kind]) -> Result<()> {
        let shown = shown()?;
        let dir = paths::demo();
        // The factory password first: what a BMC or the vault has of the same content is the same secret.
        let mut secrets = vec![gather::factory()?, gather::master_key()?];
        secrets.extend(known);
        secrets.extend(gather::session()?);
        if let Some(code) = &rack.ready.claim {
            secrets.extend(claim(code)?);
        }
        secrets.extend(gather::rack()?);
        rack.stop_control()?;
        secrets.extend(gather::vault(&dir.join("data"), &dir.join("master.key"))?);
        for (host, disk) in disks(&dir)? {
            secrets.push(gather::agent_key(&host, &disk)?);
        }
        let secrets = each_once(secrets);
        for kind in kinds {
            ensure!(secrets.iter().any(|secret| secret.kind == *kind), "no {kind} of the run is known");
        }
        let scanner = Scanner::new(&secrets)?;
        let tally = &mut self.tally;
        tally.secrets = secrets;
        for (place, content) in shown.iter().chain(&self.watch.seen()) {
            tally.content(&scanner, place, content);
        }
        for (place, path) in places::files(&dir)? {
            tally.file(&scanner, &place, &path)?;
        }
        self.scanner = Some(scanner);
        Ok(())
    }

    fn look_at_images(&mut self, images: &Images, appliance: Option<&Appliance>) -> Result<()> {
        let scanner = self.scanner.as_ref().context("no secret is known")?;
        self.tally.images(scanner, images)?;
        appliance.map_or(Ok(()), |image| self.tally.appliance(scanner, &image.disk))
    }

    /// After the tear-down: this program's own output, the report, and what is new in shared directories.
    pub fn after(&mut self, report: &[u8]) {
        let printed = self.recorder.take().map(Recorder::end).unwrap_or_default();
        let Some(scanner) = self.scanner.take() else { return };
        for (place, content) in [("own output", printed.as_slice()), ("report", report)] {
            self.tally.content(&scanner, place, content);
        }
        for dir in SHARED {
            if let Err(error) = self.tally.shared(&scanner, Path::new(dir), self.began) {
                self.problems.push(format!("{error:#}"));
            }
        }
    }

    /// False if a secret was found where it does not belong, one could not be collected, or a place not be looked at.
    pub fn ok(&self) -> bool {
        self.tally.leaks.is_empty() && self.problems.is_empty()
    }

    /// What was looked for and what was found, for people.
    pub fn summary(&self) -> String {
        let kinds: BTreeSet<String> =
            self.tally.secrets.iter().map(|secret| secret.kind.to_string()).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "{} secrets ({kinds}) looked for in {} places ({} of them files in initial RAM disks), {} MiB: {}",
            self.tally.secrets.len(),
            self.tally.places,
            self.tally.unpacked,
            self.tally.bytes >> 20,
            if self.tally.leaks.is_empty() { "none where it does not belong" } else { "FOUND" }
        );
        for leak in &self.tally.leaks {
            text += &format!("\n  leak: {leak}");
        }
        for problem in &self.problems {
            text += &format!("\n  not looked at all: {problem}");
        }
        text
    }
}

/// Whether a file is where our own output goes to: that was judged as such.
fn is_own_output(file: &Metadata) -> bool {
    let same = |stream: OwnedFd| {
        File::from(stream).metadata().is_ok_and(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
    };
    let streams =
        [std::io::stdout().as_fd().try_clone_to_owned(), std::io::stderr().as_fd().try_clone_to_owned()];
    streams.into_iter().flatten().any(same)
}

impl Tally {
    /// What was built, before the run or for it.
    fn images(&mut self, scanner: &Scanner, images: &Images) -> Result<()> {
        let single = [
            ("image: kernel", images.vmlinuz.clone()),
            ("image: initramfs", images.initrd.clone()),
            ("image: guest template", images.tiny.clone()),
            ("binary: dayzero", paths::binary("dayzero")),
            ("binary: dayzero-agent", paths::binary("dayzero-agent")),
        ];
        for (place, path) in single {
            ensure!(path.exists(), "{place}: {} is not there", path.display());
            self.file(scanner, place, &path)?;
        }
        for (place, path) in places::files(&images.host)? {
            self.file(scanner, &format!("image: host/{place}"), &path)?;
        }
        self.initramfs(scanner, "image: initramfs", &images.initrd)
    }

    /// The appliance's disk as it was built; of it both initial RAM disks, its own and the one that it serves. The other
    /// files that it serves are those of `images`.
    fn appliance(&mut self, scanner: &Scanner, disk: &Path) -> Result<()> {
        self.file(scanner, "image: appliance", disk)?;
        let scratch = tempfile::tempdir()?;
        let of_esp = scratch.path().join("initrd.img");
        let esp = format!("{}@@{}", disk.display(), gather::partition(disk, "dayzero-esp")?);
        let mut copy = Command::new("mcopy");
        shell::read(copy.args(["-i", &esp, "::/dayzero/initrd.img"]).arg(&of_esp))?;
        self.initramfs(scanner, "image: appliance, its initramfs", &of_esp)?;
        let of_files = scratch.path().join("initrd");
        let files = format!("{}?offset={}", disk.display(), gather::partition(disk, "dayzero-files")?);
        let mut copy = Command::new("debugfs");
        shell::read(copy.args(["-R", &format!("dump /initrd {}", of_files.display()), &files]))?;
        self.initramfs(scanner, "image: appliance, the initramfs that it serves", &of_files)
    }

    /// Each file in an initial RAM disk.
    fn initramfs(&mut self, scanner: &Scanner, place: &str, path: &Path) -> Result<()> {
        let bytes = std::fs::read(path).with_context(|| format!("{place}: reading {}", path.display()))?;
        let before = self.places;
        unpack::initramfs(&bytes, &mut |name, content| {
            self.content(scanner, &format!("{place}/{name}"), content);
        })
        .with_context(|| format!("{place}: {}", path.display()))?;
        ensure!(self.places > before, "{place}: no file is in {}", path.display());
        self.unpacked += self.places - before;
        Ok(())
    }

    fn content(&mut self, scanner: &Scanner, place: &str, content: &[u8]) {
        self.count(scanner.bytes(place, content), content.len() as u64);
    }

    fn shared(&mut self, scanner: &Scanner, dir: &Path, began: SystemTime) -> Result<()> {
        if !dir.exists() {
            return Ok(());
        }
        for (_, path) in places::files(dir)? {
            let Ok(about) = path.metadata() else { continue };
            if about.modified().is_ok_and(|at| at < began) || about.len() > LARGEST || is_own_output(&about) {
                continue;
            }
            self.file(scanner, &path.display().to_string(), &path)?;
        }
        Ok(())
    }

    fn file(&mut self, scanner: &Scanner, place: &str, path: &Path) -> Result<()> {
        let mut finds = Vec::new();
        let looked = scanner.file(place, path, &mut finds)?;
        self.count(finds, looked);
        Ok(())
    }

    fn count(&mut self, finds: Vec<Find>, bytes: u64) {
        self.places += 1;
        self.bytes += bytes;
        for find in finds {
            let secret = &self.secrets[find.secret];
            // The lab's factory password stands in the checkout, for everyone to read: elsewhere on the machine it says nothing.
            let public = secret.kind == Kind::FactoryPassword && find.place.starts_with('/');
            if !public && !places::belongs(&find.place, secret) {
                self.leaks.insert(format!("{} at byte {}: {secret}, {}", find.place, find.offset, find.form));
            }
        }
    }
}

/// The first of those that are the same.
fn each_once(secrets: Vec<Secret>) -> Vec<Secret> {
    let mut once: Vec<Secret> = Vec::new();
    for secret in secrets {
        if !once.iter().any(|known| known.is_same(&secret)) {
            once.push(secret);
        }
    }
    once
}

/// What the commands show, as JSON and as text.
fn shown() -> Result<Vec<(String, Vec<u8>)>> {
    let client = Client;
    let hosts: Vec<String> = client
        .status()?
        .racks
        .iter()
        .flat_map(|rack| rack.hosts.iter().map(|host| host.name.clone()))
        .collect();
    let mut calls: Vec<Vec<String>> = vec![vec!["status".into()], vec!["vm".into(), "list".into()]];
    for host in hosts {
        calls.push(vec!["host".into(), "show".into(), host.clone(), "--events".into(), "100000".into()]);
        calls.push(vec!["why".into(), host]);
    }
    let mut shown = Vec::new();
    for call in calls {
        for format in ["json", "text"] {
            let mut args: Vec<&str> = call.iter().map(String::as_str).collect();
            args.extend(["-o", format]);
            let place = format!("dayzero {}", args.join(" "));
            let said = client.call(&args).with_context(|| place.clone())?;
            ensure!(said.code == Some(0), "{place}: {}", said.stderr.trim());
            shown.push((place, format!("{}{}", said.stdout, said.stderr).into_bytes()));
        }
    }
    Ok(shown)
}

/// The hosts' disks.
fn disks(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let machines = dir.join("rack/m");
    let mut disks = Vec::new();
    for entry in std::fs::read_dir(&machines).with_context(|| machines.display().to_string())?.flatten() {
        let (name, disk) = (entry.file_name().to_string_lossy().into_owned(), entry.path().join("disk.raw"));
        if disk.exists() {
            disks.push((name, disk));
        }
    }
    disks.sort();
    Ok(disks)
}

/// Random bytes as hex: a password that nobody chose.
pub fn password() -> Result<String> {
    let said = shell::read(Command::new("openssl").args(["rand", "-hex", "16"]))?;
    Ok(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Vec<Secret> {
        let of = |kind, of: &str, text: &str| Secret::new(kind, of, text).unwrap();
        vec![
            of(Kind::FactoryPassword, "", "calvin-lab"),
            of(Kind::BmcPassword, "host2", "calvin-lab"),
            of(Kind::BmcPassword, "host1", "made-by-the-run"),
        ]
    }

    #[test]
    fn one_content_is_one_secret() {
        let once = each_once(secrets());
        assert_eq!(
            once.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["factory password", "BMC password of host1"]
        );
    }

    #[test]
    fn a_planted_secret_is_a_leak_with_place_and_byte_and_without_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("serve.log");
        std::fs::write(&file, "user dayzero, password made-by-the-run").unwrap();
        let secrets = each_once(secrets());
        let scanner = Scanner::new(&secrets).unwrap();
        let mut tally = Tally { secrets, ..Tally::default() };
        tally.file(&scanner, "rack/m/host1/bmc/lan.conf", &file).unwrap();
        assert!(tally.leaks.is_empty(), "it belongs there: {:?}", tally.leaks);
        tally.file(&scanner, "serve.log", &file).unwrap();
        let leaks: Vec<&String> = tally.leaks.iter().collect();
        assert_eq!(leaks, ["serve.log at byte 23: BMC password of host1, as it is"]);
        // What the checkout shows to everyone is no leak in somebody else's directory, but it is one in the run's own.
        tally.content(&scanner, "/tmp/somebody/lab.secrets.yaml", b"password: calvin-lab");
        assert_eq!(tally.leaks.len(), 1);
        tally.content(&scanner, "lab.log", b"password: calvin-lab");
        assert_eq!(tally.leaks.len(), 2);
        let began = SystemTime::now() - std::time::Duration::from_secs(60);
        tally.shared(&scanner, dir.path(), began).unwrap();
        assert_eq!(tally.leaks.len(), 3, "a new file in a shared directory: {:?}", tally.leaks);
    }

    /// An image of the appliance's form, with the secret packed where only its initial RAM disks have it.
    #[test]
    fn a_secret_in_an_initial_ram_disk_of_the_appliances_image_is_a_leak() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let packed = |text: &str| {
            let tree = tempfile::tempdir().unwrap();
            std::fs::create_dir(tree.path().join("etc")).unwrap();
            std::fs::write(tree.path().join("etc/settings"), text).unwrap();
            let pack = "find . | cpio --quiet -o -H newc";
            let out = Command::new("sh").args(["-c", pack]).current_dir(tree.path()).output().unwrap();
            zstd::bulk::compress(&out.stdout, 3).unwrap()
        };
        // Two archives, as the agent's is put behind the modules'.
        std::fs::write(at("own"), [packed("nothing"), packed("password made-by-the-run")].concat()).unwrap();
        std::fs::create_dir(at("files")).unwrap();
        std::fs::write(at("files/initrd"), packed("made-by-the-run again")).unwrap();
        let run = |script: &str| {
            let out = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        };
        run("truncate -s 64M disk.raw
            printf 'label: gpt\\nstart=4096, size=81920, name=dayzero-esp\\nsize=16384, name=dayzero-files\\n' |
                sfdisk -q disk.raw
            mformat -i disk.raw@@2M -T 81920 ::
            mmd -i disk.raw@@2M ::/dayzero
            mcopy -i disk.raw@@2M own ::/dayzero/initrd.img
            /sbin/mke2fs -q -d files -t ext4 -E offset=44040192 disk.raw 8M");
        let secrets = each_once(secrets());
        let scanner = Scanner::new(&secrets).unwrap();
        let mut tally = Tally { secrets, ..Tally::default() };
        tally.appliance(&scanner, &at("disk.raw")).unwrap();
        let leaks: Vec<&str> = tally.leaks.iter().filter_map(|leak| leak.split(" at byte ").next()).collect();
        assert_eq!(
            leaks,
            [
                "image: appliance, its initramfs/etc/settings",
                "image: appliance, the initramfs that it serves/etc/settings"
            ]
        );
        assert_eq!((tally.places, tally.unpacked), (4, 3));
    }
}
