//! Xen under libvirt: on our own image, dom0 a Debian. The document has no column for it; see `data/own-rows.csv`.

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::Xen,
    label: "Xen",
    column: None,
    own_column: "Xen",
    install: Install::Image,
    max_hosts_per_cluster: None,
    max_vms_per_host: None,
    min_dom0_memory: None,
};
