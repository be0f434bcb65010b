//! VMware vSphere: ESXi by its own installer; high availability and balancing are its own (Native, DRS).

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::VSphere,
    label: "vSphere",
    column: Some("vSphere"),
    own_column: "vSphere",
    install: Install::VendorInstaller,
    max_hosts_per_cluster: Some(8),
    max_vms_per_host: Some(1024),
    min_dom0_memory: None,
};
