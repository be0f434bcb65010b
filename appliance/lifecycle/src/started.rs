//! Whether the disk that was installed is the one that the host was started from, and will be the next time.
//!
//! Judged from what the running system reads of itself ([`StartReport`]); what a BMC shows of the order stands beside it
//! and decides nothing. With BIOS there is no order to read: the disk, by its partition table's GUID, is the proof.

use crate::cause::cause;
use dayzero_model::condition::Cause;
use dayzero_model::ids::HostName;
use dayzero_model::install::InstallReport;
use dayzero_model::inventory::BootMode;
use dayzero_model::startup::{BootDevice, BootEntry, RootDisk, StartReport};

/// The evidence, as a part of a sentence.
///
/// # Errors
/// `started-elsewhere`: the root lies on another disk than was installed. `boot-order`: UEFI starts from the network
/// first, or nothing leads to the installed disk before the network.
pub fn judge(host: &HostName, install: &InstallReport, report: &StartReport) -> Result<String, Cause> {
    let root = &report.root;
    if !root.disk_guid.as_ref().is_some_and(|guid| guid.eq_ignore_ascii_case(&install.disk_guid)) {
        return Err(cause(
            "started-elsewhere",
            "the host was not started from the disk that was installed",
            format!("a root on disk {}, partition table {}", install.disk, install.disk_guid),
            format!("a root on {}", disk_text(root)),
            format!(
                "take the other disk out, or put the planned one first in the firmware's boot order, then `dayzero host retry {host}`"
            ),
        ));
    }
    let started = format!("started from {}", disk_text(root));
    match report.mode {
        BootMode::Bios => Ok(format!("{started} by BIOS, which tells no order")),
        BootMode::Uefi => match uefi(report) {
            Ok(how) => Ok(format!("{started} by UEFI, {how}; boot order: {}", report.order_text())),
            Err(sentence) => Err(order_cause(host, report, sentence)),
        },
    }
}

fn disk_text(root: &RootDisk) -> String {
    let wwn = || root.wwn.as_ref().map(ToString::to_string);
    let disk = root.serial.clone().or_else(wwn).unwrap_or_else(|| root.kernel_name.clone());
    match &root.disk_guid {
        Some(guid) => format!("disk {disk} (partition table {guid})"),
        None => format!("disk {disk}, which has no partition table that holds"),
    }
}

/// Our entry, or the one by which this system came up: the firmware's own entry for a drive leads to the fallback loader,
/// and to which drive is known only when the system that it started runs from ours.
fn ours(report: &StartReport, entry: &BootEntry) -> bool {
    let came_up = report.current.as_ref().is_some_and(|current| current.number == entry.number);
    report.root.holds(entry) || (came_up && entry.leads == BootDevice::Drive)
}

fn uefi(report: &StartReport) -> Result<String, String> {
    let network = report.order.iter().position(|entry| entry.leads == BootDevice::Network);
    if network == Some(0) {
        return Err(format!(
            "the firmware starts from the network first, by {}",
            report.order.first().map(ToString::to_string).unwrap_or_default()
        ));
    }
    let first = report.order.iter().position(|entry| ours(report, entry));
    if let Some(at) = first.filter(|at| network.is_none_or(|network| *at < network)) {
        let entry = &report.order[at];
        return Ok(match report.current.as_ref().filter(|current| current.number != entry.number) {
            Some(current) => format!("started by {current}; {entry} leads there before any network"),
            None => format!("{entry} leads there before any network"),
        });
    }
    match report.current.as_ref().filter(|current| ours(report, current)) {
        Some(current) => Ok(format!("started by {current}, which leads there")),
        None => {
            Err("no boot entry of the firmware leads to the installed disk before the network".to_owned())
        }
    }
}

fn order_cause(host: &HostName, report: &StartReport, sentence: String) -> Cause {
    let current = report.current.as_ref().map_or_else(|| "not told".to_owned(), ToString::to_string);
    let mut observed = format!("started by: {current}; boot order: {}", report.order_text());
    if !report.problems.is_empty() {
        observed = format!("{observed}; {}", report.problems.join("; "));
    }
    cause(
        "boot-order",
        sentence,
        "an entry of the installed disk before any network entry: the network boot is asked for once, by the BMC",
        observed,
        format!("put the disk first in the firmware's boot order, then `dayzero host retry {host}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn entry(number: u16, name: &str, leads: BootDevice) -> BootEntry {
        BootEntry { number, name: name.to_owned(), leads }
    }

    #[test]
    fn the_installed_disk_was_started_and_comes_before_the_network() {
        let site = testing::site();
        let whole = testing::whole(&site, "host1");
        let (host, install) = ("host1".parse().unwrap(), whole.install.unwrap());
        let base = whole.started.unwrap();
        let disk = || entry(3, "Dayzero", BootDevice::Partition("esp".into()));
        let other = || entry(4, "debian", BootDevice::Partition("elsewhere".into()));
        let drive = || entry(1, "UEFI DAYZERO LABDISK", BootDevice::Drive);
        let pxe = || entry(2, "UEFI PXEv4", BootDevice::Network);
        let shell = || entry(5, "EFI Internal Shell", BootDevice::Other);
        type Table = Vec<(Vec<BootEntry>, Option<BootEntry>, Result<(), &'static str>)>;
        let table: Table = vec![
            (vec![disk(), drive(), pxe()], Some(disk()), Ok(())),
            (vec![drive(), pxe()], Some(drive()), Ok(())),
            (vec![shell(), disk(), pxe()], None, Ok(())),
            (vec![disk()], None, Ok(())),
            (vec![shell(), pxe(), disk()], Some(disk()), Ok(())),
            (vec![], Some(disk()), Ok(())),
            // First in order: whatever started this time, the next start goes to the network.
            (vec![pxe(), disk()], Some(disk()), Err("network first")),
            (vec![pxe()], None, Err("network first")),
            (vec![shell(), pxe(), disk()], Some(shell()), Err("no boot entry")),
            (vec![other(), pxe()], Some(other()), Err("no boot entry")),
            // A drive that did not start this system may be any drive.
            (vec![drive(), pxe()], None, Err("no boot entry")),
            (vec![], None, Err("no boot entry")),
        ];
        for (order, current, wanted) in table {
            let report = StartReport { mode: BootMode::Uefi, order, current, ..base.clone() };
            let judged = judge(&host, &install, &report);
            match wanted {
                Ok(()) => assert!(judged.is_ok(), "{report:?}: {judged:?}"),
                Err(word) => {
                    let cause = judged.unwrap_err();
                    assert_eq!(cause.code, "boot-order");
                    assert!(cause.sentence.contains(word), "{}", cause.sentence);
                    assert!(cause.next_action.contains("dayzero host retry host1"));
                }
            }
        }
    }

    #[test]
    fn another_disk_is_not_the_installed_one_whatever_the_firmware_is() {
        let site = testing::site();
        let whole = testing::whole(&site, "host1");
        let (host, install) = ("host1".parse().unwrap(), whole.install.unwrap());
        for mode in [BootMode::Bios, BootMode::Uefi] {
            for guid in [Some("another".to_owned()), None] {
                let mut report = StartReport { mode, ..whole.started.clone().unwrap() };
                report.root.disk_guid = guid;
                assert_eq!(judge(&host, &install, &report).unwrap_err().code, "started-elsewhere");
            }
        }
        let bios =
            StartReport { mode: BootMode::Bios, order: vec![], current: None, ..whole.started.unwrap() };
        assert!(judge(&host, &install, &bios).unwrap().contains("BIOS, which tells no order"));
    }
}
