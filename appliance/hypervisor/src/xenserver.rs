//! XenServer and XCP-ng: installed by the vendor's installer; the control domain wants at least 2940 MiB (CTX126531).

use crate::{Facts, Install};
use dayzero_model::MebiBytes;
use dayzero_model::site::Hypervisor;

/// Least memory of the control domain (the document's best practice).
pub const DOM0_MEMORY: MebiBytes = MebiBytes(2940);

/// What is true of it whatever the site.
pub const FACTS: Facts = Facts {
    hypervisor: Hypervisor::XenServer,
    label: "XenServer",
    column: Some("XenServer"),
    own_column: "XenServer",
    install: Install::VendorInstaller,
    max_hosts_per_cluster: Some(8),
    max_vms_per_host: Some(1000),
    min_dom0_memory: Some(DOM0_MEMORY),
};
