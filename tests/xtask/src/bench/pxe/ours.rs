//! `dayzero serve` as it ships: its own process, default configuration, store, recorder and authentication on.

use super::net::Wire;
use super::process::{Groups, Server};
use crate::{paths, shell};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PLAN: &str = include_str!("site.yaml");
/// Any credential: there is no BMC on the bench's wires.
const SECRETS: &str = "factory:\n  user: bench\n  password: none-there\n";

/// Name of the large file in boot URLs, ours and the peers'.
pub const LARGE: &str = "boot/file/initrd.img";
/// A loader of 64 MiB, so that a transfer is long enough to be timed.
pub const LOADER: &str = "snponly.efi";
/// A loader of 1 MiB, as real ones are.
pub const SMALL: &str = "undionly.kpxe";

/// Files that all servers serve, made once a run.
pub struct Files {
    pub root: PathBuf,
}

impl Files {
    /// Random bytes: 1 GiB of HTTP, 64 MiB and 1 MiB of TFTP.
    pub fn new(work: &Path) -> Result<Self> {
        let root = work.join("files");
        fs::create_dir_all(root.join("boot/file"))?;
        for (name, mib) in [(LARGE, 1024), (LOADER, 64), (SMALL, 1)] {
            make(&root.join(name), mib << 20)?;
        }
        fs::write(root.join("boot/file/vmlinuz"), [0; 4096])?;
        fs::create_dir_all(root.join("host/chunks"))?;
        Ok(Self { root })
    }

    /// A file's bytes.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.root.join(name)).with_context(|| name.to_owned())
    }
}

fn make(path: &Path, bytes: u64) -> Result<()> {
    if fs::metadata(path).is_ok_and(|about| about.len() == bytes) {
        return Ok(());
    }
    let mut random = std::io::Read::take(fs::File::open("/dev/urandom")?, bytes);
    let mut file = fs::File::create(path).with_context(|| path.display().to_string())?;
    std::io::copy(&mut random, &mut file)?;
    file.sync_all()?;
    Ok(())
}

/// Starts it and gives it the bench's plan; back once TFTP and HTTP boot listen.
pub fn start(groups: &Groups, wire: &Wire, files: &Files, work: &Path) -> Result<Server> {
    let dir = work.join("ours");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("site.yaml"), PLAN)?;
    fs::write(dir.join("site.secrets.yaml"), SECRETS)?;
    fs::set_permissions(dir.join("site.secrets.yaml"), fs::Permissions::from_mode(0o600))?;
    let config = dir.join("serve.toml");
    let shown = |path: PathBuf| path.display().to_string();
    let text = format!(
        "data_dir = \"{}\"\nkey_file = \"{}\"\n[files]\nkernel = \"{}\"\ninitrd = \"{}\"\nhost_image = \"{}\"\nipxe = \"{}\"\n",
        shown(dir.join("data")),
        shown(dir.join("master.key")),
        shown(files.root.join("boot/file/vmlinuz")),
        shown(files.root.join(LARGE)),
        shown(files.root.join("host")),
        shown(files.root.clone()),
    );
    fs::write(&config, text)?;
    let args = ["serve".to_owned(), "--config".to_owned(), shown(config)];
    let log = dir.join("serve.log");
    let mut server =
        Server::start(groups, "ours", &wire.namespace, &paths::released("dayzero"), &args, &log)?;
    server.wait_until("`ready`", |server| server.said().lines().any(|line| line == "ready"))?;
    let mut apply = Command::new(paths::released("dayzero"));
    apply.args(["apply", "--yes"]).arg(dir.join("site.yaml"));
    apply.env("DAYZERO_SOCKET", dir.join("data/dayzero.sock"));
    let said = shell::ask(&mut apply)?;
    ensure!(said.code == Some(0), "dayzero apply: {}{}", said.stdout, said.stderr);
    server.wait_for_port(&wire.namespace, "udp", 69)?;
    server.wait_for_port(&wire.namespace, "tcp", 8080)?;
    Ok(server)
}
