//! The configuration of `dayzero serve`: what the plan does not say, since it is about this machine. TOML, strict.
//! `appliance/examples/serve.toml` explains every key; a test keeps it true.

use crate::failure::Failure;
use dayzero_control::{ControlConfig, Images, Ports, Puller};
use dayzero_trust::KeySource;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Largest configuration file, bytes.
const MOST: u64 = 1 << 20;

/// `serve.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServeConfig {
    /// Data directory: store and socket.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// File of the master key, outside the data directory; made at the first start.
    #[serde(default = "key_file")]
    pub key_file: PathBuf,
    /// The operators' listener.
    #[serde(default)]
    pub operators: Operators,
    /// What hosts boot and install.
    #[serde(default)]
    pub files: Files,
    /// Who pulls paths in a proof.
    #[serde(default)]
    pub puller: PullerConfig,
}

/// The operators' listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operators {
    /// Address and TCP port of REST and console.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// More names and addresses that operators use for it, for its certificate.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What hosts boot and install.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    /// Kernel of the discovery image.
    #[serde(default = "kernel")]
    pub kernel: PathBuf,
    /// Its initramfs.
    #[serde(default = "initrd")]
    pub initrd: PathBuf,
    /// Directory of the KVM host image.
    #[serde(default = "host_image")]
    pub host_image: PathBuf,
    /// Directory with `undionly.kpxe` and `snponly.efi`, served by TFTP; arm64 boots where it has `ipxe-arm64.efi` too.
    #[serde(default = "ipxe")]
    pub ipxe: PathBuf,
    /// Directory with `uki.efi`, `shimx64.efi` and `grubx64.efi`, for hosts that enforce Secure Boot.
    #[serde(default)]
    pub secure: Option<PathBuf>,
}

/// Who pulls paths in a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PullerConfig {
    /// A person, asked on the to-do list.
    #[default]
    Person,
    /// The virtual rack's daemon.
    Lab {
        /// Its socket.
        socket: PathBuf,
    },
}

fn data_dir() -> PathBuf {
    PathBuf::from("/var/lib/dayzero")
}

fn key_file() -> PathBuf {
    PathBuf::from("/etc/dayzero/master.key")
}

fn listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8443))
}

fn kernel() -> PathBuf {
    PathBuf::from("/usr/share/dayzero/discovery/vmlinuz")
}

fn initrd() -> PathBuf {
    PathBuf::from("/usr/share/dayzero/discovery/initrd.img")
}

fn host_image() -> PathBuf {
    PathBuf::from("/usr/share/dayzero/kvm-debian12")
}

fn ipxe() -> PathBuf {
    PathBuf::from("/usr/lib/ipxe")
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            data_dir: data_dir(),
            key_file: key_file(),
            operators: Operators::default(),
            files: Files::default(),
            puller: PullerConfig::default(),
        }
    }
}

impl Default for Operators {
    fn default() -> Self {
        Self { listen: listen(), names: Vec::new() }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self { kernel: kernel(), initrd: initrd(), host_image: host_image(), ipxe: ipxe(), secure: None }
    }
}

/// Reads the configuration. What is wrong is the user's fault, with its place.
pub(crate) fn load(file: &Path) -> Result<ServeConfig, Failure> {
    let shown = file.display();
    let unreadable =
        |error: std::io::Error| Failure::user(format!("the configuration {shown} cannot be read: {error}"));
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > MOST {
        return Err(Failure::user(format!("the configuration {shown} is larger than {} MiB", MOST >> 20)));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    parse(&text).map_err(|error| {
        Failure::user(format!("{shown}: {}; see appliance/examples/serve.toml", error.to_string().trim_end()))
    })
}

fn parse(text: &str) -> Result<ServeConfig, toml::de::Error> {
    toml::from_str(text)
}

impl ServeConfig {
    /// What control needs of it.
    pub(crate) fn control(&self) -> ControlConfig {
        let files = &self.files;
        ControlConfig {
            data: self.data_dir.clone(),
            master_key: KeySource::File(self.key_file.clone()),
            images: Images {
                kernel: files.kernel.clone(),
                initrd: files.initrd.clone(),
                ipxe: files.ipxe.clone(),
                host: files.host_image.clone(),
                secure: files.secure.clone(),
            },
            puller: match &self.puller {
                PullerConfig::Person => Puller::Person,
                PullerConfig::Lab { socket } => Puller::Lab(socket.clone()),
            },
            ports: Ports::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let example = include_str!("../examples/serve.toml");
        let empty = parse("").unwrap();
        assert_eq!(parse(example).unwrap(), empty, "the example as it stands changes nothing");
        assert_eq!(ServeConfig::default(), empty, "what commands without a configuration go by");
        let uncommented: Vec<&str> =
            example.lines().filter_map(|line| line.strip_prefix("#! ").or(Some(line))).collect();
        let full = parse(&uncommented.join("\n")).unwrap();
        assert_eq!(full.puller, PullerConfig::Lab { socket: "/var/tmp/dayzero-demo/rack/lab.sock".into() });
        assert_eq!(full.operators.names, ["dayzero.example"]);
        for key in [
            "data_dir",
            "key_file",
            "listen",
            "names",
            "kernel",
            "initrd",
            "host_image",
            "ipxe",
            "secure",
            "kind",
            "socket",
        ] {
            assert!(example.contains(&format!("{key} = ")), "the example does not show {key}");
        }
    }

    #[test]
    fn the_appliance_image_s_own_configuration_is_one() {
        let text = include_str!("../../images/builder/assets/appliance/serve.toml");
        let config = parse(text).unwrap();
        assert_eq!(config.operators.listen, "0.0.0.0:8443".parse().unwrap());
        assert!(config.key_file.starts_with("/esp") && config.data_dir.starts_with("/data"));
        assert_eq!(config.files.host_image, Path::new("/files/host"));
        assert_eq!(config.puller, PullerConfig::Person);
    }

    #[test]
    fn faults_name_their_place() {
        let error = parse("data_dir = \"/x\"\n[operators]\nlisten = \"8443\"\n").unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        let error = parse("datadir = \"/x\"\n").unwrap_err().to_string();
        assert!(error.contains("unknown field `datadir`"), "{error}");
        assert!(parse("[puller]\nkind = \"robot\"\n").is_err());
    }
}
