//! Where is looked, and the few places where a secret belongs: each by name, for its kind, with the reason.

use super::forms::{Kind, Secret};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A place where secrets of some kinds may lie.
struct Belongs {
    /// `*` stands for any text without `/` (in the last part: for any text).
    place: &'static str,
    kinds: &'static [Kind],
    /// Only the secrets of the host that `*` stands for first.
    own: bool,
    #[allow(dead_code)] // For the reader, and for the test that no row is without one.
    why: &'static str,
}

const BMC: &[Kind] =
    &[Kind::FactoryPassword, Kind::BmcPassword, Kind::BmcSession, Kind::MediaUrl, Kind::VouchNonce];

/// Everything else is a leak.
const BELONGS: [Belongs; 12] = [
    Belongs {
        place: "session.json",
        kinds: &[Kind::ConsoleSession],
        own: false,
        why: "the session file of the person's command line, 0600",
    },
    Belongs {
        place: "rack/m/appliance/console.log",
        kinds: &[Kind::ClaimCode],
        own: false,
        why: "the appliance's screen, where a person reads the claim code",
    },
    Belongs {
        place: "appliance.raw",
        kinds: &[Kind::MasterKey],
        own: false,
        why: "the appliance's EFI partition holds the key file; its data partition is looked at file by file, in `data`",
    },
    Belongs {
        place: "master.key",
        kinds: &[Kind::MasterKey],
        own: false,
        why: "the key file itself, outside the data directory",
    },
    Belongs {
        place: "lab.secrets.yaml",
        kinds: &[Kind::FactoryPassword],
        own: false,
        why: "the plan's secret file, 0600: where a person writes the factory credential",
    },
    Belongs {
        place: "rack/m/*/bmc/*",
        kinds: BMC,
        own: false,
        why: "the flash of an emulated BMC: accounts of ipmi_sim, the medium in the drive; real ones keep theirs inside",
    },
    Belongs {
        place: "rack/m/*/bmc-other/*",
        kinds: BMC,
        own: false,
        why: "the same of the BMC that `lab wrong-password` puts in its place",
    },
    Belongs {
        place: "rack/m/*/disk.raw",
        kinds: &[Kind::AgentKey],
        own: true,
        why: "a host's own disk holds its own key, 0600",
    },
    Belongs {
        place: "browser/*",
        kinds: &[Kind::ConsoleSession],
        own: false,
        why: "the profile of the person's browser, with its cookies",
    },
    Belongs {
        place: "environment of ipmitool*",
        kinds: &[Kind::FactoryPassword, Kind::BmcPassword],
        own: false,
        why: "`ipmitool -E`: readable by its own user alone; never on an argument list",
    },
    Belongs {
        place: "environment of ip *",
        kinds: &[Kind::FactoryPassword, Kind::BmcPassword],
        own: false,
        why: "`ip netns exec` on its way to become the ipmitool by which the demo, as a person, speaks to a BMC",
    },
    Belongs {
        place: "own output",
        kinds: &[Kind::ClaimCode],
        own: false,
        why: "the claim code is there to be read by the person who started the run",
    },
];

/// Whether a secret belongs where it was found.
pub fn belongs(place: &str, secret: &Secret) -> bool {
    BELONGS.iter().any(|row| {
        let Some(star) = matches(row.place, place) else { return false };
        row.kinds.contains(&secret.kind) && (!row.own || star == secret.of)
    })
}

/// What the first `*` stands for.
fn matches<'a>(pattern: &str, place: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once('*') else { return (pattern == place).then_some("") };
    let rest = place.strip_prefix(before)?;
    if after.is_empty() {
        return Some(rest);
    }
    let end = rest.find('/')?;
    let (star, rest) = rest.split_at(end);
    match after.strip_suffix('*') {
        Some(after) => rest.starts_with(after).then_some(star),
        None => (rest == after).then_some(star),
    }
}

/// Regular files below `root`, with their places relative to it. Links are not followed; what vanishes meanwhile is none.
///
/// # Errors
/// A directory that cannot be read.
pub fn files(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let listing = match fs::read_dir(&dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("looking into {}", dir.display())),
        };
        for entry in listing.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let place = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.push((place, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_belongs_in_few_places_and_to_its_own_host() {
        let secret = |kind, of: &str| Secret::new(kind, of, "12345678").unwrap();
        for (place, kind, of, fine) in [
            ("master.key", Kind::MasterKey, "", true),
            ("data/master.key", Kind::MasterKey, "", false),
            ("master.key", Kind::CaKey, "", false),
            ("rack/m/host1/bmc/lan.conf", Kind::FactoryPassword, "", true),
            ("rack/m/host1/bmc/state/ipmi_sim/bmc-host1/users.mc20", Kind::BmcPassword, "host1", true),
            ("rack/m/host1/console.log", Kind::BmcPassword, "host1", false),
            ("rack/m/host1/disk.raw", Kind::AgentKey, "host1", true),
            ("rack/m/host2/disk.raw", Kind::AgentKey, "host1", false),
            ("rack/m/host1/disk.raw", Kind::CaKey, "", false),
            ("serve.log", Kind::BmcPassword, "host1", false),
            ("data/store/log", Kind::ConsoleSession, "", false),
            ("environment of ipmitool (4711)", Kind::BmcPassword, "host2", true),
            ("arguments of ipmitool (4711)", Kind::BmcPassword, "host2", false),
            ("own output", Kind::ClaimCode, "", true),
            ("own output", Kind::ConsolePassword, "", false),
        ] {
            assert_eq!(belongs(place, &secret(kind, of)), fine, "{kind} of '{of}' in {place}");
        }
        assert!(BELONGS.iter().all(|row| !row.why.is_empty() && !row.kinds.is_empty()));
    }
}
