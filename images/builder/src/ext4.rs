//! ext4 file systems in plain files: made from a tree by `mke2fs -d`, changed by `debugfs`; no mount, no loop device.
//!
//! Invariants: the UUID and the hash seed of an image are constants, and its clock is [`crate::EPOCH`]: the installer
//! gives each host a UUID of its own (`dayzero_model::install::set_ext4_uuid`), which works because the checksums' seed
//! lies in the superblock. `debugfs` never tells by its status that a command failed: what was written is read back.

use crate::error::{self, Error, Result};
use crate::tool::Tool;
use std::path::Path;

/// The UUID of every image, until an installer changes it: of no host.
const UUID: &str = "da7ae000-0000-4000-8000-000000000000";

/// Makes a file system of `bytes` from `tree`, with a journal of `journal` MiB (0: none, for what is only read).
pub(crate) fn build(image: &Path, bytes: u64, journal: u32, label: &str, tree: &Path) -> Result<()> {
    let mut features = "metadata_csum,metadata_csum_seed,64bit,^orphan_file".to_owned();
    let mut options = Vec::new();
    if journal == 0 {
        features.push_str(",^has_journal");
    } else {
        options.extend(["-J".to_owned(), format!("size={journal}")]);
    }
    Tool::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-L", label, "-U", UUID, "-O", &features])
        .args(options)
        .arg("-E")
        .arg(format!("hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0"))
        .arg("-d")
        .arg(tree)
        .arg(image)
        .arg(format!("{}k", bytes / 1024))
        .run("making the root file system")
        .map(drop)
}

/// Copies an image with its holes.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    Tool::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .run("copying an image")
        .map(drop)
}

/// Writes a program (mode 0755, root's) into an image, and reads it back.
pub(crate) fn add_program(image: &Path, program: &Path, at: &str, scratch: &Path) -> Result<()> {
    let program_text = error::text(program)?;
    let script = format!(
        "write {program_text} {at}\nset_inode_field {at} mode 0100755\nset_inode_field {at} uid 0\nset_inode_field {at} gid 0\n"
    );
    Tool::new("debugfs")
        .args(["-w", "-f", "-"])
        .arg(image)
        .input(script)
        .run("writing the agent into the image")?;
    let back = scratch.join("read-back");
    let dump = format!("dump -p {at} {}", error::text(&back)?);
    Tool::new("debugfs").args(["-R", &dump]).arg(image).run("reading the agent back")?;
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&back).map_err(Error::io("cannot look at", &back))?.permissions().mode();
    if error::read(&back)? != error::read(program)? || mode & 0o7777 != 0o755 {
        return Err(Error::malformed(
            image,
            format!("'{at}' read back is not what was written: is the image full?"),
        ));
    }
    std::fs::remove_file(&back).map_err(Error::io("cannot remove", &back))
}

/// Fails unless the file system is consistent.
pub(crate) fn check(image: &Path) -> Result<()> {
    Tool::new("e2fsck").args(["-f", "-n"]).arg(image).run("checking the root file system").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_host_gets_its_own_uuid_and_the_file_system_stays_sound() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("usr/lib")).unwrap();
        std::fs::write(tree.join("usr/lib/a"), "a").unwrap();
        let image = directory.path().join("image");
        build(&image, 64 << 20, 4, "test", &tree).unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, vec![1; 300_000]).unwrap();
        add_program(&image, &program, "/usr/lib/program", directory.path()).unwrap();
        check(&image).unwrap();

        let file = std::fs::OpenOptions::new().read(true).write(true).open(&image).unwrap();
        let mut superblock = [0; 1024];
        file.read_exact_at(&mut superblock, 1024).unwrap();
        dayzero_model::install::set_ext4_uuid(&mut superblock, [0xab; 16]).unwrap();
        file.write_all_at(&superblock, 1024).unwrap();
        check(&image).unwrap();
        let shown = Tool::new("dumpe2fs").arg("-h").arg(&image).text("test").unwrap();
        assert!(shown.contains("abababab-abab-abab-abab-abababababab"), "{shown}");

        superblock[0x60] ^= 0xff;
        superblock[0x61] = 0;
        assert!(
            dayzero_model::install::set_ext4_uuid(&mut superblock, [1; 16]).unwrap_err().contains("seed")
        );
    }

    #[test]
    fn a_full_image_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        let image = directory.path().join("image");
        build(&image, 16 << 20, 4, "test", &tree).unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, vec![1; 20 << 20]).unwrap();
        assert!(add_program(&image, &program, "/program", directory.path()).is_err());
    }
}
