//! The deployment document's tables, read from `data/`, and Dayzero's own rows, never under the document's name.
//!
//! Invariants: admission of primary storage rests on the table "Hypervisor Support for Primary Storage" (the feature
//! table's iSCSI row says what a hypervisor can, not what a cloud may use); `?` and silence refuse.

use crate::Answer;
use crate::facts;
use dayzero_model::site::{Hypervisor, StorageKind, VolumeLayout};
use std::sync::LazyLock;

const DOCUMENT: &str = include_str!("../data/hypervisor-storage-matrix.csv");
const OWN: &str = include_str!("../data/own-rows.csv");

#[derive(Debug, serde::Deserialize)]
struct DocumentRow {
    table: String,
    hypervisor: String,
    feature: String,
    document_value: String,
    upstream_value: String,
    #[serde(rename = "changed")]
    _changed: String,
}

#[derive(Debug, serde::Deserialize)]
struct OwnRow {
    hypervisor: String,
    storage: String,
    layout: String,
    answer: String,
    why: String,
}

fn rows<T: serde::de::DeserializeOwned>(text: &str) -> Vec<T> {
    // A row that cannot be read is left out, which refuses what it would have allowed; a test counts them all.
    csv::Reader::from_reader(text.as_bytes()).into_deserialize().filter_map(Result::ok).collect()
}

static DOCUMENT_ROWS: LazyLock<Vec<DocumentRow>> = LazyLock::new(|| rows(DOCUMENT));
static OWN_ROWS: LazyLock<Vec<OwnRow>> = LazyLock::new(|| rows(OWN));

/// A cell of a table: the document's answer and the later upstream document's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cell {
    /// The deployment-architecture document.
    pub document: Answer,
    /// The later upstream document.
    pub upstream: Answer,
}

fn cell(table: &str, hypervisor: Hypervisor, feature: &str) -> Option<Cell> {
    let column = facts(hypervisor).column?;
    let row = DOCUMENT_ROWS
        .iter()
        .find(|row| row.table == table && row.hypervisor == column && row.feature == feature)?;
    Some(Cell { document: Answer::of(&row.document_value), upstream: Answer::of(&row.upstream_value) })
}

/// A cell of the table of hypervisor features, by the data file's word such as `manual_live_migration`; `None` = the
/// document has no such column or row.
pub fn feature(hypervisor: Hypervisor, feature: &str) -> Option<Cell> {
    cell("hypervisor_feature", hypervisor, feature)
}

/// A cell of the table of primary storage, such as `over_provisioning` or `disk_format`.
pub fn storage_cell(hypervisor: Hypervisor, feature: &str) -> Option<Cell> {
    cell("primary_storage", hypervisor, feature)
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The deployment document's table.
    Document,
    /// Dayzero's own row.
    OwnRow,
}

/// Whether a cluster of a hypervisor may use a primary storage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// It may.
    pub accepted: bool,
    /// By which table.
    pub source: Source,
    /// The cell.
    pub answer: Answer,
    /// A sentence: the cell, and for a refusal what would be accepted.
    pub why: String,
}

/// The data file's word of a storage kind.
pub fn storage_word(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::Iscsi => "iscsi",
        StorageKind::FibreChannel => "fibre_channel",
        StorageKind::Nfs => "nfs",
        StorageKind::Local => "local_storage",
        StorageKind::Smb => "smb_cifs",
    }
}

/// The plan's word of a storage kind, which people read.
pub fn plan_word(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::Iscsi => "iscsi",
        StorageKind::FibreChannel => "fibre-channel",
        StorageKind::Nfs => "nfs",
        StorageKind::Local => "local",
        StorageKind::Smb => "smb",
    }
}

/// The plan's word of a layout.
pub fn layout_word(layout: VolumeLayout) -> &'static str {
    match layout {
        VolumeLayout::ThickLv => "thick-lv",
        VolumeLayout::SharedMountPoint => "shared-mount-point",
        VolumeLayout::Clvm => "clvm",
        VolumeLayout::Vmfs => "vmfs",
    }
}

