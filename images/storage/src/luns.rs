//! LUNs: a session through each path, one multipath device, found by WWN.

use crate::StorageError;
use crate::{iscsi, multipath, tool};
use dayzero_model::Wwn;
use dayzero_model::storage::{LunReport, LunSpec, PathState};
use dayzero_model::units::Bytes;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a LUN's device may take to appear after the first login.
const PATIENCE: Duration = Duration::from_secs(60);

/// The multipath device of a LUN.
pub fn device(wwn: &Wwn) -> PathBuf {
    PathBuf::from(format!("/dev/mapper/3{wwn}"))
}

/// Connects these LUNs, over every path; what is connected already is left as it is. Run at each boot and at each order.
pub async fn connect(luns: &[LunSpec]) -> Vec<LunReport> {
    let mut problems = Vec::new();
    let started = tool::run("systemctl", &["start", "iscsid.service"], Duration::from_secs(60)).await;
    problems.extend(started.err().map(|error| error.to_string()));
    if let Err(error) = multipath::configure(luns).await {
        problems.push(error.to_string());
    }
    for lun in luns {
        if let Err(error) = iscsi::log_in(lun).await {
            problems.push(format!("{}: {error}", lun.storage));
        }
        if let Err(error) = multipath::wait_for(&device(&lun.wwn), PATIENCE).await {
            problems.push(error.to_string());
        }
    }
    let mut reports = report(luns).await;
    // A path shows up in multipathd a poll after its disk.
    for _ in 0..20 {
        if reports.iter().all(|report| report.problems.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        reports = report(luns).await;
    }
    for report in &mut reports {
        if !report.problems.is_empty() {
            report.problems.extend(problems.iter().cloned());
        }
    }
    reports
}

/// Reads the LUNs back.
pub async fn report(luns: &[LunSpec]) -> Vec<LunReport> {
    let sessions = iscsi::sessions().await;
    let paths = multipath::paths().await;
    luns.iter().map(|lun| one(lun, &sessions, &paths)).collect()
}

type Seen<T> = Result<Vec<T>, StorageError>;

fn one(lun: &LunSpec, sessions: &Seen<iscsi::Session>, paths: &Seen<multipath::PathLine>) -> LunReport {
    let mut report = LunReport { storage: Some(lun.storage.clone()), ..LunReport::default() };
    let (sessions, paths) = match (sessions, paths) {
        (Ok(sessions), Ok(paths)) => (sessions, paths),
        (sessions, paths) => {
            report.problems.extend(sessions.as_ref().err().map(ToString::to_string));
            report.problems.extend(paths.as_ref().err().map(ToString::to_string));
            return report;
        }
    };
    for planned in &lun.paths {
        let portal = format!("{}:{}", planned.portal, planned.port);
        let session = sessions.iter().find(|session| {
            session.target == lun.target
                && session.portal == portal
                && session.interface == iscsi::interface(planned.nic)
        });
        let line = session.and_then(|session| {
            paths.iter().find(|path| multipath::is_of(path, &lun.wwn) && session.disks.contains(&path.disk))
        });
        let active = line.is_some_and(multipath::PathLine::usable);
        if !active {
            let why = match (session, line) {
                (None, _) => "has no session".to_owned(),
                (Some(session), None) => {
                    format!("has a session ({}) but no disk in multipathd", session.state)
                }
                (_, Some(line)) => format!("is {} {} {}", line.dm, line.checker, line.device),
            };
            report.problems.push(format!("path to {portal} of {} {why}", lun.storage));
        }
        let kernel_name = line.map(|line| line.disk.clone()).unwrap_or_default();
        report.paths.push(PathState { portal: planned.portal, kernel_name, active });
    }
    let device = device(&lun.wwn);
    if device.exists() {
        report.size = size(&device).unwrap_or_default();
        report.device = Some(device.display().to_string());
    } else {
        report.problems.push(format!("{} is missing", device.display()));
    }
    report
}

fn size(device: &Path) -> std::io::Result<Bytes> {
    use std::io::{Seek, SeekFrom};
    std::fs::File::open(device)?.seek(SeekFrom::End(0)).map(Bytes)
}
