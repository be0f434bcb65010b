//! `DZ043`: a primary storage is at most 6 TB, that is 6 × 10^12 bytes (the document's best practice).

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use dayzero_model::Bytes;
use dayzero_model::site::StorageKind;

pub(super) const LINT: Lint = Lint {
    code: "DZ043",
    name: "lun-size",
    about: "a LUN or mount of primary storage is at most 6 TB (6 × 10^12 bytes)",
    check,
};

/// 6 TB.
const MOST: Bytes = Bytes(6_000_000_000_000);
/// Less than this holds no volume group and no volume.
const LEAST: Bytes = Bytes(64 << 20);

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (storage, path) in plan.storages() {
        if storage.size > MOST && storage.kind != StorageKind::Local {
            out.push(
                Finding::error(
                    LINT.code,
                    format!(
                        "primary storage {} is {}, {} bytes; the limit is {MOST}, {} bytes",
                        storage.name, storage.size, storage.size.0, MOST.0
                    ),
                )
                .help(format!(
                    "make {} smaller ones of it: a cluster may have several",
                    storage.size.0.div_ceil(MOST.0)
                ))
                .at(&path.key("size"), format!("{} B above the limit", storage.size.0 - MOST.0)),
            );
        }
        if storage.size < LEAST {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("primary storage {} is {}, {} bytes", storage.name, storage.size, storage.size.0),
                )
                .help("write its size with a unit, such as 4 GiB")
                .at(&path.key("size"), "too small for any volume"),
            );
        }
    }
}
