//! What one QEMU machine is made of, and the command line that makes it so.
//!
//! Pure: the same spec gives the same arguments. Nothing secret stands in them.

use dayzero_model::{MacAddr, Wwn};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Firmware that a machine starts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS with the NIC's own ROM (iPXE).
    Bios,
    /// EDK2 with its own PXE: the NICs carry no ROM.
    Uefi,
}

/// What SMBIOS says of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Type 1 manufacturer.
    pub manufacturer: String,
    /// Type 1 product name.
    pub product: String,
    /// Type 1 serial number.
    pub serial: String,
    /// Type 1 UUID, as `/sys/class/dmi/id/product_uuid` shows it.
    pub uuid: String,
    /// Type 2 serial number.
    pub board_serial: String,
    /// Type 0 firmware version.
    pub firmware_version: String,
}

/// The machine's OS disk: a raw sparse file behind virtio-scsi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file; made sparse with `size` bytes if it is missing.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Serial number that the guest reads.
    pub serial: String,
    /// World Wide Name, 64 bit.
    pub wwn: Option<Wwn>,
}

/// One NIC: its frames go through a pair of Unix datagram sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// Its address.
    pub mac: MacAddr,
    /// Socket that QEMU binds.
    pub local: PathBuf,
    /// Socket that the switch has bound.
    pub remote: PathBuf,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Its name in logs and in QEMU.
    pub name: String,
    /// Directory of its sockets, firmware variables and console log. Keep it short: socket paths end at 107 bytes.
    pub dir: PathBuf,
    /// Firmware.
    pub firmware: Firmware,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// SMBIOS identity.
    pub identity: Identity,
    /// OS disk; none = a machine that only PXE-boots.
    pub disk: Option<DiskSpec>,
    /// NICs in slot order; the first is the PXE NIC. At most 8.
    pub nics: Vec<NicSpec>,
    /// Start this kernel instead of what the firmware finds.
    pub direct: Option<DirectBoot>,
    /// A port of a virtio serial bus, none = no such bus.
    pub port: Option<PortSpec>,
}

/// A virtio serial port that leads to a Unix socket: whoever reads and writes it in the guest talks to who listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name in the guest (`/sys/class/virtio-ports/*/name`).
    pub name: String,
    /// The socket; somebody must listen on it when the machine starts.
    pub socket: PathBuf,
}

/// A kernel that QEMU loads itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectBoot {
    /// bzImage.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
}

/// PCI device number of NIC `index` on the root bus: 0x10, 0x11, …
pub fn nic_slot(index: usize) -> usize {
    0x10 + index
}

/// `bootindex` values: an armed PXE NIC beats the disk, an idle one comes after it.
pub(crate) const PXE_FIRST: u32 = 1;
pub(crate) const DISK: u32 = 2;
pub(crate) const PXE_LAST: u32 = 5;

/// Read-only firmware code of EDK2 as Debian packages it.
pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Template of its variables.
pub const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

fn escaped(path: &Path) -> String {
    text(&path.to_string_lossy())
}

/// QEMU's option syntax: a comma in a value is doubled.
fn text(value: &str) -> String {
    value.replace(',', ",,")
}

impl MachineSpec {
    /// Socket on which the daemon awaits QEMU's monitor.
    pub fn qmp_socket(&self) -> PathBuf {
        self.dir.join("qmp")
    }

    /// Socket on which the daemon awaits the serial console.
    pub fn serial_socket(&self) -> PathBuf {
        self.dir.join("serial")
    }

    /// The console's log over all power cycles.
    pub fn console_log(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// The machine's own copy of EDK2's variables.
    pub fn vars(&self) -> PathBuf {
        self.dir.join("vars.fd")
    }

    /// QEMU's arguments. `pxe_armed` = the PXE NIC is first in this start. `clock_lost` = its clock starts at
    /// 1980-01-01, as with an empty battery, and not at the time of day, UTC. The machine starts stopped, so that
    /// carriers and media are set before the firmware runs.
    pub fn arguments(&self, pxe_armed: bool, clock_lost: bool) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |parts: &[&str]| args.extend(parts.iter().map(|part| (*part).to_owned()));
        let memory = format!("{}", self.memory_mib);
        let cpus = format!("{}", self.cpus);
        add(&[
            "-name",
            &text(&self.name),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-vga",
            "none",
        ]);
        add(&["-machine", "q35,dump-guest-core=off", "-accel", "tcg,thread=multi", "-cpu", "max"]);
        add(&["-smp", &cpus, "-m", &memory, "-S", "-boot", "strict=on"]);
        add(&["-rtc", if clock_lost { "base=1980-01-01T00:00:00" } else { "base=utc" }]);
        add(&["-uuid", &self.identity.uuid]);
        add(&["-chardev", &format!("socket,id=qmp,path={}", escaped(&self.qmp_socket()))]);
        add(&["-mon", "chardev=qmp,mode=control"]);
        add(&[
            "-chardev",
            &format!(
                "socket,id=serial0,path={},logfile={},logappend=on",
                escaped(&self.serial_socket()),
                escaped(&self.console_log())
            ),
        ]);
        add(&["-serial", "chardev:serial0"]);
        self.add_firmware(&mut add);
        self.add_identity(&mut add);
        self.add_disk(&mut add);
        self.add_nics(&mut add, pxe_armed);
        if let Some(port) = &self.port {
            add(&["-device", "virtio-serial-pci,id=bus0,bus=pcie.0,addr=0x19"]);
            add(&["-chardev", &format!("socket,id=port0,path={}", escaped(&port.socket))]);
            add(&["-device", &format!("virtserialport,bus=bus0.0,chardev=port0,name={}", text(&port.name))]);
        }
        if let Some(direct) = &self.direct {
            add(&["-kernel", &direct.kernel.to_string_lossy(), "-initrd", &direct.initrd.to_string_lossy()]);
            add(&["-append", &direct.cmdline]);
        }
        args
    }

