//! Hardware profiles and BMC quirks as data, their schema, and what a host's inventory differs in.
//!
//! A profile is a TOML file of this folder; [`Profile::parse`] is strict, [`match_host`] tolerant: what could not be
//! read of a host is said, never guessed. Where do I add a profile: one `.toml` beside `qemu-q35.toml` and one row in
//! [`BUILT_IN`]; a quirk: one row in `bmc-quirks.toml`. It decides nothing: what follows from a drift is lifecycle's.

mod drift;
mod profile;
pub mod quirks;

pub use drift::{Drift, match_host, match_plan, nic_of_role};
pub use profile::{Cores, CpuRule, DiskRule, MemoryRule, NicRule, Profile, ProfileError, SystemRule};
pub use quirks::{Effect, Quirks};

use dayzero_model::Name;
use std::path::Path;

/// The profiles that come with Dayzero: name and text.
pub const BUILT_IN: [(&str, &str); 1] = [("qemu-q35", include_str!("../qemu-q35.toml"))];

/// Largest profile file, bytes.
const MAX_FILE: u64 = 256 << 10;

/// The built-in profiles.
///
/// # Errors
/// [`ProfileError`] if one does not parse (a test holds that all do).
pub fn built_in() -> Result<Vec<Profile>, ProfileError> {
    BUILT_IN.iter().map(|(name, text)| Profile::parse(&format!("{name}.toml"), text)).collect()
}

/// One built-in profile.
///
/// # Errors
/// [`ProfileError::Unknown`] names those that exist.
pub fn by_name(name: &Name) -> Result<Profile, ProfileError> {
    match BUILT_IN.iter().find(|(known, _)| *known == name.as_str()) {
        Some((_, text)) => Profile::parse(&format!("{name}.toml"), text),
        None => {
            Err(ProfileError::Unknown { name: name.clone(), known: names().collect::<Vec<_>>().join(", ") })
        }
    }
}

/// Names of the built-in profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// All profiles of a directory (its `*.toml`, but `bmc-quirks.toml` and `Cargo.toml`), by name; one of the same name
/// as a built-in stands for it.
///
/// # Errors
/// [`ProfileError`] of the first file that cannot be used.
pub fn load_dir(dir: &Path) -> Result<Vec<Profile>, ProfileError> {
    let failed = |path: &Path, source| ProfileError::Read { path: path.display().to_string(), source };
    let mut profiles = built_in()?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let path = entry.map_err(|error| failed(dir, error))?.path();
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if file.ends_with(".toml") && !["bmc-quirks.toml", "Cargo.toml"].contains(&file) {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let profile = load(&path)?;
        profiles.retain(|other| other.name != profile.name);
        profiles.push(profile);
    }
    profiles.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(profiles)
}

/// One profile file; its name must be the profile's.
///
/// # Errors
/// [`ProfileError`].
pub fn load(path: &Path) -> Result<Profile, ProfileError> {
    use std::io::Read;
    let shown = path.display().to_string();
    let failed = |source| ProfileError::Read { path: shown.clone(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(std::io::Error::other(format!("larger than {} KiB", MAX_FILE >> 10))));
    }
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or(&shown);
    Profile::parse(file, &text)
}

#[cfg(test)]
mod tests;
