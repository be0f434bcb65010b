//! What the labs find in their environment: one row a variable, with how it is made.

use crate::build::Images;
use crate::{paths, shell};
use anyhow::{Context, Result, ensure};
use dayzero_model::Sha256;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One variable.
struct Need {
    variable: &'static str,
    /// Makes it, or finds it in the cache.
    make: fn(&Images) -> Result<PathBuf>,
}

const NEEDS: &[Need] = &[
    // Directory of an unpacked Debian kernel package, indexed by depmod: boot/vmlinuz-…, lib/modules/….
    Need { variable: "DAYZERO_TEST_KERNEL", make: kernel },
    // Initial RAM disk of the discovery image.
    Need { variable: "DAYZERO_TEST_DISCOVERY", make: |images| Ok(images.initrd.clone()) },
    // virt-firmware's editor of OVMF's variables.
    Need { variable: "DAYZERO_VIRT_FW_VARS", make: |_| program("virt-fw-vars") },
    // Directory of the KVM host image: manifest.json and chunks/.
    Need { variable: "DAYZERO_HOST_IMAGE", make: |images| Ok(images.host.clone()) },
    // Directory of Debian 13's iPXE: undionly.kpxe, snponly.efi, ipxe-arm64.efi.
    Need { variable: "DAYZERO_IPXE", make: |images| Ok(images.ipxe.clone()) },
    // sushy-tools' Redfish service.
    Need { variable: "DAYZERO_SUSHY_EMULATOR", make: |_| program("sushy-emulator") },
    // DMTF's validator of Redfish services.
    Need { variable: "DAYZERO_REDFISH_VALIDATOR", make: |_| program("rf_service_validator") },
    // Directory of DMTF's schemas (CSDL), flat, for that validator.
    Need { variable: "DAYZERO_REDFISH_SCHEMAS", make: |_| schemas() },
];

/// All rows, made.
pub fn make(images: &Images) -> Result<Vec<(&'static str, OsString)>> {
    let row = |need: &Need| {
        let path = (need.make)(images).with_context(|| format!("making {}", need.variable))?;
        ensure!(path.exists(), "{}: {} is not there", need.variable, path.display());
        Ok((need.variable, path.into_os_string()))
    };
    NEEDS.iter().map(row).collect()
}

fn kernel(images: &Images) -> Result<PathBuf> {
    let root = images.vmlinuz.ancestors().nth(2).context("the kernel lies in boot/ of its package")?;
    Ok(root.to_owned())
}

const REQUIREMENTS: &str = include_str!("requirements.txt");

fn program(name: &str) -> Result<PathBuf> {
    let python = shell::read(Command::new("/usr/bin/python3").arg("--version"))?;
    let venv = entry("venv", &format!("{python}{REQUIREMENTS}"), |dir| {
        println!("installing the labs' Python packages into {}", dir.display());
        shell::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(dir))?;
        let file = dir.join("requirements.txt");
        fs::write(&file, REQUIREMENTS)?;
        let mut pip = Command::new(dir.join("bin/pip"));
        shell::run(pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(file))
    })?;
    Ok(venv.join("bin").join(name))
}

/// DSP8010's CSDL files, in the tree as an archive (its licence is inside).
fn schemas() -> Result<PathBuf> {
    let archive = paths::root().join("appliance/rehearsal/schemas/redfish-csdl.tar.zst");
    let bytes = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    entry("redfish-csdl", &Sha256::of(&bytes).to_string(), |dir| {
        fs::create_dir_all(dir)?;
        let mut tar = Command::new("tar");
        shell::run(tar.args(["--zstd", "--strip-components=1", "-xf"]).arg(&archive).arg("-C").arg(dir))
    })
}

/// A directory of the cache under a hash of its inputs, with a mark when it is complete: a venv holds its own path, so it
/// cannot be made elsewhere and renamed.
fn entry(kind: &str, inputs: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let key = Sha256::of(inputs.as_bytes()).to_string();
    let dir = paths::cache().join("labs").join(format!("{kind}-{}", &key[..20]));
    let mark = dir.with_extension("complete");
    if !mark.exists() {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        make(&dir)?;
        fs::write(&mark, inputs)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// `DAYZERO_…` names that a source's text reads from its environment.
    fn read_in(text: &str) -> impl Iterator<Item = String> {
        text.split("\"DAYZERO_").skip(1).filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_')?;
            (rest[end..].starts_with('"')).then(|| format!("DAYZERO_{}", &rest[..end]))
        })
    }

    #[test]
    fn names_are_found_in_a_text() {
        let text = r#"var("DAYZERO_A_B"); expect("DAYZERO_C: see"); "DAYZERO_D""#;
        assert_eq!(read_in(text).collect::<Vec<_>>(), ["DAYZERO_A_B", "DAYZERO_D"]);
    }

    /// A lab that reads a variable which no row makes would fail on every machine but its author's.
    #[test]
    fn each_variable_that_a_lab_reads_has_a_row_and_each_row_a_reader() {
        let listed = shell::read(Command::new("git").current_dir(paths::root()).args(["ls-files", "*.rs"]));
        let mut read = BTreeSet::new();
        for file in listed.unwrap().lines().filter(|file| !file.starts_with("tests/xtask/")) {
            let text = fs::read_to_string(paths::root().join(file)).unwrap_or_default();
            if text.contains("#[ignore") || file.starts_with("tests/tests/") || file.contains("/tests/lab/") {
                read.extend(read_in(&text));
            }
        }
        // Where a developer lets labs keep what real clients sent, as seeds; and a test's word to its own second process.
        read.remove("DAYZERO_SEEDS");
        read.remove("DAYZERO_TEST_LAB");
        let rows: BTreeSet<String> = NEEDS.iter().map(|need| need.variable.to_owned()).collect();
        assert_eq!(read, rows, "left: read by labs; right: rows of NEEDS");
    }
}
