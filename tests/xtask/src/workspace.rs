//! The workspace's tests and programs, built in one call: Cargo then resolves the features of each crate once, where a build of
//! the programs alone would resolve some of them otherwise and build nearly everything a second time.

use crate::shell;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

static BUILT: AtomicBool = AtomicBool::new(false);
/// Set for an xtask that one started which has built the programs.
pub const BUILT_VARIABLE: &str = "XTASK_PROGRAMS_BUILT";

/// Whether this run, or the xtask that started it, has built the programs.
pub fn is_built() -> bool {
    BUILT.load(Ordering::Relaxed) || std::env::var_os(BUILT_VARIABLE).is_some()
}

/// A test program: of a library, of a program, or of a file below `tests/`.
pub struct TestProgram {
    /// Its own name.
    pub name: String,
    pub path: PathBuf,
    /// Its package's directory, where Cargo would start it.
    pub package: PathBuf,
}

/// Builds everything and lists the test programs.
pub fn build() -> Result<Vec<TestProgram>> {
    let format = "--message-format=json-render-diagnostics";
    let said = shell::read(&mut shell::cargo(&["build", "--workspace", "--all-targets", "--quiet", format]))?;
    BUILT.store(true, Ordering::Relaxed);
    let mut found = Vec::new();
    for line in said.lines() {
        let made: Artifact = serde_json::from_str(line).with_context(|| format!("cargo said '{line}'"))?;
        if let Some(program) = made.test_program() {
            found.push(program);
        }
    }
    Ok(found)
}

/// Of Cargo's messages, what tells test programs apart.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Artifact {
    fn test_program(self) -> Option<TestProgram> {
        let package = self.manifest_path?.parent()?.to_owned();
        let path = self.profile?.test.then_some(self.executable)??;
        Some(TestProgram { name: self.target?.name, path, package })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_told_from_a_program_and_from_other_messages() {
        let made = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{{"name":"lab","kind":["test"]}},
                "profile":{{"opt_level":"1","test":{test}}},"executable":"/t/lab-1"}}"#
            )
        };
        let read = |text: &str| serde_json::from_str::<Artifact>(text).unwrap().test_program();
        let found = read(&made(true)).unwrap();
        assert_eq!((found.name.as_str(), found.package.as_path()), ("lab", std::path::Path::new("/w/a")));
        assert!(read(&made(false)).is_none());
        assert!(read(&made(true).replace(r#""/t/lab-1""#, "null")).is_none());
        assert!(read(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
