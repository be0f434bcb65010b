//! Debian packages that the demo, the tests and the benches need: found missing, said, installed.
//!
//! QEMU comes in two versions that exclude each other: a machine that carries `qemu-utils` of the backports can only
//! take `qemu-system-x86` of the backports too. Which one is taken is decided and printed here; the machine's own
//! package sources are never changed, a private list is used for the one call.

use crate::{paths, shell};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// QEMU and its firmware, taken together from one suite.
const QEMU: [&str; 4] = ["qemu-system-x86", "qemu-utils", "ovmf", "seabios"];
/// What emulates arm64 for the long labs, of the same suite.
const QEMU_ARM: [&str; 2] = ["qemu-system-arm", "qemu-efi-aarch64"];
/// What else is needed: PXE, BMC, SAN, image building, browser.
const NEEDED: &[&str] = &[
    "ipxe-qemu",
    "busybox-static",
    "zstd",
    "cpio",
    "openipmi",
    "ipmitool",
    "mmdebstrap",
    "sbsigntool",
    "mtools",
    "dosfstools",
    "fdisk",
    "gdisk",
    "e2fsprogs",
    "tgt",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "grub2-common",
    "chromium",
    "chromium-driver",
    "nftables",
    "iproute2",
    "iputils-ping",
    "curl",
    "kmod",
    "openssl",
    "xz-utils",
    "libc6-dev",
    "gcc",
    "g++",
];
/// Foreign clients, servers and judges that only the long labs talk to. libvirt without `libvirt-daemon-system`, which would
/// set a system daemon and a network up: the lab's libvirtd is its own.
const LABS: &[&str] = &[
    "atftp",
    "bind9-dnsutils",
    "dnsmasq-base",
    "isc-dhcp-client",
    "isc-dhcp-relay",
    "kea-admin",
    "kea-dhcp4-server",
    "lldpd",
    "openvswitch-switch",
    "systemd",
    "tftp-hpa",
    "tshark",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-dev",
    "pkg-config",
    "python3-dev",
    "python3-venv",
];

/// Installs what is missing.
pub fn ensure() -> Result<()> {
    ensure_these(&QEMU, NEEDED)
}

/// Installs what is missing for the long labs.
pub fn ensure_for_labs() -> Result<()> {
    ensure_these(&[&QEMU[..], &QEMU_ARM].concat(), &[NEEDED, LABS].concat())
}

fn ensure_these(qemu: &[&str], wanted: &[&str]) -> Result<()> {
    let missing_qemu: Vec<&str> = missing(qemu)?;
    let missing: Vec<&str> = missing(wanted)?;
    if missing_qemu.is_empty() && missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "Debian packages are missing: {} {}. Run this as root, or install them with apt-get.",
            missing_qemu.join(" "),
            missing.join(" ")
        );
    }
    if !missing_qemu.is_empty() {
        println!("Debian packages that are missing: {}", missing_qemu.join(" "));
        let _quiet = NoDaemons::set()?;
        apt(&[], &["update", "-q"])?;
        install_qemu(qemu)?;
    }
    install(&missing)
}

/// A Debian package unpacked into the cache, not installed: its daemon is never enabled on this machine, and packages
/// that exclude each other can stand side by side. Libraries that its programs miss are installed. Its root directory.
pub fn unpacked(name: &str) -> Result<PathBuf> {
    let root = paths::cache().join("peers").join(name);
    if root.join("complete").exists() {
        return Ok(root);
    }
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root)?;
    let download = || shell::ask(Command::new("apt-get").current_dir(&root).args(["-q", "download", name]));
    let mut said = download()?;
    if said.code != Some(0) {
        apt(&[], &["update", "-q"])?;
        said = download()?;
    }
    let file = fs::read_dir(&root)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"));
    let file = file.with_context(|| format!("apt-get download {name}: {}", said.stderr.trim()))?;
    shell::read(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
    let depends = shell::read(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Depends"))?;
    let libraries: Vec<&str> = depends
        .split(',')
        .map(str::trim)
        .filter(|one| one.starts_with("lib") || one.starts_with("zlib"))
        .collect();
    let _quiet = NoDaemons::set()?;
    apt(&[], &["satisfy", "-y", "-q", "--no-install-recommends", &libraries.join(", ")])?;
    fs::write(root.join("complete"), "")?;
    Ok(root)
}

/// Installs those of `names` that are missing.
pub fn install(names: &[&str]) -> Result<()> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("Debian packages that are missing: {}", missing.join(" "));
    let _quiet = NoDaemons::set()?;
    apt(&[], &["update", "-q"])?;
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(&missing);
    apt(&[], &args)?;
    keep_off(&missing)
}

