//! A PID 1 that proves a discovery image: loads a module for each device, says what it found, and powers off.
//!
//! Only for the builder's own tests; the agent does this, and more, by itself.

use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::AsFd as _;

fn main() {
    if std::process::id() != 1 {
        return;
    }
    let mut out = std::io::stdout();
    if let Err(error) = probe() {
        let _ = writeln!(out, "PROBE failed: {error:#}");
    }
    let _ = writeln!(out, "PROBE end");
    nix::unistd::sync();
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF);
}

fn probe() -> anyhow::Result<()> {
    use nix::mount::{MsFlags, mount};
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {at}"))?;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let base = format!("/lib/modules/{release}");
    let read =
        |name: &str| std::fs::read_to_string(format!("{base}/{name}")).with_context(|| name.to_owned());
    let (dep, alias) = (read("modules.dep")?, read("modules.alias")?);
    let needs: BTreeMap<String, Vec<&str>> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, rest)| {
            let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".ko").replace('-', "_");
            (name, rest.split_whitespace().rev().chain([path]).collect())
        })
        .collect();
    let aliases: Vec<(&str, &str)> =
        alias.lines().filter_map(|l| l.strip_prefix("alias ")?.rsplit_once(' ')).collect();
    let mut out = std::io::stdout();
    let uptime = || std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    writeln!(out, "PROBE start {release} uptime {}", uptime().trim())?;
    let mut done = BTreeSet::new();
    // Each round may show new devices behind the drivers of the last one.
    for round in 0..4 {
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        for modalias in modaliases("/sys/devices", 0) {
            wanted.extend(
                aliases.iter().filter(|(p, _)| glob(p.as_bytes(), modalias.as_bytes())).map(|(_, m)| *m),
            );
        }
        if round == 0 {
            wanted.extend([
                "ext4",
                "vfat",
                "bonding",
                "8021q",
                "bridge",
                "iscsi_tcp",
                "dm_multipath",
                "ipmi_devintf",
            ]);
        }
        for name in wanted {
            for path in needs.get(name).into_iter().flatten() {
                if done.insert(path.to_string()) {
                    let file = std::fs::File::open(format!("{base}/{path}"))?;
                    let empty = c"";
                    let result =
                        nix::kmod::finit_module(file.as_fd(), empty, nix::kmod::ModuleInitFlags::empty());
                    if let Err(errno) = result {
                        writeln!(out, "PROBE {path}: {errno}")?;
                    }
                }
            }
        }
    }
    writeln!(out, "PROBE loaded {} modules, uptime {}", done.len(), uptime().trim())?;
    for (what, at) in [("block", "/sys/class/block"), ("net", "/sys/class/net")] {
        let mut names: Vec<_> =
            std::fs::read_dir(at)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        writeln!(out, "PROBE {what}: {}", names.join(" "))?;
    }
    Ok(())
}

fn modaliases(directory: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    if depth > 24 {
        return found;
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path().to_string_lossy().into_owned();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(modaliases(&path, depth + 1)),
            Ok(_) if path.ends_with("/modalias") => {
                found.extend(std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()));
            }
            _ => {}
        }
    }
    found
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.first() {
        None => text.is_empty(),
        Some(b'*') => (0..=text.len()).any(|skip| glob(&pattern[1..], &text[skip..])),
        Some(b'[') => {
            let Some(end) = pattern.iter().position(|b| *b == b']') else { return false };
            let set = &pattern[1..end];
            text.first().is_some_and(|c| class(set, *c) && glob(&pattern[end + 1..], &text[1..]))
        }
        Some(p) => text.first().is_some_and(|c| (*p == b'?' || p == c) && glob(&pattern[1..], &text[1..])),
    }
}

fn class(set: &[u8], c: u8) -> bool {
    let range = |w: &[u8]| w[1] == b'-' && (w[0]..=w[2]).contains(&c);
    set.contains(&c) || set.windows(3).any(range)
}
