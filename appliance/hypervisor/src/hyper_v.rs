//! Microsoft Hyper-V: Windows by its own setup; primary storage on SMB or local disks alone.

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::HyperV,
    label: "Hyper-V",
    column: Some("HyperV"),
    own_column: "HyperV",
    install: Install::VendorInstaller,
    max_hosts_per_cluster: None,
    max_vms_per_host: None,
    min_dom0_memory: None,
};