/// The layouts that a cell of the document means.
fn layouts(answer: &Answer) -> &'static [VolumeLayout] {
    match answer {
        Answer::Qualified(text) if text == "CLVM" || text == "Yes via existing SR" => &[VolumeLayout::Clvm],
        Answer::Qualified(text) if text == "VMFS" => &[VolumeLayout::Vmfs],
        Answer::Qualified(text) if text == "Yes via Shared Mountpoint" => &[VolumeLayout::SharedMountPoint],
        _ => &[],
    }
}

/// Whether `hypervisor` may use a storage of `kind` with this volume layout (`None` = the plan says none).
pub fn primary_storage(hypervisor: Hypervisor, kind: StorageKind, layout: Option<VolumeLayout>) -> Verdict {
    let (word, label, shown) = (storage_word(kind), facts(hypervisor).label, plan_word(kind));
    let wanted = layout.map_or("", layout_word);
    let own =
        OWN_ROWS.iter().filter(|row| row.hypervisor == facts(hypervisor).own_column && row.storage == word);
    if let Some(row) = own.clone().find(|row| row.layout == wanted) {
        let answer = Answer::of(&row.answer);
        let why = format!("Dayzero's own row {label} × {shown} says {answer}: {}", row.why);
        return Verdict { accepted: answer.is_yes(), source: Source::OwnRow, answer, why };
    }
    let answer = storage_cell(hypervisor, word).map_or(Answer::Unknown, |cell| cell.document);
    let mut possible: Vec<&str> = layouts(&answer).iter().map(|layout| layout_word(*layout)).collect();
    let block = matches!(kind, StorageKind::Iscsi | StorageKind::FibreChannel);
    let fits = if block { possible.contains(&wanted) } else { wanted.is_empty() };
    let accepted = answer.is_yes() && fits;
    possible.extend(
        own.filter(|row| row.answer == "Yes" && !row.layout.is_empty()).map(|row| row.layout.as_str()),
    );
    let mut why = format!("the document's table says {label} × {shown}: {answer}");
    if !accepted && !possible.is_empty() {
        why.push_str(&format!("; with this hypervisor write `layout: {}`", possible.join("` or `layout: ")));
    } else if !accepted && answer.is_yes() {
        why.push_str("; this kind takes no `layout`");
    }
    Verdict { accepted, source: Source::Document, answer, why }
}

