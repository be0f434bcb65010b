//! What makes an installed host itself: written into its mounted partitions before it first starts.
//!
//! Invariants: nothing of it comes from the image, and no two installations share any of it; files with secrets are
//! 0600 from the moment they exist; a symbolic link in the image never leads a write out of the partition.

use crate::error::StorageError;
use crate::sshkey::{self, HostKey};
use dayzero_model::install::{HostFile, PartitionRole, Personality};
use dayzero_model::secret::Secret;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where the agent's settings lie on an installed host: a `Personality` as JSON.
pub const AGENT_JSON: &str = "/etc/dayzero/agent.json";
/// The agent's private key, PEM.
pub const AGENT_KEY: &str = "/var/lib/dayzero/agent.key";
/// The agent's certificate, PEM.
pub const AGENT_CERTIFICATE: &str = "/var/lib/dayzero/agent.crt";
/// The site's CA certificate, PEM.
pub const SITE_CA: &str = "/var/lib/dayzero/ca.crt";

/// What the installed agent proves itself with.
#[derive(Clone)]
pub struct Credentials {
    /// Private key, PEM.
    pub key_pem: Secret<String>,
    /// Host certificate, PEM.
    pub certificate_pem: String,
    /// CA certificate, PEM.
    pub ca_pem: String,
}

/// Names and keys that are one installation's own.
pub struct Identity {
    /// systemd's machine id: 32 hex digits.
    pub machine_id: String,
    /// iSCSI initiator name.
    pub initiator: String,
    /// File system UUID of the root.
    pub root_uuid: Uuid,
    /// FAT volume id of the ESP.
    pub volume_id: u32,
    /// SSH host key.
    pub ssh: HostKey,
}

impl Identity {
    /// All new.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(personality: &Personality) -> Result<Self, StorageError> {
        let random = Uuid::new_v4().simple().to_string();
        Ok(Self {
            machine_id: Uuid::new_v4().simple().to_string(),
            initiator: initiator(personality, &random[..12]),
            root_uuid: Uuid::new_v4(),
            volume_id: Uuid::new_v4().as_fields().0,
            ssh: sshkey::generate(&format!("root@{}", personality.host))?,
        })
    }
}

/// An iSCSI name by the site's reversed domain (RFC 3720 section 3.2.6.3.1).
fn initiator(personality: &Personality, random: &str) -> String {
    let labels: Vec<&str> = personality.domain.split('.').filter(|label| !label.is_empty()).rev().collect();
    let authority = if labels.is_empty() { "internal.dayzero".to_owned() } else { labels.join(".") };
    let name = format!("iqn.2026-11.{}:{}.{random}", authority.to_lowercase(), personality.host);
    name.chars().take(223).collect()
}

/// One partition of a host, mounted.
pub struct Mounted<'a> {
    /// What it is.
    pub role: PartitionRole,
    /// Where it is mounted.
    pub at: &'a Path,
}

/// Writes the host's own files into one mounted partition: those of the manifest, and, on the root, keys, settings and
/// certificates.
///
/// # Errors
/// I/O, or a path that leads out of the partition.
pub fn personalise(
    mounted: &Mounted,
    files: &[HostFile],
    personality: &Personality,
    identity: &Identity,
    root_partition: &Uuid,
    credentials: &Credentials,
) -> Result<(), StorageError> {
    let values = [
        ("@HOSTNAME@", personality.host.to_string()),
        ("@FQDN@", fqdn(personality)),
        ("@MACHINE_ID@", identity.machine_id.clone()),
        ("@INITIATOR@", identity.initiator.clone()),
        ("@ROOT_PARTUUID@", root_partition.to_string()),
        ("@ROOT_UUID@", identity.root_uuid.to_string()),
    ];
    if mounted.role == PartitionRole::Root {
        root_files(mounted, personality, identity, credentials, &values)?;
    }
    for file in files.iter().filter(|file| file.partition == mounted.role) {
        let content =
            values.iter().fold(file.content.clone(), |text, (name, value)| text.replace(name, value));
        put(mounted, &file.path, file.mode, content.as_bytes())?;
    }
    Ok(())
}

fn fqdn(personality: &Personality) -> String {
    match personality.domain.as_str() {
        "" => personality.host.to_string(),
        domain => format!("{}.{domain}", personality.host),
    }
}

