//! The master key: the one secret that is not in the data directory.
//!
//! It comes from a key file elsewhere (made at the first start, for its owner only) or from a passphrase through Argon2id.
//! A copy of the data directory alone opens nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use dayzero_model::Secret;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::TrustError;

/// Where the master key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A file outside the data directory, made if it is not there. 64 hex digits, mode 0600.
    File(PathBuf),
    /// A passphrase that a person gives at each start.
    Passphrase(Secret<String>),
}

/// 256 bits, wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

impl MasterKey {
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the key file, or makes it: durable before the first secret is sealed with it.
    ///
    /// Errors: it lies in `data_dir`; others may read it; it is no key file. `may_create` is false once something is
    /// sealed, so that a lost key file is told apart from a first start.
    pub fn from_file(path: &Path, data_dir: &Path, may_create: bool) -> Result<Self, TrustError> {
        let bad =
            |problem: &str| TrustError::BadKeyFile { path: path.to_owned(), problem: problem.to_owned() };
        refuse_inside(path, data_dir)?;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && may_create => return Self::create(path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(bad(
                    "it is gone, and the data directory holds secrets sealed with it: restore it from its backup",
                ));
            }
            Err(e) => return Err(TrustError::key_file("open", path)(e)),
        };
        let mode = file.metadata().map_err(TrustError::key_file("inspect", path))?.mode();
        if mode & 0o077 != 0 {
            return Err(bad(&format!("mode {:04o} lets others read it: chmod 600", mode & 0o7777)));
        }
        let mut text = Zeroizing::new(String::new());
        let read = file.take(100).read_to_string(&mut text);
        read.map_err(TrustError::key_file("read", path))?;
        let mut key = Self([0; 32]);
        hex::decode_to_slice(text.trim(), &mut key.0).map_err(|_| bad("it does not hold 64 hex digits"))?;
        Ok(key)
    }

    fn create(path: &Path) -> Result<Self, TrustError> {
        let mut key = Self([0; 32]);
        rand::fill(&mut key.0);
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        fs::create_dir_all(dir).map_err(TrustError::key_file("create the directory of", path))?;
        // Random: after a power cut the next start may well have the same process id.
        let temporary = path.with_extension(format!("{:08x}.tmp", rand::random::<u32>()));
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(TrustError::key_file("create", &temporary))?;
        let text = Zeroizing::new(format!("{}\n", hex::encode(key.0)));
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| place(&temporary, path)) {
            let _ = fs::remove_file(&temporary);
            return Err(TrustError::key_file("write", path)(error));
        }
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(TrustError::key_file("sync the directory of", path))?;
        Ok(key)
    }

    /// Derives the key from a passphrase (Argon2id, 32 MiB, 4 passes; RFC 9106, sized for a small server).
    pub fn from_passphrase(passphrase: &Secret<String>, salt: &[u8]) -> Result<Self, TrustError> {
        let failed = |e: argon2::Error| TrustError::Derive { detail: e.to_string() };
        let params = Params::new(32 << 10, 4, 1, Some(32)).map_err(failed)?;
        let mut key = Self([0; 32]);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon.hash_password_into(passphrase.expose().as_bytes(), salt, &mut key.0).map_err(failed)?;
        Ok(key)
    }
}

/// Gives the finished file its name, but never that of a key which another start has made meanwhile. No link: the
/// appliance's key lies on FAT, which has none.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE).map_err(io::Error::from)
}

fn refuse_inside(path: &Path, data_dir: &Path) -> Result<(), TrustError> {
    let parent = path.parent().unwrap_or(path);
    let inside = match (parent.canonicalize(), data_dir.canonicalize()) {
        (Ok(parent), Ok(data)) => parent.starts_with(data),
        _ => path.starts_with(data_dir),
    };
    if inside {
        let problem =
            format!("it lies in the data directory {}: a copy of that would open itself", data_dir.display());
        return Err(TrustError::BadKeyFile { path: path.to_owned(), problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let (data, path) = (dir.path().join("data"), dir.path().join("etc/master.key"));
        fs::create_dir(&data).unwrap();
        let made = MasterKey::from_file(&path, &data, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1, "no temporary file stays");
        let read = MasterKey::from_file(&path, &data, false).unwrap();
        assert_eq!(made.bytes(), read.bytes());
        assert_eq!(format!("{made:?}"), "MasterKey(..)");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let open = MasterKey::from_file(&path, &data, true).unwrap_err();
        assert!(open.to_string().contains("mode 0640"), "{open}");
    }

    #[test]
    fn a_key_beside_its_data_or_lost_or_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inside = MasterKey::from_file(&dir.path().join("sub/../k"), dir.path(), true).unwrap_err();
        assert!(inside.to_string().contains("lies in the data directory"), "{inside}");
        let other = tempfile::tempdir().unwrap();
        let lost = MasterKey::from_file(&other.path().join("k"), dir.path(), false).unwrap_err();
        assert!(lost.to_string().contains("it is gone"), "{lost}");
        let path = other.path().join("short");
        MasterKey::from_file(&path, dir.path(), true).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(20).unwrap();
        let short = MasterKey::from_file(&path, dir.path(), true).unwrap_err();
        assert!(short.to_string().contains("64 hex digits"), "{short}");
    }

    #[test]
    fn a_key_that_another_start_made_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (new, path) = (dir.path().join("new"), dir.path().join("key"));
        fs::write(&new, "mine").unwrap();
        fs::write(&path, "theirs").unwrap();
        assert_eq!(place(&new, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn a_passphrase_gives_the_same_key_for_the_same_salt_only() {
        let phrase = Secret::new("correct horse".to_owned());
        let key = |salt: &[u8]| *MasterKey::from_passphrase(&phrase, salt).unwrap().bytes();
        assert_eq!(key(b"0123456789abcdef"), key(b"0123456789abcdef"));
        assert_ne!(key(b"0123456789abcdef"), key(b"0123456789abcdeg"));
    }
}