    fn add_firmware(&self, add: &mut impl FnMut(&[&str])) {
        if self.firmware == Firmware::Uefi {
            add(&["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={OVMF_CODE}")]);
            add(&["-drive", &format!("if=pflash,unit=1,format=raw,file={}", escaped(&self.vars()))]);
        }
    }

    fn add_identity(&self, add: &mut impl FnMut(&[&str])) {
        let id = &self.identity;
        let (maker, product, serial) = (text(&id.manufacturer), text(&id.product), text(&id.serial));
        let version = text(&id.firmware_version);
        add(&["-smbios", &format!("type=0,vendor={maker},version={version}")]);
        add(&[
            "-smbios",
            &format!("type=1,manufacturer={maker},product={product},serial={serial},uuid={}", id.uuid),
        ]);
        let board = text(&id.board_serial);
        add(&["-smbios", &format!("type=2,manufacturer={maker},product={product},serial={board}")]);
        add(&["-smbios", &format!("type=3,manufacturer={maker},serial={serial}")]);
    }

    fn add_disk(&self, add: &mut impl FnMut(&[&str])) {
        // Removable drive, empty until virtual media is inserted.
        add(&["-device", "ide-cd,id=cd0,bus=ide.2"]);
        let Some(disk) = &self.disk else { return };
        add(&["-device", "virtio-scsi-pci,id=scsi0,bus=pcie.0,addr=0x18"]);
        add(&[
            "-drive",
            &format!(
                "if=none,id=d0,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file={}",
                escaped(&disk.path)
            ),
        ]);
        let wwn = disk.wwn.as_ref().map(|wwn| format!(",wwn=0x{wwn}")).unwrap_or_default();
        add(&[
            "-device",
            &format!(
                "scsi-hd,id=disk0,bus=scsi0.0,drive=d0,vendor=DAYZERO,product=LABDISK,serial={}{wwn},bootindex={DISK}",
                text(&disk.serial)
            ),
        ]);
    }

    fn add_nics(&self, add: &mut impl FnMut(&[&str]), pxe_armed: bool) {
        for (index, nic) in self.nics.iter().enumerate() {
            add(&[
                "-netdev",
                &format!(
                    "dgram,id=net{index},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                    escaped(&nic.local),
                    escaped(&nic.remote)
                ),
            ]);
            let boot = match index {
                0 if pxe_armed => format!(",bootindex={PXE_FIRST}"),
                0 => format!(",bootindex={PXE_LAST}"),
                _ => String::new(),
            };
            // EDK2 brings its own PXE; an iPXE in the ROM would hide it. Only the PXE NIC has a ROM.
            let rom = if self.firmware == Firmware::Uefi || index > 0 { ",romfile=" } else { "" };
            add(&[
                "-device",
                &format!(
                    "virtio-net-pci,id=nic{index},netdev=net{index},mac={},bus=pcie.0,addr=0x{:x},speed=1000,duplex=full{rom}{boot}",
                    nic.mac,
                    nic_slot(index)
                ),
            ]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(firmware: Firmware) -> MachineSpec {
        MachineSpec {
            name: "host1".into(),
            dir: "/lab/host1".into(),
            firmware,
            memory_mib: 1536,
            cpus: 2,
            identity: Identity {
                manufacturer: "Dayzero".into(),
                product: "Lab, q35".into(),
                serial: "DZ-1".into(),
                uuid: "6c1d5a30-7f0e-4b6e-9a51-0d2b1c000001".into(),
                board_serial: "DZ-1-MB".into(),
                firmware_version: "1.0".into(),
            },
            disk: Some(DiskSpec {
                path: "/lab/host1/disk".into(),
                size: 8 << 30,
                serial: "D1".into(),
                wwn: Some("0x5000c50077000001".parse().unwrap()),
            }),
            nics: (0..2)
                .map(|i| NicSpec {
                    mac: MacAddr([0x52, 0x54, 0, 0x77, 1, i]),
                    local: format!("/lab/host1/n{i}.q").into(),
                    remote: format!("/lab/host1/n{i}.s").into(),
                })
                .collect(),
            direct: None,
            port: None,
        }
    }

    #[test]
    fn arguments_of_a_uefi_machine_armed_for_pxe() {
        insta::assert_snapshot!(spec(Firmware::Uefi).arguments(true, false).join("\n"));
    }

    #[test]
    fn a_port_leads_to_its_socket() {
        let port = PortSpec { name: "dayzero.lab".into(), socket: "/lab/lab.sock".into() };
        let args =
            MachineSpec { port: Some(port), ..spec(Firmware::Bios) }.arguments(false, false).join("\n");
        assert!(args.contains("socket,id=port0,path=/lab/lab.sock\n"), "{args}");
        assert!(args.contains("virtserialport,bus=bus0.0,chardev=port0,name=dayzero.lab"), "{args}");
        assert!(!spec(Firmware::Bios).arguments(false, false).join("\n").contains("virtio-serial"));
    }

    #[test]
    fn a_bios_machine_keeps_the_rom_of_its_pxe_nic_alone() {
        let args = spec(Firmware::Bios).arguments(false, false);
        let nics: Vec<_> = args.iter().filter(|arg| arg.starts_with("virtio-net-pci")).collect();
        assert!(!nics[0].contains("romfile") && nics[0].ends_with("bootindex=5"), "{}", nics[0]);
        assert!(nics[1].contains("romfile=") && !nics[1].contains("bootindex"), "{}", nics[1]);
        assert!(!args.iter().any(|arg| arg.contains("pflash")));
    }
}
