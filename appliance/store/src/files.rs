//! Small file operations that reach the disk: directory sync, atomic replacement, the lock.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

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

/// How long a program may take to start.
const START: Duration = Duration::from_secs(5);

/// Waits until nobody holds the lock on a file that is ours to take. The lock of a descriptor that was closed is held on by a
/// program that was being started meanwhile, which has copies of all descriptors until it runs: an instant, mostly. Blocks.
pub(crate) fn wait_unlocked(path: &Path) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Dropping it unlocks, whoever has a copy.
            Ok(_) => return Ok(()),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) if begun.elapsed() < START => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let holder = "a process without our lock".to_owned();
                return Err(StoreError::Locked { path: path.to_owned(), holder });
            }
            Err((_, errno)) => {
                return Err(StoreError::Io { action: "lock", path: path.to_owned(), source: errno.into() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_lock_that_a_starting_program_holds_on_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        wait_unlocked(&path).unwrap();
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        // A copy of the descriptor in another process, as between fork and exec.
        let mut child = Command::new("sleep").arg("0.3").stdin(Stdio::from(file)).spawn().unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err(), "it is still held");
        wait_unlocked(&path).unwrap();
        File::open(&path).unwrap().try_lock().unwrap();
        child.wait().unwrap();
    }
}
