//! device-mapper multipath by multipathd: its configuration, and the paths as it sees them.

use crate::StorageError;
use crate::tool;
use dayzero_model::Wwn;
use dayzero_model::storage::{LunSpec, MultipathTimers};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

const CONFIG: &str = "/etc/multipath.conf";
const LIMIT: Duration = Duration::from_secs(60);

/// The configuration for these LUNs. Only their WWNs are taken; all else is left alone.
///
/// `defaults {` stands alone on its line: multipathd drops an option beside it without a word. multipathd sets a
/// session's recovery time from `fast_io_fail_tmo`, over open-iscsi's own timeout.
pub fn config(luns: &[LunSpec]) -> String {
    let timers = luns.first().map_or_else(MultipathTimers::default, |lun| lun.timers);
    let mut text = String::from("# Written by dayzero-agent; changed by hand, it is overwritten.\n");
    let _ = write!(
        text,
        "defaults {{\n    user_friendly_names no\n    find_multipaths no\n    polling_interval {poll}\n    \
         max_polling_interval {poll}\n    path_grouping_policy multibus\n    path_selector \"service-time 0\"\n    \
         path_checker tur\n    failback immediate\n    no_path_retry queue\n    fast_io_fail_tmo {fail}\n    \
         dev_loss_tmo 600\n}}\n",
        poll = timers.polling_interval_s,
        fail = timers.fast_io_fail_s,
    );
    text.push_str("blacklist {\n    wwid \".*\"\n}\nblacklist_exceptions {\n");
    for lun in luns {
        let _ = writeln!(text, "    wwid \"3{}\"", lun.wwn);
    }
    text.push_str("}\n");
    text
}

/// Writes the configuration and restarts multipathd if it changed (it does not take all of it on a reload).
///
/// # Errors
/// The file cannot be written, or multipathd does not start.
pub async fn configure(luns: &[LunSpec]) -> Result<(), StorageError> {
    let wanted = config(luns);
    let unchanged = std::fs::read_to_string(CONFIG).is_ok_and(|now| now == wanted);
    if !unchanged {
        let beside = format!("{CONFIG}.new");
        std::fs::write(&beside, &wanted).map_err(StorageError::io("writing", Path::new(&beside)))?;
        std::fs::rename(&beside, CONFIG).map_err(StorageError::io("writing", Path::new(CONFIG)))?;
    }
    let verb = if unchanged { "start" } else { "restart" };
    tool::run("systemctl", &[verb, "multipathd.service"], LIMIT).await?;
    Ok(())
}

/// One path as multipathd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathLine {
    /// SCSI disk's kernel name.
    pub disk: String,
    /// WWID with its type digit.
    pub wwid: String,
    /// `active`, `failed`, …
    pub dm: String,
    /// `ready`, `faulty`, …
    pub checker: String,
    /// `running`, `offline`, …
    pub device: String,
}

impl PathLine {
    /// Carries I/O.
    pub fn usable(&self) -> bool {
        self.dm == "active" && self.checker == "ready" && self.device == "running"
    }
}

/// Paths that multipathd knows.
///
/// # Errors
/// multipathd does not answer.
pub async fn paths() -> Result<Vec<PathLine>, StorageError> {
    let args = ["show", "paths", "raw", "format", "%d %w %t %T %o"];
    Ok(parse_paths(&tool::run("multipathd", &args, LIMIT).await?))
}

fn parse_paths(text: &str) -> Vec<PathLine> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        Some(PathLine {
            disk: words.next()?,
            wwid: words.next()?,
            dm: words.next()?,
            checker: words.next()?,
            device: words.next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Does this path belong to that LUN?
pub fn is_of(path: &PathLine, wwn: &Wwn) -> bool {
    path.wwid == format!("3{wwn}")
}

/// Waits until the LUN's device is there.
///
/// # Errors
/// It is not, after `patience`.
pub async fn wait_for(device: &Path, patience: Duration) -> Result<(), StorageError> {
    let until = tokio::time::Instant::now() + patience;
    while !device.exists() {
        if tokio::time::Instant::now() > until {
            let shown = device.display().to_string();
            let sentence =
                format!("the LUN's multipath device {shown} did not appear within {} s", patience.as_secs());
            return Err(StorageError::wrong("lun-missing", sentence, shown, "no such device"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_luns_are_taken() {
        let lun = LunSpec {
            storage: "lun0".parse().unwrap(),
            target: "iqn.x:lun0".to_owned(),
            wwn: "6000000000000000000000000e000001".parse().unwrap(),
            paths: Vec::new(),
            timers: MultipathTimers::default(),
        };
        insta::assert_snapshot!(config(&[lun]));
    }

    #[test]
    fn a_path_is_usable_only_in_all_three_columns() {
        let text = "sdb 36000000000000000000000000e000001 active ready running\n\
                    sdc 36000000000000000000000000e000001 failed faulty running\n\n";
        let paths = parse_paths(text);
        let wwn: Wwn = "6000000000000000000000000e000001".parse().unwrap();
        assert_eq!(
            paths.iter().map(|path| (path.usable(), is_of(path, &wwn))).collect::<Vec<_>>(),
            [(true, true), (false, true)]
        );
    }
}
