//! Machines that really boot from the network. The table printed is comparable to other DHCP/TFTP servers' boots.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::{Arch, BootAction};
use dayzero_model::event::What;
use dayzero_pxe::{Loaders, PxeEvent};

use tempfile::TempDir;

use crate::machine::{Firmware, Machine, disk, initramfs, kernel};
use crate::rack::{Rack, host};

/// Emulated firmware on a loaded machine is slow; on an idle one all of this takes 7 to 20 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

pub(crate) fn images(scratch: &std::path::Path) -> [(&'static str, std::path::PathBuf); 2] {
    [("vmlinuz", kernel()), ("initrd.img", initramfs(scratch))]
}

fn rack() -> (Rack, TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    (Rack::new(&images(scratch.path())), scratch)
}

pub(crate) fn ended(file: &'static str) -> impl Fn(&PxeEvent) -> bool {
    move |event| matches!(&event.what, What::TftpEnd { file: f, error: None, .. } if f == file)
}

fn fetched(path: &'static str) -> impl Fn(&PxeEvent) -> bool {
    move |event| matches!(&event.what, What::HttpFile { path: p, status: 200, bytes, .. } if p == path && *bytes > 0)
}

fn boots(firmware: Firmware, loader: &'static str, stages: usize) {
    let (rack, _scratch) = rack();
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, firmware as u8 + 1]);
    rack.director.clients.lock().unwrap().insert(mac, host(A, true));
    let mut machine = Machine::start(&rack, firmware, mac, None);
    let begin = machine.start;
    let seconds = |at: Instant| at.duration_since(begin).as_secs_f64();
    let director = &rack.director;
    let wait = |what: &str, fits: &dyn Fn(&PxeEvent) -> bool| seconds(director.wait(what, PATIENCE, fits));
    let dhcp = wait("DISCOVER", &|e| matches!(e.what, What::DhcpIn { .. }));
    let loaded = if firmware == Firmware::UefiHttp {
        wait("loader", &fetched("/boot/file/snponly.efi"))
    } else {
        wait("loader", &ended(loader))
    };
    let script =
        wait("script", &|e| matches!(&e.what, What::Script { action: BootAction::Discovery { .. }, .. }));
    let image = wait("kernel", &fetched("/boot/file/vmlinuz"));
    let initrd = wait("initramfs", &fetched("/boot/file/initrd.img"));
    let init = machine.says("DZT-END", PATIENCE, || director.show());
    let console = machine.console();
    assert!(console.contains("dayzero.boot=000000000000d15c"), "the command line arrived: {console}");
    eprintln!(
        "{firmware:?}: first DHCP {dhcp:.1}, loader {loaded:.1}, script {script:.1}, kernel {image:.1}, \
         initramfs {initrd:.1}, init {init:.1} s; load {}",
        std::fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    let verdict = director.verdict(mac);
    assert_eq!(verdict, "agent-silent", "its kernel started and powered off:\n{}", director.show());
    let discovers = director.count(|what| matches!(what, What::DhcpOut { kind, .. } if kind == "ACK"));
    assert_eq!(discovers, stages, "one DHCP a stage, no loop:\n{}", director.show());
    let failed = director.count(|what| matches!(what, What::TftpBroken { .. } | What::HttpBroken { .. }));
    assert_eq!(failed, 0, "no transfer is shown as failed:\n{}", director.show());
    let uuids = |what: &What| matches!(what, What::DhcpIn { uuid: Some(u), .. } if u == "00112233-4455-6677-8899-aabbccddeeff");
    assert!(director.count(uuids) > 0, "its UUID is read:\n{}", director.show());
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, a kernel"]
fn a_bios_machine_boots_by_our_loader_over_its_own_ipxe() {
    boots(Firmware::Bios, "undionly.kpxe", 2);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, a kernel"]
fn a_uefi_machine_boots_by_edk2s_pxe() {
    boots(Firmware::Uefi, "snponly.efi", 2);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, ovmf, a kernel"]
fn a_uefi_machine_boots_by_our_loader_over_its_own_ipxe() {
    boots(Firmware::UefiRom, "snponly.efi", 2);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, a kernel"]
fn a_uefi_machine_boots_by_http() {
    boots(Firmware::UefiHttp, "snponly.efi", 2);
}

#[test]
#[ignore = "needs root, qemu-system-arm, qemu-efi-aarch64"]
fn an_arm64_machine_runs_our_loader_which_fetches_its_script() {
    let rack = Rack::new(&[]);
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x64]);
    rack.director.clients.lock().unwrap().insert(mac, host(A, true));
    let machine = Machine::start(&rack, Firmware::Arm64, mac, None);
    let (director, begin) = (&rack.director, machine.start);
    let wait = |what: &str, fits: &dyn Fn(&PxeEvent) -> bool| {
        director.wait(what, PATIENCE, fits).duration_since(begin).as_secs_f64()
    };
    let arm64 = Some(Arch::UefiArm64);
    let dhcp =
        wait("DISCOVER", &|e| matches!(&e.what, What::DhcpIn { arch, ipxe: false, .. } if *arch == arm64));
    let loaded = wait("loader", &ended(Loaders::ARM64));
    let ours = wait(
        "our iPXE's DISCOVER",
        &|e| matches!(&e.what, What::DhcpIn { arch, ipxe: true, .. } if *arch == arm64),
    );
    let script = wait("script", &|e| {
        e.mac == Some(mac) && matches!(&e.what, What::Script { action: BootAction::Discovery { .. }, .. })
    });
    eprintln!("arm64: first DHCP {dhcp:.1}, loader {loaded:.1}, our iPXE {ours:.1}, script {script:.1} s");
    let failed = director.count(|what| matches!(what, What::TftpBroken { .. }));
    assert_eq!(failed, 0, "no transfer is shown as failed:\n{}", director.show());
}

fn leaves(firmware: Firmware, says: &str) {
    let (rack, _scratch) = rack();
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 1, firmware as u8 + 1]);
    rack.director.clients.lock().unwrap().insert(mac, host(A, false));
    let disk = disk(rack.dir.path());
    let mut machine = Machine::start(&rack, firmware, mac, Some(&disk));
    let local = |e: &PxeEvent| matches!(&e.what, What::Script { action: BootAction::LocalDisk, .. });
    let asked = rack.director.wait("script that leaves", PATIENCE, local).duration_since(machine.start);
    let booted = machine.says(says, PATIENCE, || rack.director.show());
    eprintln!("{firmware:?} without a window: script {:.1}, disk {booted:.1} s", asked.as_secs_f64());
    let image = |path: &str| !path.ends_with(".efi");
    let kernels = rack.director.count(|what| matches!(what, What::HttpFile { path, .. } if image(path)));
    assert_eq!(kernels, 0, "{}", rack.director.show());
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, grub-efi-amd64-bin, gdisk, mtools, dosfstools"]
fn a_bios_machine_without_a_window_goes_on_to_its_disk() {
    leaves(Firmware::Bios, "DISKBOOT-BIOS");
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, grub-efi-amd64-bin, gdisk, mtools, dosfstools"]
fn a_uefi_machine_without_a_window_goes_on_to_its_disk() {
    leaves(Firmware::Uefi, "DISKBOOT-UEFI");
}
