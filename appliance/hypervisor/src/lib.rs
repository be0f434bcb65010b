//! What each hypervisor supports, needs and is told: the deployment document's matrices as data, one file a
//! hypervisor, and the definition of a VM. Pure: no I/O.
//!
//! Where do I add a hypervisor: one file like `kvm.rs`, one row in [`facts`], its rows in `data/`.

mod answer;
pub mod bare_metal;
pub mod hyper_v;
pub mod kvm;
pub mod lxc;
pub mod matrix;
pub mod oracle_vm;
pub mod vsphere;
pub mod xen;
pub mod xenserver;

pub use answer::Answer;
pub use matrix::{Cell, Source, Verdict, feature, primary_storage};

use dayzero_model::MebiBytes;
use dayzero_model::site::Hypervisor;

/// How the hypervisor comes onto a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Install {
    /// Our own disk image.
    Image,
    /// The vendor's installer with an answer file, over media that the user supplies.
    VendorInstaller,
}

/// What is true of a hypervisor whatever the site.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Facts {
    /// Which.
    pub hypervisor: Hypervisor,
    /// Its name for people.
    pub label: &'static str,
    /// Its column in the document's tables; `None` = the document has none.
    pub column: Option<&'static str>,
    /// Its name in `own-rows.csv`.
    pub own_column: &'static str,
    /// How it is installed.
    pub install: Install,
    /// Most hosts in a cluster by the anchor's install guide, where it says.
    pub max_hosts_per_cluster: Option<u32>,
    /// Most VMs on a host by the anchor's table of capabilities, where it says.
    pub max_vms_per_host: Option<u32>,
    /// Least memory of the control domain, where it has one that is set.
    pub min_dom0_memory: Option<MebiBytes>,
}

/// All hypervisors.
pub const ALL: [Hypervisor; 8] = [
    Hypervisor::Kvm,
    Hypervisor::Xen,
    Hypervisor::XenServer,
    Hypervisor::VSphere,
    Hypervisor::Lxc,
    Hypervisor::HyperV,
    Hypervisor::OracleVm,
    Hypervisor::BareMetal,
];

/// The facts of one hypervisor.
pub fn facts(hypervisor: Hypervisor) -> &'static Facts {
    match hypervisor {
        Hypervisor::Kvm => &kvm::FACTS,
        Hypervisor::Xen => &xen::FACTS,
        Hypervisor::XenServer => &xenserver::FACTS,
        Hypervisor::VSphere => &vsphere::FACTS,
        Hypervisor::Lxc => &lxc::FACTS,
        Hypervisor::HyperV => &hyper_v::FACTS,
        Hypervisor::OracleVm => &oracle_vm::FACTS,
        Hypervisor::BareMetal => &bare_metal::FACTS,
    }
}
