//! Debian packages by apt: the machine's own sources and keys, but lists of our own.
//!
//! Invariants: what apt downloads is checked against its signed index; the machine's lists are neither needed nor
//! changed; lists are fetched once and kept until [`refresh_packages`], so that an unchanged cache works without a
//! network and keys stay the same. It installs nothing. What Debian 12 has too old is taken of Debian 13 by a list of our
//! own, from the mirror that the machine's sources name.

use crate::cache::{self, Cache, Key};
use crate::error::{self, Error, Result};
use crate::tool::Tool;
use std::path::{Path, PathBuf};

fn key() -> Key {
    Key::new("apt", 1)
}

/// The suite of what Debian 12 has too old.
const DEBIAN_13: &str = "trixie";
/// Debian's keys: those of Debian 13 have been among them since before it was released.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn key_13() -> Key {
    Key::new("apt", 1).with("suite", DEBIAN_13)
}

/// Forgets the package lists: the next build asks the archive for its newest versions.
///
/// # Errors
/// When the lists cannot be removed.
pub fn refresh_packages(cache: &Cache) -> Result<()> {
    let lists = cache.root().join("apt");
    cache::remove_tree(&lists.join(key().finish()))?;
    cache::remove_tree(&lists.join(key_13().finish()))
}

/// apt with lists in the cache.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(crate) fn new(cache: &Cache) -> Result<Self> {
        let directory = cache.entry("apt", &key(), |directory| {
            cache.say("apt", "fetching the lists of packages");
            Self::at(directory)?.update("fetching the lists of Debian packages")?;
            lists_in(directory)
        })?;
        Self::at(&directory)
    }

    /// The same for Debian 13, whatever the machine's own sources are.
    pub(crate) fn debian_13(cache: &Cache) -> Result<Self> {
        let directory = cache.entry("apt", &key_13(), |directory| {
            cache.say("apt", "fetching the lists of Debian 13's packages");
            let sources = Tool::new("apt-get")
                .args(["indextargets", "--format", "$(REPO_URI)"])
                .text("asking apt for its sources")?;
            let mirror = mirror_in(&sources).ok_or_else(no_mirror)?;
            let list = format!("deb [signed-by={KEYS}] {mirror} {DEBIAN_13} main\n");
            error::write(&directory.join(LIST), list)?;
            Self::of(directory)?.update("fetching the lists of Debian 13's packages")?;
            lists_in(directory)
        })?;
        Self::of(&directory)
    }

    /// With the sources that lie in `directory`.
    fn of(directory: &Path) -> Result<Self> {
        let mut apt = Self::at(directory)?;
        let list = directory.join(LIST).display().to_string();
        apt.options.push(format!("-oDir::Etc::SourceList={list}"));
        apt.options.push("-oDir::Etc::SourceParts=/dev/null".to_owned());
        // What is installed is of another suite: only the lists say what there is.
        apt.options.push("-oDir::State::status=/dev/null".to_owned());
        Ok(apt)
    }

    fn at(directory: &Path) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            error::make_dir(&directory.join(name))?;
        }
        let option = |name: &str, value: &str| format!("-o{name}={value}");
        let place = |name: &str| directory.join(name).display().to_string();
        let options = vec![
            option("Dir::State::lists", &place("lists")),
            option("Dir::Cache", &place("cache")),
            option("APT::Sandbox::User", "root"),
            option("Acquire::Retries", "3"),
            // Lists are for this program alone: neither translations nor what other tools index.
            option("Acquire::Languages", "none"),
        ];
        Ok(Self { options })
    }

    fn update(&self, doing: &'static str) -> Result<()> {
        self.tool("apt-get").args(["-q", "update"]).run(doing).map(drop)
    }

    fn tool(&self, program: &str) -> Tool {
        Tool::new(program).args(&self.options)
    }

    /// The version of a package that apt would install.
    pub(crate) fn candidate(&self, package: &str) -> Result<String> {
        let policy = self.tool("apt-cache").args(["policy", package]).text("asking apt for a version")?;
        candidate_in(&policy).ok_or_else(|| no_package(package))
    }

    /// The `linux-image-…` package behind a meta package.
    pub(crate) fn kernel_behind(&self, meta: &str) -> Result<String> {
        let depends = self.tool("apt-cache").args(["depends", meta]).text("asking apt for the kernel")?;
        depends_in(&depends).ok_or_else(|| no_package(meta))
    }

    /// Downloads one package of a version into `directory`.
    pub(crate) fn fetch(&self, package: &str, version: &str, directory: &Path) -> Result<PathBuf> {
        self.tool("apt-get")
            .args(["-q", "download", &format!("{package}={version}")])
            .directory(directory)
            .run(&format!("fetching the Debian package {package} {version}"))?;
        let listing = std::fs::read_dir(directory).map_err(Error::io("cannot list", directory))?;
        let mut files = listing.flatten().map(|entry| entry.path());
        let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        files
            .find(is_package)
            .ok_or_else(|| Error::malformed(directory, format!("apt-get download left no file of {package}")))
    }

    /// Downloads a package and unpacks its files below `root`.
    pub(crate) fn unpack(&self, package: &str, version: &str, root: &Path) -> Result<()> {
        error::make_dir(root)?;
        let scratch = tempfile::tempdir_in(root).map_err(Error::io("cannot make a directory in", root))?;
        let file = self.fetch(package, version, scratch.path())?;
        Tool::new("dpkg-deb").arg("-x").arg(&file).arg(root).run(&format!("unpacking {package}")).map(drop)
    }
}

