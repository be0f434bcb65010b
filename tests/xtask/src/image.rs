//! `cargo xtask image`: the appliance's disk image, and a start of it by both firmwares.

pub mod screen;
pub mod start;

use crate::{build, paths, preflight, shell};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Builds it, puts a copy where it is wanted, and says what to do with it.
pub fn run(output: Option<PathBuf>, check: bool) -> Result<ExitCode> {
    preflight::run()?;
    let built = build::appliance()?;
    if check {
        start::check(&built)?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = output.unwrap_or_else(|| paths::target().join("dayzero-appliance.raw"));
    copy(&built.disk, &file)?;
    let file = file.canonicalize()?;
    print!(
        "{}",
        told(&file, built.bytes, std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file)?) * 512)
    );
    Ok(ExitCode::SUCCESS)
}

/// A copy with its holes.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    shell::run(Command::new("cp").args(["--sparse=always", "--reflink=auto", "--force"]).arg(from).arg(to))
}

/// What a person does with it.
fn told(file: &Path, bytes: u64, used: u64) -> String {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let shown = file.display();
    format!(
        "The appliance's disk image: {shown}
{:.1} GiB, of which {:.1} GiB are not empty. It holds no key, no address and no password.

Write it to a disk or a USB stick (what is on that is lost; a larger disk gives its rest to the data partition):
  dd if={shown} of=/dev/DISK bs=4M oflag=direct status=progress

Addresses, where there is no DHCP: write dayzero/network.conf on its EFI partition, or into the file before you copy it:
  mcopy -i {shown}@@2M network.conf ::/dayzero/

Or start a copy of it in QEMU (the console is then at https://127.0.0.1:8443/; for UEFI add -bios /usr/share/ovmf/OVMF.fd,
where hardware virtualisation works add -accel kvm):
  qemu-system-x86_64 -machine q35 -cpu max -m 2048 -nographic -drive file={shown},format=raw,if=virtio \\
    -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8443-:8443

Its screen and its serial console show address, certificate fingerprint and claim code. Then, from any machine:
  dayzero login https://ADDRESS:8443 --fingerprint FINGERPRINT --claim
",
        gib(bytes),
        gib(used)
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_person_is_told_what_to_do_with_it() {
        insta::assert_snapshot!(super::told("/target/dayzero-appliance.raw".as_ref(), 4 << 30, 1 << 30));
    }
}
