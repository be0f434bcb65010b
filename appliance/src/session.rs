//! The session file: where the person is logged in. `$DAYZERO_SESSION`, or `dayzero/session.json` in the user's
//! configuration directory.
//!
//! Invariants: mode 0600, written whole or not at all; a file that others may read is refused. It holds what a browser's
//! cookie does: whoever reads it is that user until the session ends, 12 hours at most.

use crate::failure::Failure;
use crate::remote::Server;
use dayzero_model::Secret;
use dayzero_model::ids::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const SCHEMA: u32 = 1;
/// Largest session file, bytes.
const MOST: u64 = 1 << 20;

/// One login.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// Of the appliance's certificate.
    pub(crate) fingerprint: Sha256,
    /// As whom.
    pub(crate) user: String,
    /// The session's id.
    pub(crate) session: Secret<String>,
}

/// All logins of this user on this machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sessions {
    schema: u32,
    /// Where commands go that name no place.
    pub(crate) current: Option<Server>,
    /// By appliance.
    pub(crate) logins: BTreeMap<Server, Login>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { schema: SCHEMA, current: None, logins: BTreeMap::new() }
    }
}

/// Where the file is.
pub(crate) fn place() -> Result<PathBuf, Failure> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = || of("XDG_CONFIG_HOME").or_else(|| Some(of("HOME")?.join(".config")));
    of("DAYZERO_SESSION")
        .or_else(|| Some(config()?.join("dayzero/session.json")))
        .ok_or_else(|| Failure::user("there is no place for the session file: set DAYZERO_SESSION or HOME"))
}

impl Sessions {
    /// Reads the file; none there = nobody is logged in.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let bad = |what: String| Failure::user(format!("the session file {}: {what}", path.display()));
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(bad(error.to_string())),
        };
        let mode = file.metadata().map_err(|error| bad(error.to_string()))?.mode();
        if mode & 0o077 != 0 {
            let what = format!(
                "mode {:04o} lets others read it: chmod 600, and log out and in again",
                mode & 0o7777
            );
            return Err(bad(what));
        }
        let mut text = String::new();
        let read = file.take(MOST).read_to_string(&mut text);
        let text = Secret::new(text);
        read.map_err(|error| bad(error.to_string()))?;
        let sessions: Self = serde_json::from_str(text.expose()).map_err(|error| {
            bad(format!("it cannot be read (line {}): delete it and log in again", error.line()))
        })?;
        if sessions.schema != SCHEMA {
            return Err(bad(format!(
                "it is of another version ({}): delete it and log in again",
                sessions.schema
            )));
        }
        Ok(sessions)
    }

    /// Writes the file in place of the old one.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::System(format!("the session file {} cannot be written: {error}", path.display()))
        };
        let text = Secret::new(serde_json::to_string_pretty(self).map_err(|e| Failure::system(&e))?);
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let _stale = std::fs::remove_file(&temporary);
        let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary);
        let written = file.and_then(|mut file| {
            file.write_all(text.expose().as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            failed(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_session_is_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/session.json");
        let server: Server = "https://10.0.0.1".parse().unwrap();
        let mut sessions = Sessions::load(&path).unwrap();
        assert!(sessions.current.is_none());
        let login = Login {
            fingerprint: Sha256([7; 32]),
            user: "admin".to_owned(),
            session: Secret::new("0123".to_owned()),
        };
        assert!(!format!("{login:?}").contains("0123"));
        sessions.logins.insert(server.clone(), login);
        sessions.current = Some(server.clone());
        for _ in 0..2 {
            sessions.save(&path).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1, "no temporary file stays");
        let read = Sessions::load(&path).unwrap();
        assert_eq!(read.current, Some(server.clone()));
        assert_eq!(read.logins[&server].session.expose(), "0123");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Sessions::load(&path).unwrap_err().message().unwrap().contains("chmod 600"));
    }

    #[test]
    fn a_damaged_file_says_what_to_do_and_not_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        for text in ["{\"session\": \"topsecret\"", "{\"schema\": 9, \"current\": null, \"logins\": {}}"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = Sessions::load(&path).unwrap_err();
            let said = error.message().unwrap();
            assert!(said.contains("delete it") && !said.contains("topsecret"), "{said}");
        }
    }
}
