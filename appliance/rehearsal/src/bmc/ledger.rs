//! What one BMC was entrusted with, for those who test that none of it lies anywhere else: passwords that were set,
//! session tokens that it gave, media that it fetched. In memory alone; told on the lab's own socket, and never logged.

use crate::protocol::{BmcSecret, SecretKind};
use dayzero_model::Secret;
use dayzero_model::media::read_iso;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries at most; a BMC that is logged into for hours forgets the oldest.
const MOST: usize = 4096;
/// A medium is read up to here.
const MEDIUM: u64 = 1 << 20;

/// One BMC's entries. Clones are the same ledger; it outlives the BMC's restarts.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Vec<BmcSecret>>>);

impl Ledger {
    /// Adds an entry, once.
    pub(super) fn note(&self, kind: SecretKind, value: &str) {
        let entry = BmcSecret { kind, value: Secret::new(value.to_owned()) };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !entries.contains(&entry) {
            if entries.len() >= MOST {
                entries.remove(0);
            }
            entries.push(entry);
        }
    }

    /// Adds the nonce of a medium, if it is one of Dayzero's.
    pub(super) fn note_medium(&self, file: &Path) {
        use std::io::Read;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(file).and_then(|file| file.take(MEDIUM).read_to_end(&mut bytes));
        if let (Ok(_), Ok(vouch)) = (read, read_iso(&bytes)) {
            self.note(SecretKind::VouchNonce, &vouch.nonce);
        }
    }

    /// All entries.
    pub fn entries(&self) -> Vec<BmcSecret> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::media::{VouchFile, write_iso};
    use dayzero_model::{BootId, Sha256};

    #[test]
    fn an_entry_is_kept_once_and_a_medium_gives_its_nonce() {
        let ledger = Ledger::default();
        ledger.note(SecretKind::Password, "set-by-us");
        ledger.clone().note(SecretKind::Password, "set-by-us");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("medium.iso");
        let vouch = VouchFile { boot: BootId(7), nonce: "ab".repeat(32), ca_sha256: Sha256([1; 32]) };
        std::fs::write(&file, write_iso(&vouch).unwrap()).unwrap();
        ledger.note_medium(&file);
        let shown: Vec<_> =
            ledger.entries().iter().map(|entry| (entry.kind, entry.value.expose().clone())).collect();
        assert_eq!(
            shown,
            [(SecretKind::Password, "set-by-us".to_owned()), (SecretKind::VouchNonce, "ab".repeat(32))]
        );
        assert!(!format!("{ledger:?}").contains("set-by-us"), "{ledger:?}");
    }
}
