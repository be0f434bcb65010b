//! Linux containers under libvirt, on our own image; the document leaves much of it unknown.

use crate::{Facts, Install};
use dayzero_model::site::Hypervisor;

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::Lxc,
    label: "LXC",
    column: Some("LXC"),
    own_column: "LXC",
    install: Install::Image,
    max_hosts_per_cluster: None,
    max_vms_per_host: None,
    min_dom0_memory: None,
};
