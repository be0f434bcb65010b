//! Where built images are kept: outside the checkout, one directory for each set of inputs.
//!
//! Invariants: an entry's name is a hash of everything that went into it; an entry is there completely or not at all
//! (built in a hidden directory beside it, then renamed); two processes never build the same entry at once. It does not
//! delete entries of other keys by itself: [`Cache::keep_newest`] does when asked.

use crate::error::{self, Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A line of progress: which image, and what is being done.
pub type Progress = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// The directory of built images.
#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
    progress: Progress,
}

/// The name of one set of inputs: 20 hex digits of a BLAKE3 hash over labelled fields.
#[derive(Clone)]
pub(crate) struct Key(blake3::Hasher);

impl Key {
    /// A key for a kind of image; `version` changes when the code that builds it changes its result.
    pub(crate) fn new(kind: &str, version: u32) -> Self {
        Self(blake3::Hasher::new()).with("kind", kind).with("version", version.to_le_bytes())
    }

    /// Adds an input. Label and length are hashed too, so that no two lists of inputs look alike.
    pub(crate) fn with(mut self, label: &str, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update(&(label.len() as u64).to_le_bytes()).update(label.as_bytes());
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    /// Adds the content of a file.
    pub(crate) fn with_file(self, label: &str, path: &Path) -> Result<Self> {
        let bytes = error::read(path)?;
        Ok(self.with(label, blake3::hash(&bytes).as_bytes()))
    }

    pub(crate) fn finish(&self) -> String {
        hex::encode(&self.0.finalize().as_bytes()[..10])
    }
}

impl Cache {
    /// The cache in `root`; `progress` hears what is being done.
    pub fn new(root: impl Into<PathBuf>, progress: Progress) -> Self {
        Self { root: root.into(), progress }
    }

    /// The cache of this user: `$DAYZERO_CACHE/images`, or `$XDG_CACHE_HOME/dayzero/images`, or `~/.cache/dayzero/images`.
    ///
    /// # Errors
    /// When none of the three variables is set.
    pub fn of_user(progress: Progress) -> Result<Self> {
        let base = directory_from(|name| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        })
        .ok_or_else(|| {
            Error::Input("no cache directory: set DAYZERO_CACHE to a directory for built images".into())
        })?;
        Ok(Self::new(base.join("images"), progress))
    }

    /// The directory of all entries.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn say(&self, image: &str, what: &str) {
        (self.progress)(image, what);
    }

    /// The directory of entry `<kind>/<key>`, built by `build` if it is not there. `build` gets an empty directory.
    pub(crate) fn entry(
        &self,
        kind: &str,
        key: &Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let parent = self.root.join(kind);
        let key = key.finish();
        let done = parent.join(&key);
        if done.is_dir() {
            // Its time is that of its last use: what is used is never the oldest.
            let used = File::open(&done).and_then(|entry| entry.set_modified(std::time::SystemTime::now()));
            used.map_err(Error::io("cannot note the use of", &done))?;
            return Ok(done);
        }
        error::make_dir(&parent)?;
        let lock_path = parent.join(format!(".{key}.lock"));
        let lock = File::create(&lock_path).map_err(Error::io("cannot make the lock", &lock_path))?;
        if lock.try_lock().is_err() {
            self.say(kind, "waiting: another process builds the same image");
            lock.lock().map_err(Error::io("cannot take the lock", &lock_path))?;
        }
        if done.is_dir() {
            return Ok(done);
        }
        let unfinished = parent.join(format!(".{key}.unfinished"));
        remove_tree(&unfinished)?;
        error::make_dir(&unfinished)?;
        let built = build(&unfinished);
        if built.is_err() {
            remove_tree(&unfinished)?;
        }
        built?;
        nix::unistd::syncfs(&lock).map_err(|errno| Error::io("cannot flush", &unfinished)(errno.into()))?;
        std::fs::rename(&unfinished, &done).map_err(Error::io("cannot finish", &done))?;
        drop(lock);
        std::fs::remove_file(&lock_path).map_err(Error::io("cannot remove the lock", &lock_path))?;
        Ok(done)
    }

    /// Removes all but the `count` last used entries of a kind, for a machine whose agent changes every few minutes.
    ///
    /// # Errors
    /// When an entry cannot be read or removed.
    pub fn keep_newest(&self, kind: &str, count: usize) -> Result<usize> {
        let parent = self.root.join(kind);
        let Ok(listing) = std::fs::read_dir(&parent) else { return Ok(0) };
        let mut entries: Vec<_> = listing
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        entries.sort();
        entries.reverse();
        let old = entries.split_off(count.min(entries.len()));
        for (_, path) in &old {
            remove_tree(path)?;
        }
        Ok(old.len())
    }
}

