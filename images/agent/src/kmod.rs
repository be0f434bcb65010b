//! Loads kernel modules from the image's own `modules.dep` and `modules.alias`, since PID 1 has no modprobe.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Modules of one kernel release.
#[derive(Debug, Default)]
pub struct Modules {
    directory: PathBuf,
    /// Module name (with `_`) to path and the paths of what it needs, nearest first.
    depends: HashMap<String, (String, Vec<String>)>,
    aliases: Vec<(String, String)>,
    loaded: HashSet<String>,
}

impl Modules {
    /// Reads the tables under `/lib/modules/<release>`; missing tables are empty ones (a kernel without modules).
    pub fn open(directory: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        Self::parse(directory.to_owned(), &read("modules.dep"), &read("modules.alias"))
    }

    fn parse(directory: PathBuf, dep: &str, alias: &str) -> Self {
        let entry = |line: &str| {
            let (path, needs) = line.split_once(':')?;
            let needs = needs.split_ascii_whitespace().map(str::to_owned).collect();
            Some((name_of(path), (path.to_owned(), needs)))
        };
        let pair = |line: &str| {
            let mut words = line.strip_prefix("alias ")?.split_ascii_whitespace();
            Some((words.next()?.to_owned(), words.next()?.replace('-', "_")))
        };
        Self {
            directory,
            depends: dep.lines().filter_map(entry).collect(),
            aliases: alias.lines().filter_map(pair).collect(),
            loaded: HashSet::new(),
        }
    }

    /// Loads a module by name with what it needs. Returns what failed, as sentences; one that the kernel has built in
    /// or that the image lacks is no failure.
    pub fn load(&mut self, name: &str) -> Vec<String> {
        let name = name.replace('-', "_");
        let Some((path, needs)) = self.depends.get(&name).cloned() else { return Vec::new() };
        let mut problems = Vec::new();
        for file in needs.iter().rev().chain(std::iter::once(&path)) {
            if !self.loaded.insert(name_of(file)) {
                continue;
            }
            if let Err(error) = insert(&self.directory.join(file)) {
                problems.push(format!("module {file}: {error}"));
            }
        }
        problems
    }

    /// Names of the modules whose alias matches a device's modalias.
    pub fn matching(&self, modalias: &str) -> Vec<String> {
        let fits = self.aliases.iter().filter(|(pattern, _)| glob(pattern.as_bytes(), modalias.as_bytes()));
        let mut names: Vec<String> = fits.map(|(_, name)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Loads what the devices in `/sys` ask for, again while new devices appear (a controller brings its disks), at
    /// most four rounds. Returns what failed.
    pub fn load_for_devices(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let fresh: Vec<String> =
                modaliases().into_iter().filter(|alias| seen.insert(alias.clone())).collect();
            if fresh.is_empty() {
                break;
            }
            let wanted: Vec<String> = fresh.iter().flat_map(|alias| self.matching(alias)).collect();
            for name in wanted {
                problems.extend(self.load(&name));
            }
        }
        problems
    }
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn insert(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    match nix::kmod::finit_module(&file, &CString::default(), nix::kmod::ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn modaliases() -> Vec<String> {
    let mut found = Vec::new();
    for bus in std::fs::read_dir("/sys/bus").into_iter().flatten().flatten() {
        for device in std::fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            if let Ok(alias) = std::fs::read_to_string(device.path().join("modalias")) {
                found.push(alias.trim().to_owned());
            }
        }
    }
    found
}

/// Shell-style match with `*`, `?` and `[…]`, as modules.alias uses them; linear in text x stars.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(byte) if *byte == text[t] => Some(1),
            _ => None,
        };
        match (step, back) {
            (Some(width), _) => {
                p += width;
                t += 1;
            }
            (None, Some((star, from))) => {
                back = Some((star, from + 1));
                p = star + 1;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Width of a `[…]` class that accepts `byte`.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|b| *b == b']')?;
    let inner = &pattern[1..end];
    let mut at = 0;
    while at < inner.len() {
        let (low, high, width) = match (inner.get(at + 1), inner.get(at + 2)) {
            (Some(b'-'), Some(high)) => (inner[at], *high, 3),
            _ => (inner[at], inner[at], 1),
        };
        if (low..=high).contains(&byte) {
            return Some(end + 1);
        }
        at += width;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_match_as_modprobe_would() {
        for (pattern, text, fits) in [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "pci:v00008086d0000100Esv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                true,
            ),
            ("acpi*:IPI0001:*", "acpi:IPI0001:", true),
            ("input:b*v*p*e*-e0*[0-9a]x?", "input:b1v2p3e4-e0z7xq", true),
            ("a*b", "aXbYc", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} ~ {text}");
        }
    }

    #[test]
    fn dependencies_come_before_what_needs_them() {
        let dep =
            "kernel/net/virtio-net.ko: kernel/net/failover.ko kernel/net/core.ko\nkernel/net/core.ko:\n";
        let modules = Modules::parse(PathBuf::new(), dep, "alias virtio:d1v* virtio-net\n");
        assert_eq!(modules.matching("virtio:d1v2"), ["virtio_net"]);
        let (path, needs) = &modules.depends["virtio_net"];
        assert_eq!(path, "kernel/net/virtio-net.ko");
        assert_eq!(needs.last().map(String::as_str), Some("kernel/net/core.ko"));
    }
}
