//! Reads the hardware: SMBIOS, `/proc`, `/sys` and LLDP. A section that fails becomes a partial error.

use crate::smbios;
use dayzero_model::MacAddr;
use dayzero_model::inventory::{BootMode, Cpu, Inventory, Nic};
use dayzero_model::units::{MebiBytes, Mhz};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Reads everything; listens for LLDP neighbours for at most `lldp`, less if each linked NIC has heard one.
pub async fn collect(lldp: Duration) -> Inventory {
    let mut partial_errors = Vec::new();
    let nics = nics();
    let macs: Vec<MacAddr> = nics.iter().filter(|nic| nic.link).map(|nic| nic.mac).collect();
    let neighbours = match dayzero_netconf::lldp::listen(&macs, lldp).await {
        Ok(neighbours) => neighbours,
        Err(error) => {
            partial_errors.push(format!("LLDP: {error}"));
            Vec::new()
        }
    };
    let disks = match tokio::task::spawn_blocking(dayzero_storage::disks::enumerate).await {
        Ok(Ok(found)) => found.into_iter().map(|found| found.disk).collect(),
        Ok(Err(error)) => {
            partial_errors.push(format!("disks: {error}"));
            Vec::new()
        }
        Err(error) => {
            partial_errors.push(format!("disks: {error}"));
            Vec::new()
        }
    };
    let uefi = Path::new("/sys/firmware/efi").exists();
    Inventory {
        system: smbios::system(),
        boot_mode: if uefi { BootMode::Uefi } else { BootMode::Bios },
        firmware: smbios::firmware(),
        cpu: cpu(),
        memory: total_memory(),
        dimms: smbios::dimms(),
        disks,
        nics,
        neighbours,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        partial_errors,
    }
}

/// Memory that the kernel sees.
pub fn total_memory() -> MebiBytes {
    let text = read("/proc/meminfo");
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse().ok());
    MebiBytes(kib.unwrap_or(0_u64) / 1024)
}

/// Processors, from the running kernel. Its own measurement of the clock goes wrong on a busy emulated machine, and shows
/// the current step of a sleeping core: what the firmware tells is a lower bound.
pub fn cpu() -> Cpu {
    let mut cpu = parse_cpu(&read("/proc/cpuinfo"));
    cpu.speed = cpu.speed.max(Mhz(smbios::cpu_speed().unwrap_or(0)));
    cpu
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn parse_cpu(text: &str) -> Cpu {
    let mut cpu = Cpu::default();
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    let mut socket = String::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "processor" => cpu.threads += 1,
            "model name" if cpu.model.is_empty() => cpu.model = value.to_owned(),
            "cpu MHz" => cpu.speed = Mhz(cpu.speed.0.max(value.parse::<f64>().unwrap_or(0.0) as u64)),
            "physical id" => {
                socket = value.to_owned();
                sockets.insert(socket.clone());
            }
            "core id" => {
                cores.insert((socket.clone(), value.to_owned()));
            }
            "flags" if cpu.virtualization.is_none() => {
                let found = value.split_ascii_whitespace().find(|flag| matches!(*flag, "svm" | "vmx"));
                cpu.virtualization = found.map(str::to_owned);
            }
            _ => {}
        }
    }
    cpu.sockets = (sockets.len() as u32).max(1);
    cpu.cores = if cores.is_empty() { cpu.threads } else { cores.len() as u32 };
    cpu
}

/// Physical NICs: those that have a device below them.
pub fn nics() -> Vec<Nic> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut nics: Vec<Nic> = entries.filter_map(|entry| nic(&entry.path())).collect();
    nics.sort_by(|a, b| (&a.slot, a.mac).cmp(&(&b.slot, b.mac)));
    nics
}

fn nic(path: &Path) -> Option<Nic> {
    let device = std::fs::canonicalize(path.join("device")).ok()?;
    let text = |name: &str| std::fs::read_to_string(path.join(name)).map(|s| s.trim().to_owned()).ok();
    // A bond lends its legs one address; the card's own stays in perm_hwaddr.
    let mac = text("bonding_slave/perm_hwaddr").or_else(|| text("address"))?.parse().ok()?;
    let slot =
        device.iter().filter_map(|part| part.to_str()).rfind(|part| is_pci_address(part)).map(str::to_owned);
    let driver = std::fs::read_link(path.join("device/driver")).ok();
    let speed = text("speed").and_then(|speed| speed.parse::<i64>().ok()).filter(|speed| *speed > 0);
    Some(Nic {
        kernel_name: path.file_name()?.to_string_lossy().into_owned(),
        mac,
        slot,
        driver: driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned())),
        speed_mbit: speed.and_then(|speed| u32::try_from(speed).ok()),
        link: text("carrier").as_deref() == Some("1"),
    })
}

/// `dddd:bb:dd.f`.
fn is_pci_address(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.len() == 12 && bytes[4] == b':' && bytes[7] == b':' && bytes[10] == b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_cores_and_threads_are_told_apart() {
        let one = |cpu: u32, socket: u32, core: u32| {
            format!(
                "processor\t: {cpu}\nmodel name\t: Test CPU\ncpu MHz\t\t: 2400.5\nphysical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: fpu svm sse\n\n"
            )
        };
        let text: String =
            [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 1, 0)].iter().map(|(a, b, c)| one(*a, *b, *c)).collect();
        let cpu = parse_cpu(&text);
        assert_eq!((cpu.sockets, cpu.cores, cpu.threads, cpu.speed), (2, 3, 4, Mhz(2400)));
        assert_eq!(cpu.virtualization.as_deref(), Some("svm"));
    }

    #[test]
    fn a_pci_address_is_recognised() {
        assert!(is_pci_address("0000:00:10.0"));
        assert!(!is_pci_address("virtio0") && !is_pci_address("pci0000:00"));
    }
}
