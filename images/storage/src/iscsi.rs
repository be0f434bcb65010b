//! iSCSI sessions by open-iscsi: one interface a storage NIC, one session a path.
//!
//! Invariants: a session is bound to its NIC, so that a path never silently takes the other network; records that
//! discovery makes for the crossed pairs (NIC A, portal B) are deleted before anything logs in; argument lists are fixed.

use crate::StorageError;
use crate::tool::{self, ToolError};
use dayzero_model::MacAddr;
use dayzero_model::storage::{LunSpec, PathSpec};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// iscsiadm: "no records found", as the exit status prints.
const NO_RECORDS: &str = "exit status: 21";
/// iscsiadm: "session exists".
const SESSION_EXISTS: &str = "exit status: 15";

async fn iscsiadm(args: &[&str]) -> Result<String, ToolError> {
    tool::run("iscsiadm", args, LIMIT).await
}

/// A result in which one exit status is as good as success.
fn allow(result: Result<String, ToolError>, accepted: &str) -> Result<String, ToolError> {
    match result {
        Err(ToolError::Failed { status, .. }) if status == accepted => Ok(String::new()),
        other => other,
    }
}

/// Name of the open-iscsi interface of a NIC: `dz-525400770103`.
pub fn interface(nic: MacAddr) -> String {
    format!("dz-{}", nic.to_string().replace(':', ""))
}

