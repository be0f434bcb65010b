//! The secret file beside the plan: factory credentials of the BMCs, by name.
//!
//! Invariants: values live in [`Secret`]; no error shows file content; a file that others may read is reported (and is
//! for the caller to refuse). Unknown keys are refused.

use dayzero_model::{Name, Secret};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;

/// Largest secret file, bytes.
const MAX_FILE: u64 = 4 << 20;

/// One factory credential.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Login name.
    pub user: String,
    /// Password.
    pub password: Secret<String>,
}

/// All credentials of a secret file.
#[derive(Clone, Debug)]
pub struct Secrets {
    credentials: BTreeMap<Name, Credential>,
    readable_by_others: bool,
}

/// Why a secret file could not be used. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// It cannot be read.
    #[error(
        "the secret file {path} cannot be read: write it with mode 0600, `NAME: {{user: …, password: …}}` for each credential"
    )]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not have the shape of a secret file.
    #[error(
        "the secret file {path} is wrong at line {line}, column {column}: each credential is a name with `user` and `password`, and nothing else"
    )]
    Shape {
        /// The file.
        path: String,
        /// Line, from 1; 0 = not known.
        line: u64,
        /// Column, from 1; 0 = not known.
        column: u64,
    },
    /// It is too large.
    #[error("the secret file {path} is larger than {} MiB", MAX_FILE >> 20)]
    TooLarge {
        /// The file.
        path: String,
    },
}

impl Secrets {
    /// A credential by its name.
    pub fn get(&self, name: &Name) -> Option<&Credential> {
        self.credentials.get(name)
    }

    /// Names of all credentials.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.credentials.keys()
    }

    /// A sentence if others than the owner may read or change the file.
    pub fn warning(&self) -> Option<&'static str> {
        self.readable_by_others.then_some(
            "the secret file may be read or changed by other users of this machine: `chmod 600` it, and change the passwords if they are real",
        )
    }
}

/// Reads a secret file.
///
/// # Errors
/// [`SecretsError`].
pub fn load(path: &std::path::Path) -> Result<Secrets, SecretsError> {
    use std::os::unix::fs::PermissionsExt;
    let name = path.display().to_string();
    let failed = |source| SecretsError::Read { path: name.clone(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    // Overwritten when it goes out of scope, like the values taken from it.
    let mut text = zeroed(String::new());
    file.take(MAX_FILE + 1).read_to_string(&mut text.0).map_err(failed)?;
    if text.0.len() as u64 > MAX_FILE {
        return Err(SecretsError::TooLarge { path: name });
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let credentials = serde_saphyr::from_str_with_options(&text.0, options).map_err(|error| {
        let place = error.location();
        SecretsError::Shape {
            path: name.clone(),
            line: place.map_or(0, |place| place.line()),
            column: place.map_or(0, |place| place.column()),
        }
    })?;
    Ok(Secrets { credentials, readable_by_others: mode & 0o077 != 0 })
}

struct Zeroed(String);

fn zeroed(text: String) -> Zeroed {
    Zeroed(text)
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        drop(Secret::new(std::mem::take(&mut self.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn credentials_are_found_and_not_shown() {
        let secrets = load(file("factory: {user: root, password: calvin-lab}\n", 0o600).path()).unwrap();
        let factory = secrets.get(&"factory".parse().unwrap()).unwrap();
        assert_eq!((factory.user.as_str(), factory.password.expose().as_str()), ("root", "calvin-lab"));
        assert!(!format!("{secrets:?}").contains("calvin"), "a password shows in debug output");
        assert_eq!(secrets.warning(), None);
    }

    #[test]
    fn a_file_that_others_read_is_reported() {
        for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)] {
            let secrets = load(file("a: {user: u, password: p}\n", mode).path()).unwrap();
            assert_eq!(secrets.warning().is_some(), warned, "{mode:o}");
        }
    }

    #[test]
    fn errors_name_the_place_and_never_the_content() {
        for text in
            ["a: {user: u, password: hunter2, note: x}\n", "a: hunter2\n", "a: {user: u}\n", "hunter2: [\n"]
        {
            let error = load(file(text, 0o600).path()).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(matches!(error, SecretsError::Shape { line: 1.., .. }), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(matches!(load("/nonexistent/secrets".as_ref()), Err(SecretsError::Read { .. })));
    }
}
