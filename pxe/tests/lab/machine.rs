//! A QEMU machine on the rack's boot network.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;

use crate::rack::{Rack, must, sh};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// SeaBIOS, the NIC's option ROM is iPXE.
    Bios,
    /// EDK2's own PXE, no option ROM.
    Uefi,
    /// EDK2, the NIC's option ROM is iPXE.
    UefiRom,
    /// EDK2's HTTP boot, no option ROM.
    UefiHttp,
    /// The same, and it holds the authority in the rack's file `cacerts` for HTTPS.
    UefiHttps,
    /// EDK2's PXE by IPv6 alone, no option ROM.
    UefiSix,
    /// EDK2's HTTP boot, no option ROM; by IPv6 where IPv4 is not answered.
    UefiHttpSix,
    /// EDK2's own PXE on arm64, no option ROM.
    Arm64,
    /// EDK2's own PXE, no option ROM, enforcing Secure Boot with Microsoft's keys, as servers are delivered.
    UefiSecure,
}

/// A running machine; its process and its port at the bridge end when dropped.
pub(crate) struct Machine {
    child: Child,
    console: PathBuf,
    /// The namespace and the device of its port.
    port: (String, String),
    pub(crate) start: Instant,
}

/// Kernel of the package that is unpacked in `$DAYZERO_TEST_KERNEL`.
pub(crate) fn kernel() -> PathBuf {
    let base = std::env::var("DAYZERO_TEST_KERNEL").expect(
        "DAYZERO_TEST_KERNEL: a directory with an unpacked linux-image package; `cargo xtask test --lab pxe` makes it",
    );
    let all = fs::read_dir(Path::new(&base).join("boot")).unwrap().flatten().map(|entry| entry.path());
    let kernel = all.into_iter().find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    kernel.expect("boot/vmlinuz-… in DAYZERO_TEST_KERNEL")
}

/// An initramfs whose init says so on the console, and powers off.
pub(crate) fn initramfs(dir: &Path) -> PathBuf {
    let root = dir.join("initramfs");
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::create_dir_all(root.join("dev")).unwrap();
    let init = "#!/busybox sh\n/busybox mount -t proc proc /proc\n\
                echo \"DZT-INIT $(/busybox cat /proc/cmdline) DZT-END\" > /dev/console\n/busybox poweroff -f\n";
    fs::write(root.join("init"), init).unwrap();
    let out = dir.join("initramfs.img");
    must(&format!(
        "cd {}; cp /bin/busybox busybox; chmod 755 init; mknod dev/console c 5 1
         find . | cpio -o -H newc --quiet | zstd -q -3 -f -o {}",
        root.display(),
        out.display()
    ));
    out
}

/// A disk that says on the console by which firmware it was started.
pub(crate) fn disk(dir: &Path) -> PathBuf {
    let at = dir.display();
    let config = "serial --unit=0 --speed=115200\nterminal_output serial\necho DISKBOOT-UEFI\nsleep 600\n";
    fs::write(dir.join("g.cfg"), config).unwrap();
    must(&format!(
        "cd {at}; rm -f boot.img esp.img; truncate -s 64M boot.img
         sgdisk -o -n 1:2048:+48M -t 1:ef00 boot.img >/dev/null
         grub-mkstandalone -O x86_64-efi -o bootx64.efi --modules='serial terminal echo sleep' \
           --install-modules='serial terminal echo sleep normal' --locales= --fonts= --themes= boot/grub/grub.cfg=g.cfg
         mkfs.vfat -C esp.img 49152 >/dev/null; mmd -i esp.img ::/EFI ::/EFI/BOOT
         mcopy -i esp.img bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
         dd if=esp.img of=boot.img bs=1M seek=1 conv=notrunc status=none"
    ));
    // Writes the text at 0x40 to the first serial port, then halts.
    let code: [u8; 35] = [
        0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x40, 0x7c, 0xfc, 0xac, 0x84, 0xc0, 0x74, 0x12, 0x88, 0xc4, 0xba, 0xfd,
        0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xe9, 0xf4, 0xeb, 0xfd,
        0,
    ];
    let path = dir.join("boot.img");
    let mut sector = fs::read(&path).unwrap()[..512].to_vec();
    sector[..35].copy_from_slice(&code);
    sector[0x40..0x51].copy_from_slice(b"\r\nDISKBOOT-BIOS\r\n");
    sector[0x51] = 0;
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&sector).unwrap();
    path
}

impl Machine {
    /// Its process: `ip netns exec` becomes the program.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends a signal to it, such as `STOP`: `ip netns exec` becomes the program.
    pub(crate) fn signal(&self, name: &str) {
        must(&format!("kill -{name} {}", self.child.id()));
    }

