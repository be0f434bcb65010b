//! Small file operations that reach the disk: directory sync, atomic replacement, the lock.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::StoreError;

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let opened = File::open(dir).map_err(StoreError::io("open", dir))?;
    opened.sync_all().map_err(StoreError::io("sync", dir))
}

/// Creates a directory that only its owner may enter, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(StoreError::io("restrict", dir))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Writes a file under another name and renames it, so that it appears whole or not at all, also over a power cut.
pub(crate) fn write_whole<T>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{:?}.tmp", std::thread::current().id()));
    let written = (|| {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(StoreError::io("create", &temporary))?;
        let made = fill(&mut file)?;
        file.sync_all().map_err(StoreError::io("sync", &temporary))?;
        fs::rename(&temporary, path).map_err(StoreError::io("rename", path))?;
        sync_dir(dir)?;
        Ok(made)
    })();
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Takes the advisory lock of a data directory; held until the value is dropped. The holder writes its process id into it.
pub(crate) fn lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = dir.join("lock");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            let pid = format!("process {}\n", std::process::id());
            let written =
                held.set_len(0).and_then(|()| held.rewind()).and_then(|()| held.write_all(pid.as_bytes()));
            written.map_err(StoreError::io("write", &path))?;
            Ok(held)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = [0; 40];
            let length = file.read(&mut text).unwrap_or(0);
            let holder = String::from_utf8_lossy(&text[..length]).trim().to_owned();
            let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
            Err(StoreError::Locked { path: dir.to_owned(), holder })
        }
        Err((_, errno)) => Err(StoreError::Io { action: "lock", path, source: errno.into() }),
    }
}