fn root_files(
    mounted: &Mounted,
    personality: &Personality,
    identity: &Identity,
    credentials: &Credentials,
    values: &[(&str, String)],
) -> Result<(), StorageError> {
    let json = serde_json::to_vec_pretty(personality).map_err(|e| StorageError::Manifest(e.to_string()))?;
    for directory in ["/etc/dayzero", "/etc/ssh", "/etc/iscsi", "/var/lib/dayzero"] {
        let path = mounted.at.join(&directory[1..]);
        std::fs::create_dir_all(&path).map_err(StorageError::io("making", &path))?;
    }
    let value =
        |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()).unwrap_or_default();
    let (host, name) = (value("@HOSTNAME@"), value("@FQDN@"));
    let hosts =
        format!("127.0.0.1 localhost\n127.0.1.1 {name} {host}\n::1 localhost ip6-localhost ip6-loopback\n");
    for (path, mode, content) in [
        ("/etc/hostname", 0o644, format!("{host}\n").as_bytes()),
        ("/etc/hosts", 0o644, hosts.as_bytes()),
        ("/etc/machine-id", 0o444, format!("{}\n", identity.machine_id).as_bytes()),
        (
            "/etc/iscsi/initiatorname.iscsi",
            0o600,
            format!("InitiatorName={}\n", identity.initiator).as_bytes(),
        ),
        ("/etc/ssh/ssh_host_ed25519_key", 0o600, identity.ssh.private.as_bytes()),
        ("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, identity.ssh.public.as_bytes()),
        (AGENT_JSON, 0o600, json.as_slice()),
        (AGENT_KEY, 0o600, credentials.key_pem.expose().as_bytes()),
        (AGENT_CERTIFICATE, 0o600, credentials.certificate_pem.as_bytes()),
        (SITE_CA, 0o600, credentials.ca_pem.as_bytes()),
    ] {
        put(mounted, path, mode, content)?;
    }
    Ok(())
}

/// Writes one file anew: what was there is removed, links are not followed, the directory must lie inside.
fn put(mounted: &Mounted, path: &str, mode: u32, content: &[u8]) -> Result<(), StorageError> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let base = std::fs::canonicalize(mounted.at).map_err(StorageError::io("opening", mounted.at))?;
    let wanted = base.join(directory.trim_start_matches('/'));
    let inside =
        std::fs::canonicalize(&wanted).map_err(StorageError::io("opening the directory", &wanted))?;
    if !inside.starts_with(&base) || name.is_empty() || name == ".." {
        let reason = format!("{path} leads out of the partition, to {}", inside.display());
        return Err(StorageError::Manifest(reason));
    }
    let target: PathBuf = inside.join(name);
    match std::fs::remove_file(&target) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::io("removing", &target)(e));
        }
        _ => {}
    }
    let failed = StorageError::io("writing", &target);
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode & 0o700).open(&target)?;
        file.write_all(content)?;
        match file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777)) {
            // FAT has none.
            Err(e) if mounted.role == PartitionRole::Esp => tracing::debug!(%e, "no permission bits"),
            other => other?,
        }
        file.sync_all()
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn run(at: &Path, role: PartitionRole) -> Result<Identity, StorageError> {
        let (manifest, _) = testing::image();
        let personality = testing::personality();
        let identity = Identity::new(&personality)?;
        let credentials = Credentials {
            key_pem: Secret::new("KEY".to_owned()),
            certificate_pem: "CERT".to_owned(),
            ca_pem: "CA".to_owned(),
        };
        let part = Uuid::from_u128(0x1234);
        let mounted = Mounted { role, at };
        personalise(&mounted, &manifest.host_files, &personality, &identity, &part, &credentials)?;
        Ok(identity)
    }

    #[test]
    fn the_root_gets_its_own_names_keys_and_settings() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        // As the image leaves it: an empty machine id, and a link that would lead elsewhere.
        std::fs::write(root.path().join("etc/machine-id"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/hostname")).unwrap();
        let identity = run(root.path(), PartitionRole::Root).unwrap();
        let read = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("etc/machine-id"), format!("{}\n", identity.machine_id));
        assert_eq!(read("etc/hostname"), "host1\n");
        assert!(read("etc/hosts").contains("127.0.1.1 host1.lab.example host1\n"));
        assert_eq!(read("etc/iscsi/initiatorname.iscsi"), format!("InitiatorName={}\n", identity.initiator));
        assert!(identity.initiator.starts_with("iqn.2026-11.example.lab:host1."));
        let settings: Personality = serde_json::from_str(&read("etc/dayzero/agent.json")).unwrap();
        assert_eq!(settings, testing::personality());
        for (path, mode) in [
            ("etc/ssh/ssh_host_ed25519_key", 0o600),
            ("etc/ssh/ssh_host_ed25519_key.pub", 0o644),
            ("var/lib/dayzero/agent.key", 0o600),
            ("var/lib/dayzero/agent.crt", 0o600),
            ("var/lib/dayzero/ca.crt", 0o600),
            ("etc/dayzero/agent.json", 0o600),
            ("etc/machine-id", 0o444),
        ] {
            let permissions = std::fs::metadata(root.path().join(path)).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{path}");
        }
        assert!(!root.path().join("dayzero").exists(), "the ESP's files do not go to the root");
    }

    #[test]
    fn the_esp_gets_the_manifests_file_with_the_values_in() {
        let esp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(esp.path().join("dayzero")).unwrap();
        let identity = run(esp.path(), PartitionRole::Esp).unwrap();
        let text = std::fs::read_to_string(esp.path().join("dayzero/grub.cfg")).unwrap();
        let part = "00000000-0000-0000-0000-000000001234";
        assert_eq!(text, format!("linux /dayzero/vmlinuz root=PARTUUID={part} # {}\n", identity.root_uuid));
        assert!(!esp.path().join("etc").exists());
    }

    #[test]
    fn a_directory_that_leads_out_is_refused() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), root.path().join("etc")).unwrap();
        assert!(run(root.path(), PartitionRole::Root).is_err());
        assert!(!outside.path().join("hostname").exists(), "nothing was written outside");
    }
}