    /// Starts one on our segment that tries its NIC first, then its disk.
    pub(crate) fn start(rack: &Rack, firmware: Firmware, mac: MacAddr, disk: Option<&Path>) -> Self {
        Self::start_at(rack, (&rack.server, "mgmt0"), firmware, mac, disk)
    }

    /// The same at a bridge of a namespace.
    pub(crate) fn start_at(
        rack: &Rack,
        (ns, bridge): (&str, &str),
        firmware: Firmware,
        mac: MacAddr,
        disk: Option<&Path>,
    ) -> Self {
        let dir = rack.dir.path();
        let tag = format!("{:02x}", mac.0[5]);
        let tap = format!("t{tag}");
        // A bridge takes its lowest port's MAC: with each machine, our own changes.
        must(&format!(
            "ip -n {ns} tuntap add {tap} mode tap; ip -n {ns} link set {tap} address 02:00:00:00:00:{tag}
             ip -n {ns} link set {tap} master {bridge} up"
        ));
        let console = dir.join(format!("console-{tag}"));
        let (arm64, secure) = (firmware == Firmware::Arm64, firmware == Firmware::UefiSecure);
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            ns,
            if arm64 { "qemu-system-aarch64" } else { "qemu-system-x86_64" },
            "-nodefaults",
            "-display",
            "none",
            "-vga",
            "none",
        ]);
        command.args([
            "-machine",
            match firmware {
                Firmware::Arm64 => "virt",
                Firmware::UefiSecure => "q35,smm=on",
                // SeaBIOS, and iPXE by it, speak on the serial port.
                Firmware::Bios => "q35,graphics=off",
                _ => "q35",
            },
            "-accel",
            "tcg",
            "-cpu",
            if arm64 { "cortex-a57" } else { "max" },
            "-m",
            "512",
            "-no-reboot",
        ]);
        command.args(["-uuid", "00112233-4455-6677-8899-aabbccddeeff"]);
        command.args(["-serial", &format!("file:{}", console.display())]);
        command.args(["-netdev", &format!("tap,id=n0,ifname={tap},script=no,downscript=no")]);
        let rom = if matches!(firmware, Firmware::Bios | Firmware::UefiRom) { "" } else { ",romfile=" };
        command.args(["-device", &format!("virtio-net-pci,netdev=n0,mac={mac},bootindex=1{rom}")]);
        if firmware != Firmware::Bios {
            let vars = dir.join(format!("vars-{tag}"));
            let (code, empty) = match firmware {
                Firmware::Arm64 => ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
                Firmware::UefiSecure => {
                    ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
                }
                _ => ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
            };
            fs::copy(empty, &vars).expect("apt-get install ovmf qemu-efi-aarch64");
            command.args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={code}")]);
            command.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", vars.display())]);
        }
        if secure {
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            command.args(["-global", "ICH9-LPC.disable_s3=1"]);
        }
        // OVMF tries one after the other, and waits a minute for each that is not answered.
        let off: &[&str] = match firmware {
            Firmware::Bios | Firmware::UefiRom => &[],
            Firmware::Uefi | Firmware::UefiSecure | Firmware::Arm64 => &["6"],
            Firmware::UefiSix => &["4"],
            Firmware::UefiHttp | Firmware::UefiHttps | Firmware::UefiHttpSix => &["4", "6"],
        };
        for version in off {
            command.args(["-fw_cfg", &format!("name=opt/org.tianocore/IPv{version}PXESupport,string=n")]);
        }
        if firmware == Firmware::UefiHttps {
            let held = dir.join("cacerts");
            command.args(["-fw_cfg", &format!("name=etc/edk2/https/cacerts,file={}", held.display())]);
        }
        if let Some(disk) = disk {
            command.args(["-drive", &format!("if=none,id=d0,format=raw,file={}", disk.display())]);
            command.args(["-device", "virtio-blk-pci,drive=d0,bootindex=2"]);
        }
        let errors = File::create(dir.join(format!("qemu-{tag}.err"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        Self { child, console, port: (ns.to_owned(), tap), start: Instant::now() }
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until the console shows a text; seconds since the start.
    pub(crate) fn says(&mut self, text: &str, patience: Duration, context: impl Fn() -> String) -> f64 {
        loop {
            let said = self.console();
            if said.contains(text) {
                return self.start.elapsed().as_secs_f64();
            }
            let ended = self.child.try_wait().unwrap();
            let over = ended.is_some() || self.start.elapsed() > patience;
            assert!(!over, "no {text:?} (process: {ended:?}); console:\n{said}\nevents:\n{}", context());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let (namespace, device) = &self.port;
        sh(&format!("ip -n {namespace} link del {device}"));
    }
}
