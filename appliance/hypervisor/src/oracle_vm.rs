//! Oracle VM: named by the document, but its tables have no column for it, so that no primary storage is accepted yet.

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::OracleVm,
    label: "Oracle VM",
    column: None,
    own_column: "OracleVM",
    install: Install::VendorInstaller,
    max_hosts_per_cluster: None,
    max_vms_per_host: Some(25),
    min_dom0_memory: None,
};