/// Sources of our own, beside the lists that came of them.
const LIST: &str = "sources.list";

/// apt calls an update done that could fetch nothing: a list of packages must be there, or the empty one would be kept.
fn lists_in(directory: &Path) -> Result<()> {
    let lists = directory.join("lists");
    let entries = std::fs::read_dir(&lists).map_err(Error::io("reading", &lists))?;
    let is_list = |name: &std::ffi::OsStr| name.to_string_lossy().contains("_Packages");
    if entries.flatten().any(|entry| is_list(&entry.file_name())) {
        return Ok(());
    }
    Err(Error::Input(
        "apt could fetch no list of packages: `apt-get update` says why; see to the network, or to the mirror in the machine's apt sources"
            .to_owned(),
    ))
}

fn no_mirror() -> Error {
    Error::Input(
        "apt knows no Debian mirror: Debian 12's main archive must be among the machine's apt sources"
            .to_owned(),
    )
}

/// The Debian mirror among the addresses of apt's sources.
fn mirror_in(sources: &str) -> Option<&str> {
    sources.lines().map(str::trim).find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
}

fn no_package(package: &str) -> Error {
    Error::Input(format!(
        "apt offers no package '{package}': Debian 12's main archive must be among the machine's apt sources"
    ))
}

fn candidate_in(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn depends_in(depends: &str) -> Option<String> {
    let name = |line: &str| Some(line.trim().strip_prefix("Depends: ")?.to_owned());
    depends.lines().filter_map(name).find(|package| package.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_fetched_nothing_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("lists/partial")).unwrap();
        std::fs::write(dir.path().join("lists/lock"), "").unwrap();
        assert!(lists_in(dir.path()).unwrap_err().to_string().contains("network"));
        std::fs::write(
            dir.path().join("lists/mirror_debian_dists_trixie_main_binary-amd64_Packages.lz4"),
            "",
        )
        .unwrap();
        lists_in(dir.path()).unwrap();
    }

    #[test]
    fn apt_answers_are_read() {
        let policy = "linux-image-amd64:\n  Installed: (none)\n  Candidate: 6.1.192-2\n  Version table:\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("6.1.192-2"));
        let sources = "http://deb.debian.org/debian-security/\nhttp://mirror.example/debian/\n";
        assert_eq!(mirror_in(sources), Some("http://mirror.example/debian/"));
        assert_eq!(mirror_in("https://deb.nodesource.com/node_20.x/\n"), None);
        assert_eq!(candidate_in("x:\n  Candidate: (none)\n"), None);
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(depends_in(depends).as_deref(), Some("linux-image-6.1.0-56-amd64"));
    }
}