/// Makes a session for each path of a LUN. Does nothing for paths that have one.
///
/// # Errors
/// iscsiadm fails, or a NIC is missing. One dead portal does not keep the other path from its session: the first error
/// is returned after all paths were tried.
pub async fn log_in(lun: &LunSpec) -> Result<(), StorageError> {
    let mut first = None;
    for path in &lun.paths {
        if let Err(error) = log_in_path(lun, path).await {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

async fn log_in_path(lun: &LunSpec, path: &PathSpec) -> Result<(), StorageError> {
    if sessions().await?.iter().any(|session| session.serves(lun, path)) {
        return Ok(());
    }
    let device = netdev(path.nic)?;
    let iface = interface(path.nic);
    let portal = format!("{}:{}", path.portal, path.port);
    allow(iscsiadm(&["-m", "iface", "-I", &iface, "-o", "new"]).await, SESSION_EXISTS)?;
    for (key, value) in
        [("iface.net_ifacename", device.as_str()), ("iface.hwaddress", ""), ("iface.transport_name", "tcp")]
    {
        if !value.is_empty() {
            iscsiadm(&["-m", "iface", "-I", &iface, "-o", "update", "-n", key, "-v", value]).await?;
        }
    }
    iscsiadm(&["-m", "discovery", "-t", "sendtargets", "-p", &portal, "-I", &iface]).await?;
    drop_crossed(lun).await?;
    let node = ["-m", "node", "-T", &lun.target, "-p", &portal, "-I", &iface];
    for (key, value) in settings(lun) {
        let mut args = node.to_vec();
        args.extend(["-o", "update", "-n", key, "-v", &value]);
        iscsiadm(&args).await?;
    }
    let mut args = node.to_vec();
    args.push("-l");
    allow(iscsiadm(&args).await, SESSION_EXISTS)?;
    Ok(())
}

/// Timers of a session. Logging in again after a boot is the agent's task, once the network is there.
fn settings(lun: &LunSpec) -> Vec<(&'static str, String)> {
    let timers = lun.timers;
    vec![
        ("node.startup", "manual".to_owned()),
        ("node.conn[0].timeo.noop_out_interval", timers.noop_interval_s.to_string()),
        ("node.conn[0].timeo.noop_out_timeout", timers.noop_timeout_s.to_string()),
        ("node.session.timeo.replacement_timeout", timers.fast_io_fail_s.to_string()),
        ("node.conn[0].timeo.login_timeout", "5".to_owned()),
        ("node.session.initial_login_retry_max", "3".to_owned()),
    ]
}

/// Deletes node records of this target that are no path of the plan.
async fn drop_crossed(lun: &LunSpec) -> Result<(), StorageError> {
    let text = allow(iscsiadm(&["-m", "node", "-P", "1"]).await, NO_RECORDS)?;
    for record in parse_records(&text).into_iter().filter(|record| record.target == lun.target) {
        let planned = lun.paths.iter().any(|path| {
            record.portal == format!("{}:{}", path.portal, path.port)
                && record.interface == interface(path.nic)
        });
        if !planned {
            let args = [
                "-m",
                "node",
                "-T",
                &record.target,
                "-p",
                &record.portal,
                "-I",
                &record.interface,
                "-o",
                "delete",
            ];
            allow(iscsiadm(&args).await, NO_RECORDS)?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Record {
    target: String,
    portal: String,
    interface: String,
}

/// Reads `iscsiadm -m node -P 1`.
fn parse_records(text: &str) -> Vec<Record> {
    let (mut target, mut portal) = (String::new(), String::new());
    let mut records = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("Target: ") {
            target = name.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some(at) = line.strip_prefix("Portal: ") {
            portal = at.split(',').next().unwrap_or_default().to_owned();
        } else if let Some(name) = line.strip_prefix("Iface Name: ") {
            records.push(Record {
                target: target.clone(),
                portal: portal.clone(),
                interface: name.to_owned(),
            });
        }
    }
    records
}

/// One running session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Target name.
    pub target: String,
    /// Portal, `address:port`.
    pub portal: String,
    /// open-iscsi interface.
    pub interface: String,
    /// `LOGGED_IN`, `FAILED`, …
    pub state: String,
    /// SCSI disks that it brought.
    pub disks: Vec<String>,
}

impl Session {
    fn serves(&self, lun: &LunSpec, path: &PathSpec) -> bool {
        self.target == lun.target
            && self.portal == format!("{}:{}", path.portal, path.port)
            && self.interface == interface(path.nic)
    }
}

/// Running sessions.
///
/// # Errors
/// iscsiadm fails; no session at all is no error.
pub async fn sessions() -> Result<Vec<Session>, StorageError> {
    Ok(parse_sessions(&allow(iscsiadm(&["-m", "session", "-P", "3"]).await, NO_RECORDS)?))
}

/// Reads `iscsiadm -m session -P 3`.
fn parse_sessions(text: &str) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let (mut target, mut portal) = (String::new(), String::new());
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("Target: ") {
            target = name.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some(at) = line.strip_prefix("Current Portal: ") {
            portal = at.split(',').next().unwrap_or_default().to_owned();
        } else if let Some(name) = line.strip_prefix("Iface Name: ") {
            sessions.push(Session {
                target: target.clone(),
                portal: portal.clone(),
                interface: name.to_owned(),
                state: String::new(),
                disks: Vec::new(),
            });
        } else if let (Some(state), Some(last)) =
            (line.strip_prefix("iSCSI Session State: "), sessions.last_mut())
        {
            state.clone_into(&mut last.state);
        } else if let (Some(rest), Some(last)) =
            (line.strip_prefix("Attached scsi disk "), sessions.last_mut())
        {
            last.disks.extend(rest.split_ascii_whitespace().next().map(str::to_owned));
        }
    }
    sessions
}

/// Kernel name of a NIC: by its own address, also while a bond lends it another.
fn netdev(mac: MacAddr) -> Result<String, StorageError> {
    let entries = std::fs::read_dir("/sys/class/net")
        .map_err(StorageError::io("reading", std::path::Path::new("/sys/class/net")))?;
    let wanted = mac.to_string();
    let own = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("address")).is_ok_and(|a| a.trim() == wanted)
    };
    entries
        .flatten()
        .find(|entry| entry.path().join("device").exists() && own(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .ok_or_else(|| {
            StorageError::wrong(
                "no-such-nic",
                format!("no NIC has the address {mac}"),
                wanted.clone(),
                "none",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_and_their_disks_are_read() {
        let text = "iSCSI Transport Class version 2.0-870\nversion 2.1.8\n\
            Target: iqn.2026-11.example:lun0 (non-flash)\n\
            \tCurrent Portal: 10.77.11.10:3260,1\n\tPersistent Portal: 10.77.11.10:3260,1\n\
            \t\t**********\n\t\tInterface:\n\t\t**********\n\t\tIface Name: dz-525400770103\n\
            \t\tIface Transport: tcp\n\t\tiSCSI Connection State: LOGGED IN\n\t\tiSCSI Session State: LOGGED_IN\n\
            \t\t\tAttached scsi disk sdb\t\tState: running\n\
            \tCurrent Portal: 10.77.12.10:3260,1\n\t\tIface Name: dz-525400770104\n\
            \t\tiSCSI Session State: FAILED\n\t\t\tAttached scsi disk sdc\t\tState: transport-offline\n";
        let sessions = parse_sessions(text);
        assert_eq!(sessions.len(), 2);
        assert_eq!(sessions[0].disks, ["sdb"]);
        assert_eq!((sessions[1].portal.as_str(), sessions[1].state.as_str()), ("10.77.12.10:3260", "FAILED"));
    }

    #[test]
    fn records_are_read() {
        let text = "Target: iqn.x:lun0\n\tPortal: 10.77.11.10:3260,1\n\t\tIface Name: dz-1\n\t\tIface Name: dz-2\n\
            \tPortal: 10.77.12.10:3260,1\n\t\tIface Name: dz-1\n";
        let records = parse_records(text);
        assert_eq!(records.len(), 3);
        assert_eq!((records[2].portal.as_str(), records[2].interface.as_str()), ("10.77.12.10:3260", "dz-1"));
    }
}
