//! No hypervisor: the tenant has the whole host; the feature table alone speaks of it.

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::BareMetal,
    label: "bare metal",
    column: Some("BareMetal"),
    own_column: "BareMetal",
    install: Install::Image,
    max_hosts_per_cluster: None,
    max_vms_per_host: None,
    min_dom0_memory: None,
};
