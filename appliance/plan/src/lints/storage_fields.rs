//! `DZ044`: a primary storage says what its kind needs, and nothing else.

use super::{Lint, Plan};
use crate::diagnostic::Finding;
use dayzero_model::site::{PrimaryStorage, StorageKind};

pub(super) const LINT: Lint = Lint {
    code: "DZ044",
    name: "storage-fields",
    about: "a primary storage has the keys that its kind needs, and no others",
    check,
};

fn check(plan: &Plan<'_>, out: &mut Vec<Finding>) {
    for (storage, path) in plan.storages() {
        let kind = dayzero_hypervisor::matrix::plan_word(storage.kind);
        for (key, given, wanted) in keys(storage) {
            let (problem, help) = match (given, wanted) {
                (false, Some(true)) => (format!("needs `{key}`"), format!("add `{key}`: {}", about(key))),
                (true, Some(false)) => {
                    (format!("has `{key}`, which nothing reads"), format!("remove `{key}`"))
                }
                _ => continue,
            };
            let place = if given { path.key(key) } else { path.key("kind") };
            out.push(
                Finding::error(
                    LINT.code,
                    format!("primary storage {} of kind {kind} {problem}", storage.name),
                )
                .help(help)
                .at(&place, ""),
            );
        }
        if let Some(target) = storage
            .target
            .as_ref()
            .filter(|target| !["iqn.", "eui.", "naa."].iter().any(|p| target.starts_with(p)))
        {
            out.push(
                Finding::error(
                    LINT.code,
                    format!("primary storage {}: `{target}` is no iSCSI name", storage.name),
                )
                .help(
                    "it begins with iqn., eui. or naa. (RFC 7143), such as iqn.2026-11.example.dayzero:lun0",
                )
                .at(&path.key("target"), ""),
            );
        }
    }
}

/// `(key, is given, Some(needed or refused))`.
fn keys(storage: &PrimaryStorage) -> [(&'static str, bool, Option<bool>); 6] {
    let (iscsi, fibre) = (storage.kind == StorageKind::Iscsi, storage.kind == StorageKind::FibreChannel);
    let (nfs, smb) = (storage.kind == StorageKind::Nfs, storage.kind == StorageKind::Smb);
    [
        ("target", storage.target.is_some(), Some(iscsi)),
        ("wwn", storage.wwn.is_some(), Some(iscsi || fibre)),
        ("portals", !storage.portals.is_empty(), Some(iscsi || nfs || smb)),
        ("path", storage.path.is_some(), Some(nfs || smb)),
        ("layout", storage.layout.is_some(), if iscsi || fibre { Some(true) } else { None }),
        ("multipath", storage.multipath, if iscsi || fibre { None } else { Some(false) }),
    ]
}

fn about(key: &str) -> &'static str {
    match key {
        "target" => "the name of the iSCSI target",
        "wwn" => "hosts find the LUN by it, never by a kernel name",
        "portals" => "where it answers, one a path",
        "path" => "the export or share",
        "layout" => "how volumes lie on it; thick-lv is Dayzero's own",
        _ => "",
    }
}
