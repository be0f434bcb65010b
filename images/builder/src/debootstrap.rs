//! A tree of installed Debian packages, by mmdebstrap.
//!
//! Invariants: made in namespaces of its own, so that a killed build leaves no mount and no process; owned by root;
//! root's password is locked. What a host image adds or removes afterwards is `host`'s.

use crate::assets;
use crate::cache::{Cache, Key};
use crate::error::{self, Result};
use crate::modules::entries;
use crate::tool::Tool;
use std::path::{Path, PathBuf};

const SUITE: &str = "bookworm";

/// Files that must be there before the kernel's package writes the host's initial RAM disk.
fn early_files() -> impl Iterator<Item = &'static (&'static str, u32, &'static str)> {
    assets::HOST_OVERLAY.iter().filter(|(path, ..)| path.starts_with("etc/initramfs-tools/"))
}

/// The tree of a KVM host's packages: `<entry>/root`, with `<entry>/packages.txt` (name and version, a line each).
pub(crate) fn host_packages(cache: &Cache) -> Result<(PathBuf, String)> {
    let mut key = Key::new("packages", 1)
        .with("suite", SUITE)
        .with("packages", assets::HOST_PACKAGES)
        .with("excludes", assets::HOST_EXCLUDES);
    for (path, _, content) in early_files() {
        key = key.with(path, content);
    }
    let directory = cache.entry("host-packages", &key, |directory| {
        cache.say(
            "host",
            "installing Debian packages into a tree (one to three minutes, only after the list changed)",
        );
        install(directory)
    })?;
    cache.keep_newest("host-packages", 2)?;
    Ok((directory, key.finish()))
}

/// Foreign programs of the appliance, extracted with what they need: `<entry>/root`.
pub(crate) fn appliance_programs(cache: &Cache) -> Result<(PathBuf, String)> {
    let packages = crate::appliance::packages().join(",");
    let key = Key::new("appliance-programs", 1).with("suite", SUITE).with("packages", &packages);
    let directory = cache.entry("appliance-programs", &key, |directory| {
        cache.say("appliance", "extracting Debian packages");
        Tool::new("mmdebstrap")
            .args(["--mode=root", "--variant=extract", "--components=main"])
            .arg(format!("--include={packages}"))
            .arg("--aptopt=Apt::Install-Recommends \"false\"")
            .arg("--dpkgopt=path-exclude=/usr/share/*")
            .arg(SUITE)
            .arg(directory.join("root"))
            .isolated()
            .run("extracting the appliance's Debian packages")
            .map(drop)
    })?;
    Ok((directory, key.finish()))
}

fn install(directory: &Path) -> Result<()> {
    let early = directory.join("early");
    for (path, _, content) in early_files() {
        let to = early.join(path);
        error::make_dir(to.parent().unwrap_or(&early))?;
        error::write(&to, content)?;
    }
    let root = directory.join("root");
    let packages: Vec<_> = entries(assets::HOST_PACKAGES).collect();
    let hook = |script: &str| script.replace("@EARLY@", &early.display().to_string());
    let mut tool = Tool::new("mmdebstrap")
        .args(["--mode=root", "--variant=minbase", "--components=main"])
        .arg(format!("--include={}", packages.join(",")))
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg(format!("--essential-hook={}", hook("cp -R '@EARLY@/.' \"$1/\"")))
        .arg("--customize-hook=chroot \"$1\" passwd -q -l root");
    for pattern in entries(assets::HOST_EXCLUDES) {
        tool = tool.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    tool.arg(SUITE).arg(&root).isolated().run("installing the host's Debian packages")?;
    crate::cache::remove_tree(&early)?;
    let admin = root.join("var/lib/dpkg");
    let list = Tool::new("dpkg-query")
        .arg(format!("--admindir={}", admin.display()))
        .args(["-W", "-f", "${Package} ${Version}\\n"])
        .run("listing the installed packages")?;
    error::write(&directory.join("packages.txt"), list)
}
