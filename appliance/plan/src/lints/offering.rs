//! `DZ060`: an offering can be placed and stored somewhere.

use super::{Lint, Plan, listed};
use crate::diagnostic::Finding;
use dayzero_model::Bytes;

pub(super) const LINT: Lint = Lint {
    code: "DZ060",
    name: "offering",
    about: "an offering's disk fits a primary storage, and its memory is enough to boot",
    check,
};

/// Less does not boot a Linux kernel with an initramfs.
const LEAST_MEMORY_MIB: u64 = 64;
/// A volume is made of whole extents of this size.
const EXTENT: Bytes = Bytes(4 << 20);

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    let largest = plan.site.primary_storage.iter().max_by_key(|storage| storage.size);
    for (offering, path) in listed(&plan.site.offerings, "offerings") {
        if let Some(storage) = largest.filter(|storage| offering.disk > storage.size) {
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "offering {}: its disk of {} is larger than every primary storage (largest: {}, {})",
                        offering.name, offering.disk, storage.name, storage.size
                    ),
                )
                .help("no VM of it could ever be made: lower `disk`")
                .at(&path.key("disk"), "fits nowhere"),
            );
        }
        if offering.disk < EXTENT {
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "offering {}: its disk of {} is below one extent of {EXTENT}",
                        offering.name, offering.disk
                    ),
                )
                .help("write a size with a unit, such as 64 MiB")
                .at(&path.key("disk"), "too small"),
            );
        }
        if offering.memory_mib.0 < LEAST_MEMORY_MIB {
            out.push(
                Finding::warning(
                    LINT.code,
                    format!("offering {}: {} hardly boot a kernel", offering.name, offering.memory_mib),
                )
                .help(format!("write {LEAST_MEMORY_MIB} or more"))
                .at(&path.key("memory_mib"), "little"),
            );
        }
    }
    if let (Some((template, path)), true) =
        (listed(&plan.site.templates, "templates").next(), plan.site.offerings.is_empty())
    {
        out.push(
            Finding::warning(
                LINT.code,
                format!("there is template {}, but no offering: no VM can be asked for", template.name),
            )
            .help("add a size under `offerings`")
            .at(&path.key("name"), ""),
        );
    }
}
