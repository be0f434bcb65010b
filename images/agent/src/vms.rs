//! Virtual machines through libvirt's `virsh`: fixed arguments, definitions by file, no shell.

use dayzero_hypervisor::kvm::{VmDomain, domain_xml};
use dayzero_model::Name;
use dayzero_model::vm::{VmReport, VmSpec};
use dayzero_model::wire::AgentError;
use dayzero_storage::tool;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A virsh call; libvirtd starts on demand and is slow on a busy host.
const LIMIT: Duration = Duration::from_secs(120);
/// Lines of console that are reported.
const TAIL_LINES: usize = 50;
/// Characters of a line that are reported.
const LINE_CHARS: usize = 300;
/// Bytes of a console log that are read from its end.
const TAIL_BYTES: u64 = 16 * 1024;

fn failed(sentence: String, observed: String) -> AgentError {
    AgentError {
        code: "libvirt".to_owned(),
        sentence,
        expected: "success".to_owned(),
        observed,
        finding: None,
    }
}

async fn virsh(args: &[&str]) -> Result<String, AgentError> {
    let full: Vec<&str> = ["--connect", "qemu:///system"].iter().chain(args).copied().collect();
    tool::run("virsh", &full, LIMIT)
        .await
        .map_err(|e| failed(format!("virsh {}: {e}", args.join(" ")), e.to_string()))
}

/// Where libvirt lets QEMU copy a VM's serial console to.
fn console_log(name: &Name) -> PathBuf {
    Path::new("/var/log/libvirt/qemu").join(format!("dz-{name}.console"))
}

/// Does libvirt offer domains of type kvm on this host?
pub async fn has_kvm() -> bool {
    Path::new("/dev/kvm").exists()
        && virsh(&["domcapabilities", "--virttype", "kvm", "--machine", "q35"]).await.is_ok()
}

/// Defines a VM and starts it, if it does not run already.
///
/// # Errors
/// The definition is refused, or libvirt fails.
pub async fn start(spec: &VmSpec, disk: &Path) -> Result<(), AgentError> {
    let log = console_log(&spec.name);
    let domain = VmDomain::new(spec, &disk.to_string_lossy(), &log.to_string_lossy())
        .map_err(|e| failed(e.to_string(), "a value that is not allowed".to_owned()))?;
    if state(spec.name.as_str()).await?.as_deref() == Some("running") {
        return Ok(());
    }
    let file = PathBuf::from(format!("/run/dayzero-{}.xml", spec.name));
    std::fs::write(&file, domain_xml(&domain))
        .map_err(|e| failed(format!("{}: {e}", file.display()), e.to_string()))?;
    let defined = virsh(&["define", &file.to_string_lossy()]).await;
    let _ = std::fs::remove_file(&file);
    defined?;
    virsh(&["start", spec.name.as_str()]).await?;
    Ok(())
}

/// Stops a VM at once; one that does not run or exist is stopped already.
///
/// # Errors
/// libvirt fails.
pub async fn stop(name: &Name) -> Result<(), AgentError> {
    if state(name.as_str()).await?.as_deref() == Some("running") {
        virsh(&["destroy", name.as_str()]).await?;
    }
    Ok(())
}

async fn names() -> Result<Vec<String>, AgentError> {
    let text = virsh(&["list", "--all", "--name"]).await?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

async fn state(name: &str) -> Result<Option<String>, AgentError> {
    if !names().await?.iter().any(|known| known == name) {
        return Ok(None);
    }
    Ok(Some(virsh(&["domstate", name]).await?.trim().to_owned()))
}

/// All VMs that are ours by name, with the tails of their consoles.
///
/// # Errors
/// libvirt fails.
pub async fn list() -> Result<Vec<VmReport>, AgentError> {
    let mut reports = Vec::new();
    for text in names().await? {
        let Ok(name) = text.parse::<Name>() else { continue };
        let state = virsh(&["domstate", &text]).await?.trim().to_owned();
        let console = tail(&console_log(&name));
        reports.push(VmReport { name, state, console });
    }
    Ok(reports)
}

fn tail(path: &Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let Ok(mut file) = std::fs::File::open(path) else { return Vec::new() };
    let len = file.metadata().map(|meta| meta.len()).unwrap_or(0);
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)));
    let _ = file.take(TAIL_BYTES).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = text.lines().map(printable).filter(|line| !line.is_empty()).collect();
    lines.split_off(lines.len().saturating_sub(TAIL_LINES))
}

/// A console line without control characters, so that a guest cannot write to an operator's terminal.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(LINE_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_send_escapes_to_the_operator() {
        assert_eq!(printable("\u{1b}[31mred\u{7}\r"), "[31mred");
        assert_eq!(printable(&"x".repeat(1000)).len(), LINE_CHARS);
    }
}
