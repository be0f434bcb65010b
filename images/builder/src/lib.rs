//! Builds what servers boot: Debian's kernel, the discovery image, the hypervisor hosts' images and a small guest.
//!
//! Invariants: every result lies in a cache outside the checkout, under a hash of all its inputs, complete or not at
//! all; nothing of a site, no key, no identity and no secret is in an image; no loop device, FUSE, KVM or mount of the
//! building machine is used. It needs root (mmdebstrap) and does not build the agent: the caller gives its binary.

mod agent;
mod appliance;
mod apt;
mod assets;
mod cache;
mod chunks;
mod cpio;
mod debootstrap;
mod discovery;
mod disk;
mod elf;
mod error;
mod ext4;
mod fat;
mod grub;
mod host;
mod ipxe;
mod kernel;
mod modules;
mod pe;
mod secure;
mod tiny;
mod tool;
mod trial;

pub use appliance::{Appliance, Parts, build_appliance, put_on_esp};
pub use apt::refresh_packages;
pub use cache::{Cache, Progress};
pub use chunks::{chunk_path, read_chunk};
pub use discovery::{Discovery, Packing, build_discovery};
pub use error::{Error, Result};
pub use host::{HostImage, build_host, read_host};
pub use ipxe::{Ipxe, ipxe_loaders};
pub use kernel::{Flavour, Kernel, build_kernel};
pub use secure::{SECURE_CMDLINE, SecureLoaders, Uki, build_uki, put_secure_files, secure_loaders};
pub use tiny::{Template, build_template_tiny};
pub use tool::needed_packages;
pub use trial::write_trial_disk;

/// The time that every file of an image carries, in seconds since 1970 (2024-01-01): nothing in an image tells when it was built.
pub(crate) const EPOCH: u64 = 1_704_067_200;
