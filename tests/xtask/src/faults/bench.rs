//! What a fault's hooks work with: the commands a person has, the plan's files, the hosts' disks as they lie in the rack,
//! and a copy of the host image that may be damaged.

use crate::build::Images;
use crate::demo::client::Client;
use crate::paths;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Both hosts of `lab.yaml`.
pub const HOSTS: [&str; 2] = ["host1", "host2"];

pub struct Bench {
    pub client: Client,
    /// The plan as it should be.
    pub plan: PathBuf,
    /// The plan that is applied first.
    pub first_plan: PathBuf,
    /// The host image that the control plane serves.
    pub image: PathBuf,
    /// The damaged chunk, and where its sound content is kept.
    pub damaged: Option<(PathBuf, PathBuf)>,
    /// Hosts that are held still.
    pub held: Vec<&'static str>,
}

impl Bench {
    pub fn new(plan: &Path, images: &Images) -> Self {
        Self {
            client: Client,
            plan: plan.to_owned(),
            first_plan: plan.to_owned(),
            image: images.host.clone(),
            damaged: None,
            held: Vec::new(),
        }
    }

    /// A command that must succeed.
    pub fn must(&self, args: &[&str]) -> Result<String> {
        let said = self.client.call(args)?;
        ensure!(
            said.code == Some(0),
            "dayzero {}: exit code {:?}: {}{}",
            args.join(" "),
            said.code,
            said.stdout,
            said.stderr
        );
        Ok(said.stdout)
    }

    /// A command that must be refused; both outputs.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        let said = self.client.call(args)?;
        let words = format!("{}{}", said.stdout, said.stderr);
        ensure!(said.code != Some(0), "dayzero {} was accepted: {words}", args.join(" "));
        Ok(words)
    }

    pub fn apply(&self, plan: &Path) -> Result<()> {
        self.must(&["apply", &plan.to_string_lossy(), "--yes"]).map(drop)
    }

    /// Whether the rack shows a machine's power on.
    pub fn is_on(&self, host: &str) -> Result<bool> {
        let status: Value = serde_json::from_str(&self.client.lab(&["status", "-o", "json"])?)?;
        let hosts = status["hosts"].as_array().context("the rack shows no hosts")?;
        let host = hosts.iter().find(|shown| shown["name"] == host);
        Ok(host.context("the rack does not show the host")?["power"] == "on")
    }

    /// The host's disk.
    pub fn disk(&self, host: &str) -> PathBuf {
        paths::demo().join("rack/m").join(host).join("disk.raw")
    }
}

/// The host image in files of its own (linked, not copied, where that can be), so that a chunk of it can be damaged.
pub fn own_image(images: Images) -> Result<Images> {
    let own = paths::demo().join("image");
    link_tree(&images.host, &own).with_context(|| format!("copying the host image to {}", own.display()))?;
    Ok(Images { host: own, ..images })
}

fn link_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_tree(&source, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_has_all_files_and_replacing_one_leaves_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("chunks/ab")).unwrap();
        fs::write(from.join("chunks/ab/abcd"), "sound").unwrap();
        link_tree(&from, &to).unwrap();
        let copy = to.join("chunks/ab/abcd");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "sound");
        fs::remove_file(&copy).unwrap();
        fs::write(&copy, "other").unwrap();
        assert_eq!(fs::read_to_string(from.join("chunks/ab/abcd")).unwrap(), "sound");
    }
}
