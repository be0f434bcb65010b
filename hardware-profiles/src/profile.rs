//! The shape of a profile file.

use dayzero_model::inventory::BootMode;
use dayzero_model::{Bytes, Name};
use serde::{Deserialize, Serialize};

/// What a model of server must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of this shape: 1.
    pub schema: u32,
    /// Its name; also the file's.
    pub name: Name,
    /// One sentence.
    pub about: String,
    /// Vendor, product, firmware interface.
    #[serde(default)]
    pub system: SystemRule,
    /// Processors.
    pub cpu: CpuRule,
    /// Memory.
    pub memory: MemoryRule,
    /// Disks, by role.
    #[serde(default)]
    pub disks: Vec<DiskRule>,
    /// NICs, by role.
    pub nics: Vec<NicRule>,
}

/// Vendor, product, firmware interface. Empty lists accept anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemRule {
    /// Accepted manufacturers (SMBIOS type 1).
    #[serde(default)]
    pub manufacturers: Vec<String>,
    /// Accepted products.
    #[serde(default)]
    pub products: Vec<String>,
    /// Accepted firmware interfaces.
    #[serde(default)]
    pub boot_modes: Vec<BootMode>,
    /// Accepted firmware versions.
    #[serde(default)]
    pub firmware_versions: Vec<String>,
}

/// A count within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cores {
    /// At least.
    pub min: u32,
    /// At most; none = no bound.
    #[serde(default)]
    pub max: Option<u32>,
}

/// Processors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuRule {
    /// Cores over all sockets.
    pub cores: Cores,
    /// Exact number of sockets.
    #[serde(default)]
    pub sockets: Option<u32>,
    /// Accepted model names; each is a part of the text that the kernel shows. Empty accepts any.
    #[serde(default)]
    pub models: Vec<String>,
    /// `svm` or `vmx` must be there.
    pub virtualization: bool,
}

/// Memory that the kernel sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRule {
    /// Nominal size.
    pub size: Bytes,
    /// How much less or more is still right.
    pub tolerance_percent: u32,
    /// Exact number of modules.
    #[serde(default)]
    pub dimms: Option<u32>,
}

/// Disks of one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRule {
    /// Role, such as `os`.
    pub role: Name,
    /// Exact number.
    pub count: u32,
    /// Nominal size of each.
    pub size: Bytes,
    /// How much less or more is still right.
    pub tolerance_percent: u32,
    /// Spinning, or not; none = either.
    #[serde(default)]
    pub rotational: Option<bool>,
    /// Bus, such as `nvme`; none = any.
    #[serde(default)]
    pub bus: Option<String>,
}

/// One NIC, known by its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicRule {
    /// Role that the plan uses, such as `pod-a`.
    pub role: Name,
    /// PCI address `dddd:bb:dd.f`, lower case.
    pub slot: String,
    /// Driver; none = any.
    #[serde(default)]
    pub driver: Option<String>,
    /// Least speed of the link, Mbit/s; none = any.
    #[serde(default)]
    pub min_speed_mbit: Option<u32>,
    /// The link must be up.
    #[serde(default)]
    pub link: bool,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("the hardware profile {path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No TOML, or not the shape of a profile; the text names line and key.
    #[error("the hardware profile {file} is wrong: {problem}")]
    Shape {
        /// The file.
        file: String,
        /// Line, key and what is wrong.
        problem: String,
    },
    /// A value that cannot be.
    #[error("the hardware profile {file}: {problem}")]
    Value {
        /// The file.
        file: String,
        /// What is wrong and what to write.
        problem: String,
    },
    /// No such profile.
    #[error("there is no hardware profile {name}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: Name,
        /// What there is.
        known: String,
    },
}

impl Profile {
    /// Reads a profile. `file` is its file name, which must be `NAME.toml`.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| ProfileError::Shape { file: file.to_owned(), problem: error.to_string() })?;
        match profile.problem(file) {
            Some(problem) => Err(ProfileError::Value { file: file.to_owned(), problem }),
            None => Ok(profile),
        }
    }

    fn problem(&self, file: &str) -> Option<String> {
        if self.schema != 1 {
            return Some(format!("schema {} is not known: write 1", self.schema));
        }
        if file != format!("{}.toml", self.name) {
            return Some(format!("its name is {}: the file must be {}.toml", self.name, self.name));
        }
        let tolerances = self.disks.iter().map(|disk| disk.tolerance_percent);
        if let Some(much) = tolerances.chain([self.memory.tolerance_percent]).find(|percent| *percent > 50) {
            return Some(format!("a tolerance of {much} % accepts anything: write at most 50"));
        }
        if self.cpu.cores.max.is_some_and(|max| max < self.cpu.cores.min) {
            return Some(format!("cpu.cores: at least {} and at most less", self.cpu.cores.min));
        }
        for (i, nic) in self.nics.iter().enumerate() {
            if !is_pci_address(&nic.slot) {
                let slot = &nic.slot;
                return Some(format!("NIC {}: '{slot}' is no PCI address such as 0000:00:10.0", nic.role));
            }
            if self.nics[..i].iter().any(|other| other.role == nic.role || other.slot == nic.slot) {
                return Some(format!("NIC {} at {}: this role or slot stands twice", nic.role, nic.slot));
            }
        }
        for (i, disk) in self.disks.iter().enumerate() {
            if self.disks[..i].iter().any(|other| other.role == disk.role) {
                return Some(format!("disk role {} stands twice", disk.role));
            }
        }
        None
    }
}

fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = text.split([':', '.']);
    let shape = [(4, ':'), (2, ':'), (2, '.'), (1, ' ')];
    shape.iter().all(|(length, _)| parts.next().is_some_and(|part| hex(part, *length)))
        && parts.next().is_none()
        && text.len() == 12
        && text.as_bytes()[10] == b'.'
}