fn directory_from(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    get("DAYZERO_CACHE")
        .or_else(|| get("XDG_CACHE_HOME").map(|base| base.join("dayzero")))
        .or_else(|| get("HOME").map(|home| home.join(".cache/dayzero")))
}

/// Removes a directory that may not be there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { what: "cannot remove", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(root: &Path) -> Cache {
        Cache::new(root, Arc::new(|_, _| {}))
    }

    #[test]
    fn an_entry_is_built_once_and_a_failed_one_never_used() {
        let directory = tempfile::tempdir().unwrap();
        let cache = quiet(directory.path());
        let key = Key::new("thing", 1).with("input", "a");
        let failed = cache.entry("thing", &key, |path| {
            error::write(&path.join("half"), "half")?;
            Err(Error::Input("stopped".into()))
        });
        assert!(failed.is_err());
        let built = cache.entry("thing", &key, |path| {
            assert!(!path.join("half").exists(), "what a failed build left was used");
            error::write(&path.join("whole"), "whole")
        });
        let path = built.unwrap();
        assert!(path.join("whole").exists());
        let again = cache.entry("thing", &key, |_| Err(Error::Input("built twice".into())));
        assert_eq!(again.unwrap(), path);
    }

    #[test]
    fn a_killed_build_leaves_nothing_that_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let cache = quiet(directory.path());
        let key = Key::new("thing", 1);
        let unfinished = directory.path().join(format!("thing/.{}.unfinished", key.finish()));
        error::make_dir(&unfinished).unwrap();
        error::write(&unfinished.join("old"), "old").unwrap();
        let path = cache.entry("thing", &key, |path| error::write(&path.join("new"), "new")).unwrap();
        assert!(!path.join("old").exists() && path.join("new").exists());
    }

    #[test]
    fn any_other_input_is_another_key() {
        let key = |a: &str, b: &str| Key::new("k", 1).with("a", a).with("b", b).finish();
        assert_eq!(key("1", "2"), key("1", "2"));
        assert_ne!(key("12", ""), key("1", "2"));
        assert_ne!(key("1", "2"), key("2", "1"));
        assert_ne!(Key::new("k", 1).finish(), Key::new("k", 2).finish());
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let with = |vars: &'static [(&str, &str)]| {
            directory_from(move |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
        };
        assert_eq!(with(&[("DAYZERO_CACHE", "/c"), ("HOME", "/h")]), Some("/c".into()));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some("/x/dayzero".into()));
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.cache/dayzero".into()));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = quiet(directory.path());
        for input in ["a", "b", "c"] {
            cache.entry("thing", &Key::new("t", 1).with("i", input), |_| Ok(())).unwrap();
        }
        let used = cache.entry("thing", &Key::new("t", 1).with("i", "a"), |_| Ok(())).unwrap();
        assert_eq!(cache.keep_newest("thing", 2).unwrap(), 1);
        assert!(used.exists(), "what was used last was removed");
        assert_eq!(cache.keep_newest("thing", 2).unwrap(), 0);
        assert_eq!(cache.keep_newest("other", 2).unwrap(), 0);
    }
}
