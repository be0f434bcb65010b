//! Boot files that are added while the services run: what few sites need, and what is made when the first host needs it.
//!
//! Invariants: a file is there whole or not at all; it is served by TFTP and HTTP under the same name; what was added stays.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::config::{ConfigError, plain_path};
use crate::http::files::Content;

/// The files, by name; clones share them.
#[derive(Clone, Debug, Default)]
pub struct LateFiles(Arc<RwLock<BTreeMap<String, Late>>>);

#[derive(Clone, Debug)]
struct Late {
    bytes: Bytes,
    content: Content,
}

impl LateFiles {
    /// Adds files, all at once; one of the same name is replaced.
    ///
    /// # Errors
    /// [`ConfigError::FileName`]: nothing is added then.
    pub fn add(&self, files: impl IntoIterator<Item = (String, Bytes)>) -> Result<(), ConfigError> {
        let late = |bytes: Bytes| Late { content: Content::memory(bytes.clone()), bytes };
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name, late(bytes))).collect();
        if let Some(name) = files.keys().find(|name| !plain_path(name)) {
            return Err(ConfigError::FileName(name.clone()));
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(files);
        Ok(())
    }

    /// The bytes of a file.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.look(name, |late| late.bytes.clone())
    }

    pub(crate) fn content(&self, name: &str) -> Option<Content> {
        self.look(name, |late| late.content.clone())
    }

    fn look<T>(&self, name: &str, found: impl FnOnce(&Late) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).map(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_all_at_once_or_not_at_all() {
        let (late, bytes) = (LateFiles::default(), Bytes::from_static(b"efi"));
        let named = |name: &str| (name.to_owned(), bytes.clone());
        let error = late.add([named("uki.efi"), named("../shadow")]).unwrap_err();
        assert_eq!(error, ConfigError::FileName("../shadow".to_owned()));
        assert!(late.get("uki.efi").is_none());
        let other = late.clone();
        late.add([named("uki.efi"), named("shim/grub/grub.cfg")]).unwrap();
        assert_eq!(other.get("uki.efi").as_ref(), Some(&bytes));
        assert_eq!(other.content("shim/grub/grub.cfg").map(|content| content.size), Some(3));
        assert!(other.content("shim").is_none());
    }
}