/// Daemons of packages that were installed here do not start with the machine either: whoever needs one starts its own.
fn keep_off(installed: &[&str]) -> Result<()> {
    let files = shell::read(Command::new("dpkg-query").arg("-L").args(installed))?;
    let units = units(&files);
    if !units.is_empty() && Path::new("/run/systemd/system").exists() {
        shell::read(Command::new("systemctl").args(["disable", "--quiet"]).args(units))?;
    }
    Ok(())
}

/// Services and sockets among a package's files; no templates, and none of systemd's own.
fn units(files: &str) -> Vec<&str> {
    let unit = |line: &&str| line.ends_with(".service") || line.ends_with(".socket");
    let of_packages = files.lines().filter(|line| line.contains("/systemd/system/")).filter(unit);
    let names = of_packages.filter_map(|line| line.rsplit('/').next());
    names.filter(|name| !name.contains('@') && !name.starts_with("systemd-")).collect()
}

fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut command = Command::new("dpkg-query");
    command.args(["-W", "-f", "${Package} ${db:Status-Abbrev}\n"]).args(names);
    let said = shell::ask(&mut command).context("this needs a Debian machine")?;
    let there = |name: &str| said.stdout.lines().any(|line| line.starts_with(&format!("{name} ii")));
    Ok(names.iter().copied().filter(|name| !there(name)).collect())
}

/// From backports when the machine already has QEMU parts of the backports, else from the machine's own suites.
fn install_qemu(names: &[&str]) -> Result<()> {
    let version =
        shell::ask(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "qemu-utils"]))?.stdout;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let bookworm = release.contains("VERSION_CODENAME=bookworm");
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    if bookworm {
        println!(
            "QEMU is taken from bookworm-backports{}: version 7.2 of bookworm itself has no igb NIC, and parts of both do not go together.",
            if version.contains("bpo") { ", as this machine's qemu-utils is" } else { "" }
        );
        let lists = private_sources()?;
        let options: Vec<&str> = lists.iter().map(String::as_str).collect();
        apt(&options, &["update", "-q"])?;
        args.extend(["-t", "bookworm-backports"]);
        args.extend(names);
        return apt(&options, &args);
    }
    args.extend(names);
    apt(&[], &args)
}

/// apt options for a package list of our own, beside the machine's.
fn private_sources() -> Result<Vec<String>> {
    let dir = paths::cache().join("apt");
    fs::create_dir_all(dir.join("lists/partial"))?;
    let main = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()
        + &fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let mirror = main
        .split_ascii_whitespace()
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .context("no Debian mirror found in /etc/apt: add one, then run this again")?;
    let list = dir.join("sources.list");
    let text: String = ["bookworm", "bookworm-updates", "bookworm-backports"]
        .iter()
        .map(|suite| format!("deb {mirror} {suite} main\n"))
        .collect();
    fs::write(&list, text)?;
    let option = |key: &str, value: &Path| format!("-oDir::{key}={}", value.display());
    Ok(vec![
        option("Etc::SourceList", &list),
        "-oDir::Etc::SourceParts=/dev/null".to_owned(),
        option("State::Lists", &dir.join("lists")),
    ])
}

fn apt(options: &[&str], args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(options).args(["-o", "Dpkg::Use-Pty=0"]).args(args);
    let said = shell::ask(&mut command)?;
    if said.code != Some(0) {
        bail!("apt-get {}: {}\n{}", args.join(" "), said.stderr.trim(), tail(&said.stdout));
    }
    Ok(())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// While packages are installed, no daemon of theirs is started: `policy-rc.d` says no. A file that was there stays.
struct NoDaemons {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str =
    "#!/bin/sh\n# Dayzero's, while it installs packages: no daemon of theirs is started.\nexit 101\n";

/// Removes our `policy-rc.d`, by its text; another's stays.
pub fn give_back() {
    give_back_at(Path::new(POLICY));
}

fn give_back_at(policy: &Path) {
    if fs::read_to_string(policy).is_ok_and(|text| text == POLICY_TEXT) {
        let _gone_or_not_ours_to_remove = fs::remove_file(policy);
    }
}

impl NoDaemons {
    fn set() -> Result<Self> {
        // Left by one of us that was killed meanwhile.
        give_back();
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, POLICY_TEXT)?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_policy_is_removed_and_anothers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy-rc.d");
        for (text, stays) in [(POLICY_TEXT, false), ("#!/bin/sh\nexit 101\n", true)] {
            fs::write(&file, text).unwrap();
            give_back_at(&file);
            assert_eq!(file.exists(), stays, "{text}");
        }
    }

    #[test]
    fn a_packages_daemons_are_found_by_its_files() {
        let files = "/usr/sbin/kea-dhcp4\n/lib/systemd/system/kea-dhcp4-server.service\n/lib/systemd/system/x@.service\n\
            /usr/lib/systemd/system/virtlogd.socket\n/lib/systemd/system/systemd-networkd.service\n/etc/init.d/tgt\n";
        assert_eq!(units(files), ["kea-dhcp4-server.service", "virtlogd.socket"]);
    }
}
