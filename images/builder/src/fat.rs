//! FAT file systems in plain files, by mtools: no mount, no loop device.

use crate::error::{Error, Result};
use crate::tool::Tool;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What goes into the file system, in order; parents must come first.
pub(crate) enum Item<'a> {
    Directory(&'a str),
    File(&'a str, &'a Path),
}

/// The least size of [`build`]: FAT32 has at least 65525 clusters, here of 4 KiB, since GRUB reads cluster by cluster.
pub(crate) const LEAST: u64 = 260 << 20;

/// Makes a FAT32 file system of `bytes` in a new file.
pub(crate) fn build(path: &Path, bytes: u64, label: &str, items: &[Item]) -> Result<()> {
    let file = std::fs::File::create(path).map_err(Error::io("cannot make", path))?;
    file.set_len(bytes).map_err(Error::io("cannot make", path))?;
    drop(file);
    Tool::new("mkfs.vfat")
        .args(["--invariant", "-s", "8", "-F", "32", "-n", label])
        .arg(path)
        .run("making a FAT file system")?;
    for item in items {
        match item {
            Item::Directory(name) => {
                Tool::new("mmd")
                    .arg("-i")
                    .arg(path)
                    .arg(format!("::{name}"))
                    .run("making a directory on FAT")?;
            }
            Item::File(name, from) => {
                let source = std::fs::File::open(from).map_err(Error::io("cannot open", from))?;
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(crate::EPOCH);
                source.set_modified(time).map_err(Error::io("cannot set the time of", from))?;
                let target = format!("::{name}");
                Tool::new("mcopy")
                    .arg("-m")
                    .arg("-i")
                    .arg(path)
                    .arg(from)
                    .arg(target)
                    .run("copying to FAT")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("kernel");
        std::fs::write(&source, vec![7; 100_000]).unwrap();
        let image = |name: &str| {
            let path = directory.path().join(name);
            let items = [Item::Directory("/dayzero"), Item::File("/dayzero/vmlinuz", &source)];
            build(&path, LEAST, "TEST", &items).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = image("a");
        let wait = std::time::Instant::now();
        // FAT counts time in steps of two seconds: a copy of the clock would show after one step.
        while wait.elapsed() < Duration::from_millis(2100) {
            std::thread::yield_now();
        }
        assert!(first == image("b"), "the image holds the time of its making");
    }
}