/// The storage kinds that a hypervisor may use at all, with some layout.
pub fn usable_storage(hypervisor: Hypervisor) -> Vec<StorageKind> {
    use StorageKind::{FibreChannel, Iscsi, Local, Nfs, Smb};
    use VolumeLayout::{Clvm, SharedMountPoint, ThickLv, Vmfs};
    let all = [None, Some(ThickLv), Some(SharedMountPoint), Some(Clvm), Some(Vmfs)];
    let usable =
        |kind: &StorageKind| all.iter().any(|layout| primary_storage(hypervisor, *kind, *layout).accepted);
    [Iscsi, FibreChannel, Nfs, Local, Smb].into_iter().filter(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Hypervisor::{BareMetal, HyperV, Kvm, Lxc, OracleVm, VSphere, Xen, XenServer};
    use StorageKind::{Iscsi, Local, Nfs, Smb};
    use VolumeLayout::{Clvm, SharedMountPoint, ThickLv, Vmfs};

    #[test]
    fn every_row_of_the_data_is_read() {
        assert_eq!(DOCUMENT_ROWS.len(), DOCUMENT.lines().count() - 1);
        assert_eq!(OWN_ROWS.len(), OWN.lines().count() - 1);
        for row in OWN_ROWS.iter() {
            assert!(
                crate::ALL.iter().any(|one| facts(*one).own_column == row.hypervisor),
                "{}",
                row.hypervisor
            );
            assert!(!row.why.is_empty());
        }
        for row in DOCUMENT_ROWS.iter() {
            assert!(
                crate::ALL.iter().any(|one| facts(*one).column == Some(&row.hypervisor)),
                "{}",
                row.hypervisor
            );
        }
    }

    #[test]
    fn the_document_decides_and_own_rows_say_so() {
        for (hypervisor, kind, layout, accepted, source) in [
            (Kvm, Iscsi, Some(SharedMountPoint), true, Source::Document),
            (Kvm, Iscsi, Some(ThickLv), true, Source::OwnRow),
            (Kvm, Iscsi, None, false, Source::Document),
            (Kvm, Iscsi, Some(Vmfs), false, Source::Document),
            (Kvm, Nfs, None, true, Source::Document),
            (Kvm, Nfs, Some(ThickLv), false, Source::Document),
            (Kvm, Smb, None, false, Source::Document),
            (HyperV, Iscsi, None, false, Source::Document),
            (HyperV, Nfs, None, false, Source::Document),
            (HyperV, Smb, None, true, Source::Document),
            (XenServer, Iscsi, Some(Clvm), true, Source::Document),
            (XenServer, Iscsi, Some(ThickLv), false, Source::Document),
            (VSphere, Iscsi, Some(Vmfs), true, Source::Document),
            (Lxc, Nfs, None, true, Source::Document),
            (Xen, Nfs, None, true, Source::OwnRow),
            (Xen, Iscsi, Some(Vmfs), false, Source::Document),
            (BareMetal, Local, None, true, Source::OwnRow),
            (BareMetal, Iscsi, Some(ThickLv), false, Source::Document),
            (OracleVm, Nfs, None, false, Source::Document),
        ] {
            let verdict = primary_storage(hypervisor, kind, layout);
            let shown = format!("{hypervisor:?} {kind:?} {layout:?}: {verdict:?}");
            assert_eq!((verdict.accepted, verdict.source), (accepted, source), "{shown}");
        }
    }

    #[test]
    fn a_refusal_says_what_the_cell_says_and_what_to_write() {
        let why = |hypervisor, kind, layout| primary_storage(hypervisor, kind, layout).why;
        insta::assert_snapshot!(
            [
                why(HyperV, Iscsi, None),
                why(Kvm, Iscsi, None),
                why(Kvm, Nfs, Some(ThickLv)),
                why(OracleVm, Nfs, None),
                why(Kvm, Iscsi, Some(ThickLv)),
            ]
            .join("\n"),
            @r"
        the document's table says Hyper-V × iscsi: No
        the document's table says KVM × iscsi: Yes via Shared Mountpoint; with this hypervisor write `layout: shared-mount-point` or `layout: thick-lv`
        the document's table says KVM × nfs: Yes; this kind takes no `layout`
        the document's table says Oracle VM × nfs: ?
        Dayzero's own row KVM × iscsi says Yes: thick LVs (raw) on the shared LUN; one elected host alone changes the LVM metadata, activation is exclusive
        "
        );
    }

    #[test]
    fn features_keep_all_kinds_of_answers() {
        for (hypervisor, word, document, upstream) in [
            (Kvm, "network_throttling", Answer::No, Answer::Yes),
            (Lxc, "ha", Answer::Unknown, Answer::Unknown),
            (BareMetal, "ha", Answer::NotApplicable, Answer::NotApplicable),
            (
                VSphere,
                "work_load_balancing",
                Answer::Qualified("DRS".into()),
                Answer::Qualified("DRS".into()),
            ),
        ] {
            assert_eq!(feature(hypervisor, word), Some(Cell { document, upstream }), "{hypervisor:?} {word}");
        }
        assert_eq!(feature(Xen, "ha"), None, "the document has no column for Xen under libvirt");
    }
}
